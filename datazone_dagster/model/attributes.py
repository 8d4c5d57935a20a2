"""Mapping of item attributes to columns: it grows with the data.

Of an entry only the type may change, from a type of numbers to a wider one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from datazone_dagster.model.column_names import ITEM_RESTS, RESERVED_PREFIX

MAX_COLUMNS = 500
"""Columns of items, siblings included; values without a column share `_dz_rest`."""

MAX_NAME_BYTES = 255
"""Longest name of an attribute that gets a column: names of 64 KB are legal, and the name of a
column is in every entry of a table's log."""

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
        taken: Collection[str] = (),
    ) -> AttributeMapping:
        """Return a mapping with one more column.

        The first column of an attribute is named after it. Each further column is named
        `<first>__<descriptor>` and also takes the values that the first column can't hold. No
        column gets a name that is `taken`.
        """
        first = next((c.column for c in self.columns if c.attribute == attribute), None)
        used = (*taken, *(column.column for column in self.columns))
        wanted = attribute if first is None else f"{first}__{descriptor.lower()}"
        name = safe_name(wanted, used, identity=f"{attribute}\0{descriptor if first else ''}")
        added = AttributeColumn(attribute, descriptor, name, type, declared, exact)
        return AttributeMapping((*self.columns, added))

    def with_replaced(self, old: AttributeColumn, new: AttributeColumn) -> AttributeMapping:
        """Return a mapping in which another column is in a column's position."""
        return AttributeMapping(tuple(new if one == old else one for one in self.columns))

    def dated(self, earlier: AttributeMapping, batch: int) -> AttributeMapping:
        """Return this mapping with `since` filled in: from an earlier mapping, else the batch."""
        known = {(c.attribute, c.descriptor, c.column): c.since for c in earlier}
        return AttributeMapping(
            tuple(
                replace(c, since=known.get((c.attribute, c.descriptor, c.column), batch))
                for c in self.columns
            )
        )

    def with_those_of(self, saved: AttributeMapping) -> AttributeMapping:
        """Return this mapping with the columns of another that it lacks: another process, such as a
        redrive, has added them since this one was read.
        """
        known = {(one.attribute, one.descriptor) for one in self}
        names = {one.column for one in self}
        more = (
            one
            for one in saved
            if (one.attribute, one.descriptor) not in known and one.column not in names
        )
        return AttributeMapping((*self.columns, *more))

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
    differs in case only. The name with the hash is the same in every table, unless it is taken too:
    attribute names are data, and one may look like a name with a hash.

    Args:
        wanted: The preferred name.
        taken: Names of other columns.
        identity: Text that identifies the column; the hash is computed from it.
    """
    plain = "".join(c if c == "_" or c.isalnum() else "_" for c in wanted)
    plain = plain[:_MAX_NAME_CHARACTERS]
    if plain.casefold().startswith(RESERVED_PREFIX):
        plain = "x" + plain
    used = {name.casefold() for name in (*taken, *ITEM_RESTS)}
    if plain and plain == wanted and plain.casefold() not in used:
        return plain
    return free_name(plain or "attribute", used, identity=identity)


def free_name(name: str, used: Collection[str], *, identity: str) -> str:
    """Return a name with a hash that no other column has.

    Args:
        name: Start of the name.
        used: Names of the other columns, casefolded.
        identity: Text that identifies the column; the hash is computed from it.
    """
    for attempt in itertools.count():
        text = f"{identity}\0{attempt}" if attempt else identity
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        found = f"{name}_{digest[:_SUFFIX_CHARACTERS]}"
        if found.casefold() not in used:
            return found
    raise AssertionError("unreachable")
