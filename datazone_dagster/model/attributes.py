"""Mapping of item attributes to columns: it grows with the data, its entries never change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from datazone_dagster.model.column_names import RESERVED_PREFIX

MAX_ATTRIBUTES = 500
"""Attributes that get a column of their own; all others share `_dz_rest`."""

_MAX_NAME_CHARACTERS = 200  # stores and engines differ; DynamoDB allows 64 KB
_SUFFIX_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class AttributeColumn:
    """One column of an item.

    `descriptor` is the DynamoDB type of the column's values, `type` the type in which they are
    stored. An `exact` column takes the values that the attribute's typed column can't hold.
    `since` is the change log batch that introduced the column, None until it is in a table.
    """

    attribute: str
    descriptor: str
    column: str
    type: str
    declared: bool = False
    exact: bool = False
    since: int | None = None


@dataclass(frozen=True, slots=True)
class AttributeMapping:
    """The columns of an item, in order of appearance.

    Immutable: `with_column` returns a longer mapping. Entries are never removed, so a replay in
    any order, started from the stored mapping, fills the same columns.
    """

    columns: tuple[AttributeColumn, ...] = ()

    def __iter__(self) -> Iterator[AttributeColumn]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes that have columns, in order."""
        return tuple(dict.fromkeys(column.attribute for column in self.columns))

    def with_column(
        self,
        attribute: str,
        descriptor: str,
        type: str,
        *,
        declared: bool = False,
        exact: bool = False,
    ) -> AttributeMapping:
        """Return a mapping with one more column.

        The first column of an attribute is named after it. Each further column is named
        `<first>__<descriptor>` and also takes the values that the first column can't hold.
        """
        first = next((c.column for c in self.columns if c.attribute == attribute), None)
        taken = (column.column for column in self.columns)
        wanted = attribute if first is None else f"{first}__{descriptor.lower()}"
        name = safe_name(wanted, taken, identity=f"{attribute}\0{descriptor if first else ''}")
        added = AttributeColumn(attribute, descriptor, name, type, declared, exact)
        return AttributeMapping((*self.columns, added))

    def dated(self, earlier: AttributeMapping, batch: int) -> AttributeMapping:
        """Return this mapping with `since` filled in: from an earlier mapping, else the batch."""
        known = {(c.attribute, c.descriptor, c.column): c.since for c in earlier}
        return AttributeMapping(
            tuple(
                replace(c, since=known.get((c.attribute, c.descriptor, c.column), batch))
                for c in self.columns
            )
        )

    def to_json(self) -> str:
        """Return the mapping as JSON for the table's properties; `from_json` reads it."""
        return json.dumps([asdict(column) for column in self.columns], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AttributeMapping:
        """Parse the output of `to_json`."""
        return cls(tuple(AttributeColumn(**column) for column in json.loads(text)))


def safe_name(wanted: str, taken: Iterable[str], *, identity: str) -> str:
    """Return a column name that every engine accepts, equal to the wanted one where possible.

    Letters and digits of any script and `_` stay; other characters become `_`. A hash is appended
    if this, the length limit or a leading `_dz_` changes the name, or if another column's name
    differs in case only. The hash is the same in every table.

    Args:
        wanted: The preferred name.
        taken: Names of other columns.
        identity: Text that identifies the column; the hash is computed from it.
    """
    plain = "".join(c if c == "_" or c.isalnum() else "_" for c in wanted)
    plain = plain[:_MAX_NAME_CHARACTERS]
    if plain.casefold().startswith(RESERVED_PREFIX):
        plain = "x" + plain
    used = {name.casefold() for name in taken}
    if plain and plain == wanted and plain.casefold() not in used:
        return plain
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain or 'attribute'}_{digest[:_SUFFIX_CHARACTERS]}"
