"""Conversion of rows to the schema of the table that they are written to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import pyarrow as pa

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
        return pa.nulls(len(rows), field.type) if found is None else found.cast(field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)
