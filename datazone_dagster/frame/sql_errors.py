"""Translation of DuckDB's errors into errors about the user's call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import duckdb

from datazone_dagster.errors import ExpressionError, TransformError
from datazone_dagster.frame.query_session import MalformedImageError

_PREFIX = re.compile(r"^[A-Z][A-Za-z ]+ Error: ")
_NO_COLUMN = re.compile(
    r'(?:Referenced )?[Cc]olumn "([^"]*)" (?:not found in FROM clause|referenced that exists).*'
)
_NO_TABLE = re.compile(
    r'(?:Table with name "?([^".]*)\S* does not exist|Referenced table "([^".]*)[^"]*" not).*'
)
_GENERATED = re.compile(r'(?:"?\w+"?\.)?"?dynamodb"?\."?(_dz_p\d+)"?|"?(_dz_p\d+)"?')


def failure(
    error: duckdb.Error,
    *,
    call: str,
    available: Sequence[str],
    tables: Sequence[str],
    shown: Mapping[str, str],
    running: bool = False,
) -> TransformError:
    """Return DuckDB's error as one of ours, in plain words and without generated names.

    Args:
        error: Error from DuckDB.
        call: Call as the user wrote it.
        available: Columns that an expression may name.
        tables: Tables that a query may name.
        shown: Paths behind the generated field names, by that name.
        running: Whether the query failed on data, as opposed to binding.
    """
    text = str(error)
    if "Malformed JSON" in text and running:
        return MalformedImageError(
            f"{call}: a record of this chunk holds text that is not JSON.",
            safe="Nothing was written; the change log keeps the record.",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return TransformError(
            f"{call}: the query needs more memory than DuckDB may use here.",
            safe="Nothing was written.",
            hint="Raise ApplySettings(memory_budget=...), or lower its chunk_bytes for smaller "
            "chunks.",
        )
    reason = _PREFIX.sub("", text.strip().split("\n\n")[0].splitlines()[0]).rstrip(". ")
    reason = _GENERATED.sub(lambda m: shown.get(m[1] or m[2], m[0]), reason)
    reason = _NO_COLUMN.sub(r'there is no column "\1"', reason)
    reason = _NO_TABLE.sub(lambda m: f'there is no table "{m[1] or m[2]}"', reason)
    hint = ""
    if "GROUP BY" in reason:
        reason = "the expression mixes an aggregate with plain columns"
        hint = "Each row carries its key in a hidden column: aggregate in sql(), or with OVER."
    elif isinstance(error, duckdb.ConversionException):
        hint = "Use try_cast for a null where a value does not fit."
    elif isinstance(error, (duckdb.BinderException, duckdb.CatalogException)):
        hint = f"Available columns: {', '.join(available)}."
        if reason.startswith("there is no table"):
            hint += f" Tables: {', '.join(tables)}."
        if reason.startswith("there is no") and "dynamodb" in available:
            hint += " An attribute is a path with its type, such as dynamodb.NewImage.total.N."
    return ExpressionError(f"{call}: {reason}.", hint=hint)
