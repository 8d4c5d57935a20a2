"""Contracts: which columns a dataset may have, and what happens to rows that break that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

SchemaPolicy = Literal["evolve", "freeze", "quarantine"]
SCHEMA_POLICIES: tuple[str, ...] = get_args(SchemaPolicy)

Policies = tuple[tuple[str, SchemaPolicy], ...]

EVERY_OTHER = "*"
"""Stands, in a mapping of policies, for the columns that it does not name."""

ColumnType = str | tuple[Any, ...]
"""A type of Delta Lake without any library: `"int64"`, `("decimal", 18, 2)`, `("list", type)`,
`("map", key type, value type)` or `("struct", ((name, type), ...))`."""

SCALARS = (
    "string",
    "int8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "bool",
    "binary",
    "date",
    "timestamp",
    "timestamp_ntz",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A declared column."""

    name: str
    type: ColumnType
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Contract:
    """What a dataset's columns have to be.

    Args:
        policies: By column; `"*"` stands for the others.
        columns: The declared columns in their order; empty if none are declared.
    """

    policies: Policies = ((EVERY_OTHER, "evolve"),)
    columns: tuple[Column, ...] = ()

    @property
    def may_refuse(self) -> bool:
        """Whether rows may have to be set aside: the whole change is needed then."""
        return any(policy == "quarantine" for _, policy in self.policies)

    def policy_of(self, column: str) -> SchemaPolicy:
        """What happens where this column is not what it has to be."""
        known = dict(self.policies)
        return known.get(column) or known.get(EVERY_OTHER) or "evolve"

    def declared(self, column: str) -> Column | None:
        """The column as it is declared, if it is."""
        return next((one for one in self.columns if one.name == column), None)


OPEN = Contract()
"""Nothing is asked of any column."""
