"""Checks of a dataset's declared columns and schema policies."""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.api import checked
from datazone_dagster.api.arrow_schema import arrow_columns
from datazone_dagster.api.pydantic_schema import model_columns
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.column_names import RESERVED_PREFIX, has_refused_characters
from datazone_dagster.model.contract import EVERY_OTHER, SCHEMA_POLICIES, Column, Policies


def checked_policies(where: str, schema_policy: object) -> Policies:
    """Return the policies as pairs of column and policy.

    Raises:
        DefinitionError: A value is not a policy, or a key is not a column name.
    """
    if isinstance(schema_policy, str):
        schema_policy = {EVERY_OTHER: schema_policy}
    if isinstance(schema_policy, tuple):
        schema_policy = dict(schema_policy)
    if not isinstance(schema_policy, Mapping):
        raise DefinitionError(
            f"{where}: schema_policy={schema_policy!r} is not a policy.",
            hint=f"Give one of {checked.quoted(SCHEMA_POLICIES)}, or a mapping from column to "
            f"one of these, with {EVERY_OTHER!r} for the other columns.",
        )
    for column, policy in schema_policy.items():
        if policy not in SCHEMA_POLICIES or not isinstance(column, str) or not column:
            raise DefinitionError(
                f"{where}: schema_policy has {policy!r} for column {column!r}.",
                hint=f"A policy is one of {checked.quoted(SCHEMA_POLICIES)}.",
            )
    return tuple(schema_policy.items())


def checked_columns(where: str, schema: object) -> tuple[Column, ...]:
    """Return the columns of a pyarrow schema or a Pydantic model; none for None.

    Neither library is loaded here: the caller who passes one of these has loaded it.

    Raises:
        DefinitionError: The schema is neither of the two, or has a type or a name that a table
            can't have.
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
            hint="Give a pyarrow.Schema, such as pa.schema([('total', pa.decimal128(18, 2))]), or "
            "a Pydantic model (the class, Pydantic 2).",
        )
    if not columns:
        raise DefinitionError(
            f"{where}: schema has no columns.", hint="Declare at least one column."
        )
    seen: dict[str, str] = {}
    for column in columns:
        if column.name.startswith(RESERVED_PREFIX) or not column.name:
            raise DefinitionError(
                f"{where}: schema has a column {column.name!r}.",
                hint=f"A column needs a name, and {RESERVED_PREFIX!r} is reserved.",
            )
        if has_refused_characters(column.name):
            raise DefinitionError(
                f"{where}: schema has a column {column.name!r}, a name that Delta refuses.",
                hint="Use letters, digits and '_', in the function too.",
            )
        folded = column.name.casefold()
        if folded in seen:
            raise DefinitionError(
                f"{where}: schema has the columns {seen[folded]!r} and {column.name!r}.",
                hint="Rename one of them: in Delta, column names are not case-sensitive.",
            )
        seen[folded] = column.name
    return columns
