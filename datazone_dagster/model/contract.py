"""Contracts: the columns that a dataset may have, and what happens to rows that violate them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from datazone_dagster.model import quarantine_policy

SchemaPolicy = Literal["evolve", "freeze", "quarantine"]
SCHEMA_POLICIES: tuple[str, ...] = get_args(SchemaPolicy)

Policies = tuple[tuple[str, SchemaPolicy], ...]

EVERY_OTHER = "*"
"""Key of the policy for every column that a mapping of policies does not name."""

ColumnType = str | tuple[Any, ...]
"""A Delta Lake type, independent of any library: `"int64"`, `("decimal", 18, 2)`, `("list", type)`,
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
    """A declared column, with the text of its declaration, if any."""

    name: str
    type: ColumnType
    nullable: bool = True
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """Requirements on a dataset's columns.

    Args:
        policies: Policy by column; `"*"` covers the others.
        columns: The declared columns in order; empty if none are declared.
    """

    policies: Policies = ((EVERY_OTHER, "evolve"),)
    columns: tuple[Column, ...] = ()

    @property
    def may_refuse(self) -> bool:
        """Whether rows may be quarantined: that needs all columns of a change."""
        return quarantine_policy.may_refuse(policy for _, policy in self.policies)

    def policy_of(self, column: str) -> SchemaPolicy:
        """Return the policy for a column that violates the contract."""
        known = dict(self.policies)
        return known.get(column) or known.get(EVERY_OTHER) or "evolve"

    def refuses(self, column: str) -> bool:
        """Return whether rows that violate the contract in a column are quarantined."""
        return quarantine_policy.refuses(self.policy_of(column))

    def declared(self, column: str) -> Column | None:
        """Return the declared column, or None if it is not declared."""
        return next((one for one in self.columns if one.name == column), None)


OPEN = Contract()
"""Contract without any requirement."""
