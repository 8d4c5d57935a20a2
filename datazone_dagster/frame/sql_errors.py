"""Translation of DuckDB's errors into errors about the user's call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import duckdb

from datazone_dagster.errors import ExpressionError, OutOfMemoryError, TransformError
from datazone_dagster.frame.query_session import FailingValueError, MalformedImageError
from datazone_dagster.text import escaped, shortened

MAX_REASON_CHARS = 2_000
"""Longest text of DuckDB that patterns look at. DuckDB quotes values, which may have 400 KB."""

_PREFIX = re.compile(r"([A-Z][A-Za-z ]{2,40}) Error: ")
_NO_COLUMN = re.compile(
    r'(?:Referenced )?[Cc]olumn "([^"]*)" (?:not found in FROM clause|referenced that exists).*'
)
_NO_TABLE = re.compile(
    r'(?:Table with name "?([^".\s]*)\S* does not exist|Referenced table "([^".]*)[^"]*" not).*'
)
_NO_COLUMN_OF_TABLE = re.compile(r'[A-Z][a-z ]+ "[^"]*" does not have a column named "([^"]*)".*')
_NO_FIELD = re.compile(r'Could not find key "([^"]*)" in struct.*')
_NO_STRUCT = re.compile(r"(Cannot extract field '[^']*') from expression .* because .*")
_GENERATED = re.compile(r'(?:(?:"?\b\w{1,63}"?\.)?"?dynamodb"?\.)?"?\b(_dz_p\d+)"?')
_HINTS = {
    "WHERE clause cannot contain window": "Name the window's result first, with with_columns(), or "
    "use QUALIFY in sql().",
    "referenced in UNPIVOT": "UNPIVOT takes columns, not paths: name them in a select() before.",
    "the value has no fields": "An element of an L is JSON text: element->>'S'. A list of records "
    "is unnested before its paths are read.",
}
"""Hints by a part of the reason."""

_BINDING = ("Binder", "Catalog")
_ABOUT_SQL = (*_BINDING, "Parser", "Syntax")
"""Kinds of DuckDB's errors whose texts quote SQL and names, but no values."""


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
    kind, reason = _kind_and_reason(error)
    if running and reason.startswith("Malformed JSON"):
        return MalformedImageError(
            f"{call}: a record of this chunk holds text that is not JSON.",
            safe="Nothing was written; the change log keeps the record.",
        )
    if kind == "Out of Memory" or isinstance(error, duckdb.OutOfMemoryException):
        return OutOfMemoryError(
            f"{call}: the query needs more memory than DuckDB may use here.",
            safe="Nothing was written.",
            hint="Raise ApplySettings(memory_budget=...): DuckDB gets a quarter of it.",
        )
    reason = _NO_STRUCT.sub(r"\1: the value has no fields", reason)
    reason = _GENERATED.sub(lambda m: shown.get(m[1], m[0]), reason)
    hint = ""
    if kind == "Binder" and "GROUP BY" in reason:
        reason = "the expression mixes an aggregate with plain columns"
        hint = (
            "A frame is one chunk of changes, not the table: aggregate in an asset downstream, "
            "which reads the dataset. Per item, use sql() or OVER (PARTITION BY _dz_key)."
        )
    elif kind == "Conversion":
        hint = "Use try_cast for a null where a value does not fit."
    elif kind in _BINDING:
        reason = _NO_COLUMN.sub(r'there is no column "\1"', reason)
        reason = _NO_TABLE.sub(lambda m: f'there is no table "{m[1] or m[2]}"', reason)
        hint = f"Available columns: {', '.join(available)}."
        if reason.startswith("there is no table"):
            hint += f" Tables: {', '.join(tables)}."
        if reason.startswith("there is no column"):
            hint += " Text is written in single quotes, such as 'paid'."
        if reason.startswith("there is no") and "dynamodb" in available:
            hint += (
                " An attribute is a path with its type, such as dynamodb.NewImage.total.N; "
                "items() makes columns of all attributes."
            )
        elif own := next((one for text, one in _HINTS.items() if text in reason), None):
            hint = own
        elif "VARCHAR" in reason and "cast" in reason:
            hint += (
                " A path gives numbers as text: cast(dynamodb.NewImage.total.N as decimal(18, 2))."
            )
    of_value = running and kind not in _ABOUT_SQL
    return (FailingValueError if of_value else ExpressionError)(f"{call}: {reason}.", hint=hint)


def absent_column(error: duckdb.Error) -> str | None:
    """Return the name behind an error about a column that there is not; None for other errors.

    SQL writes a field of an absent column like a column of an absent table.
    """
    kind, reason = _kind_and_reason(error)
    if kind != "Binder":
        return None
    if found := _NO_COLUMN.fullmatch(reason) or _NO_COLUMN_OF_TABLE.fullmatch(reason):
        return found[1]
    found = _NO_TABLE.fullmatch(reason)
    return found[2] if found else None


def absent_field(error: duckdb.Error) -> str | None:
    """Return the name behind an error about a struct field that there is not; None for others."""
    kind, reason = _kind_and_reason(error)
    found = _NO_FIELD.fullmatch(reason) if kind == "Binder" else None
    return None if found is None else found[1]


def _kind_and_reason(error: duckdb.Error) -> tuple[str, str]:
    """Return the kind of an error ("Conversion") and its text, without the kind and the SQL.

    The kind is in the text, because an error that passes through Arrow loses its class.
    """
    text = str(error).strip()
    found = _PREFIX.match(text)
    kind, start = (found[1], found.end()) if found else ("", 0)
    if kind in _ABOUT_SQL:
        lines = text[start : start + MAX_REASON_CHARS].split("\n\n")[0].splitlines()
        return kind, (lines or [""])[0].rstrip(". ")
    sql = text.rfind("\n\nLINE ")
    return kind, one_line(text[start : None if sql < start else sql]).rstrip(". ")


def one_line(text: str) -> str:
    """Return a text that may quote a value of any length in one line of at most 200 characters."""
    return escaped(" ".join(shortened(text).split()))
