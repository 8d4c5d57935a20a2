"""Which attribute of an item is which column: grows with the data, never changes what it said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from datazone_dagster.model.column_names import RESERVED_PREFIX

MAX_ATTRIBUTES = 500
"""Attributes with a column of their own; further ones share `_dz_rest`."""

_MAX_NAME_CHARACTERS = 200  # stores and engines differ; DynamoDB allows 64 KB
_SUFFIX_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class AttributeColumn:
    """One column of an item.

    `descriptor` is the DynamoDB type whose values it takes; `type` is how they are held. A
    column is `exact` if it takes the values of an attribute that its typed column can't hold.
    `since` is the batch of the change log that brought it, None until it is in a table.
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
    """The columns of an item, in the order in which they came.

    Immutable: `with_column` gives a longer one. What is in it stays, so a replay in any order,
    started from the stored mapping, fills the same columns.
    """

    columns: tuple[AttributeColumn, ...] = ()

    def __iter__(self) -> Iterator[AttributeColumn]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that have columns, in order."""
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
        """A mapping with one more column.

        The first column of an attribute has its name. A further one is named
        `<first>__<descriptor>`; that is also where values go that the first can't hold.
        """
        first = next((c.column for c in self.columns if c.attribute == attribute), None)
        taken = (column.column for column in self.columns)
        wanted = attribute if first is None else f"{first}__{descriptor.lower()}"
        name = safe_name(wanted, taken, of=f"{attribute}\0{descriptor if first else ''}")
        added = AttributeColumn(attribute, descriptor, name, type, declared, exact)
        return AttributeMapping((*self.columns, added))

    def dated(self, earlier: AttributeMapping, batch: int) -> AttributeMapping:
        """This mapping with `since`: as an earlier one has it, else the batch."""
        known = {(c.attribute, c.descriptor, c.column): c.since for c in earlier}
        return AttributeMapping(
            tuple(
                replace(c, since=known.get((c.attribute, c.descriptor, c.column), batch))
                for c in self.columns
            )
        )

    def to_json(self) -> str:
        """A text that `from_json` reads, for the table's properties."""
        return json.dumps([asdict(column) for column in self.columns], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AttributeMapping:
        """Reads what `to_json` wrote."""
        return cls(tuple(AttributeColumn(**column) for column in json.loads(text)))


def safe_name(wanted: str, taken: Iterable[str], *, of: str) -> str:
    """A column name that every engine takes, equal to the wanted one wherever possible.

    Letters and digits of any script and `_` stay, other characters become `_`. Where that, the
    length, a leading `_dz_`, or a name that differs in case only makes a difference, a hash of
    the original is added: the same in every table.

    Args:
        wanted: The name to keep if possible.
        taken: Names of other columns.
        of: What tells this column from all others; the hash is made of it.
    """
    plain = "".join(c if c == "_" or c.isalnum() else "_" for c in wanted)
    plain = plain[:_MAX_NAME_CHARACTERS]
    if plain.casefold().startswith(RESERVED_PREFIX):
        plain = "x" + plain
    used = {name.casefold() for name in taken}
    if plain and plain == wanted and plain.casefold() not in used:
        return plain
    digest = hashlib.sha256(of.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain or 'attribute'}_{digest[:_SUFFIX_CHARACTERS]}"
