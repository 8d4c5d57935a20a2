"""Conversion of rows to the schema of the table that they are written to."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Values: TypeAlias = pa.Array | pa.ChunkedArray | pa.Scalar
"""Values of a column: one per row, or one for every row."""


def aligned(rows: pa.Table, schema: pa.Schema, values: Mapping[str, Values] = {}) -> pa.Table:
    """Return rows in a schema: each column from `values`, else from the rows, else null.

    Args:
        rows: The rows; columns that the schema does not name are left out.
        schema: Columns and types of the result. Casts are checked: none loses a digit.
        values: Columns to replace or add, by name.

    Raises:
        pa.ArrowInvalid: A value does not fit the type of its column.
    """

    def column(field: pa.Field) -> pa.Array | pa.ChunkedArray:
        found = values.get(field.name)
        if isinstance(found, pa.Scalar):
            return pa.repeat(found.cast(field.type), len(rows))
        if found is None and field.name in rows.column_names:
            found = rows[field.name]
        return pa.nulls(len(rows), field.type) if found is None else _cast(found, field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _cast(values: pa.Array | pa.ChunkedArray, target: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if not (pt.is_decimal(values.type) and pt.is_string(target)):
        return values.cast(target)
    return number_texts(values)


def number_texts(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return numbers as text in plain notation, without zeros at the end: `5`, `0.000001`."""
    texts = values.cast(pa.string())
    exponents = pc.match_substring(texts, "E")
    if pc.any(exponents).as_py():  # Arrow writes small numbers as 1E-9
        chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        texts = pa.chunked_array([[_plain(one) for one in part.to_pylist()] for part in chunks])
        texts = texts.cast(pa.string())
    pointed = pc.match_substring(texts, ".")
    return pc.if_else(pointed, pc.replace_substring_regex(texts, r"\.?0+$", ""), texts)


def _plain(text: str | None) -> str | None:
    return None if text is None else format(Decimal(text), "f")
