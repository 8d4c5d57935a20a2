"""Checks of what a dataset declares: its columns, and what happens where rows differ."""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.api import checked
from datazone_dagster.api.arrow_schema import arrow_columns
from datazone_dagster.api.pydantic_schema import model_columns
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.column_names import RESERVED_PREFIX
from datazone_dagster.model.contract import EVERY_OTHER, SCHEMA_POLICIES, Column, Policies


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
        columns = arrow_columns(where, schema)
    elif isinstance(schema, type) and hasattr(schema, "model_fields"):
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
