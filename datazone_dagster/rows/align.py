"""Rows in the shape of the table that they are on their way to."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


def aligned(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a table's order and types, nulls where a column is gone."""
    return pa.Table.from_arrays(
        [
            rows[field.name].cast(field.type, safe=True)
            if field.name in rows.column_names
            else pa.chunked_array([pa.nulls(len(rows), field.type)])
            for field in schema
        ],
        schema=schema,
    )


def with_fields(rows: pa.Table, fields: Sequence[pa.Field]) -> pa.Table:
    """The rows with further columns, all null."""
    for field in fields:
        rows = rows.append_column(field, pa.chunked_array([pa.nulls(len(rows), field.type)]))
    return rows
