"""Contracts: which columns a dataset may have, and what happens to rows that break that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from datazone_dagster.api import checked
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.columns import RESERVED_PREFIX

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


def checked_policies(where: str, schema_policy: object) -> Policies:
    """The policies by column, as pairs.

    Raises:
        DefinitionError: One is not a policy.
    """
    if isinstance(schema_policy, str):
        schema_policy = {EVERY_OTHER: schema_policy}
    if isinstance(schema_policy, tuple):
        schema_policy = dict(schema_policy)
    if not isinstance(schema_policy, Mapping):
        raise DefinitionError(
            f"{where}: schema_policy={schema_policy!r}.",
            hint=f"It is one of {checked.quoted(SCHEMA_POLICIES)}, or a mapping of columns to "
            f"these, {EVERY_OTHER!r} for the others.",
        )
    for column, policy in schema_policy.items():
        if policy not in SCHEMA_POLICIES or not isinstance(column, str) or not column:
            raise DefinitionError(
                f"{where}: schema_policy says {policy!r} of {column!r}.",
                hint=f"A policy is one of {checked.quoted(SCHEMA_POLICIES)}.",
            )
    return tuple(schema_policy.items())


def checked_columns(where: str, schema: object) -> tuple[Column, ...]:
    """The columns of a pyarrow schema or a Pydantic model; none for None.

    Neither library is loaded: whoever gives one of these has it.

    Raises:
        DefinitionError: Neither of the two, or a type or a name that a table can't have.
    """
    if schema is None:
        return ()
    if isinstance(schema, tuple) and all(isinstance(one, Column) for one in schema):
        return schema
    module = (schema if isinstance(schema, type) else type(schema)).__module__.partition(".")[0]
    if module == "pyarrow" and hasattr(schema, "names"):
        from datazone_dagster.api.arrow_schema import arrow_columns

        columns = arrow_columns(where, schema)
    elif isinstance(schema, type) and hasattr(schema, "model_fields"):
        from datazone_dagster.api.pydantic_schema import model_columns

        columns = model_columns(where, schema)
    else:
        raise DefinitionError(
            f"{where}: schema is {schema!r}.",
            hint="Give a pyarrow.Schema, or a Pydantic model (the class, of Pydantic 2).",
        )
    if not columns:
        raise DefinitionError(f"{where}: schema has no columns.", hint="Declare at least one.")
    seen: dict[str, str] = {}
    for column in columns:
        if column.name.startswith(RESERVED_PREFIX) or not column.name:
            raise DefinitionError(
                f"{where}: schema has a column {column.name!r}.",
                hint=f"Columns have a name, and {RESERVED_PREFIX!r} is reserved.",
            )
        folded = column.name.casefold()
        if folded in seen:
            raise DefinitionError(
                f"{where}: schema has {seen[folded]!r} and {column.name!r}.",
                hint="Delta holds names that differ only in case as one.",
            )
        seen[folded] = column.name
    return columns


def unsupported(where: str, column: str, what: object, hint: str) -> DefinitionError:
    """A declared type that a Delta table does not have."""
    return DefinitionError(
        f"{where}: schema: column {column!r} is {what}, which a Delta table can't hold.", hint=hint
    )
