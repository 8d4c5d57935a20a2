"""Rows in another schema: nothing is lost on the way, and only missing columns are null."""

from __future__ import annotations

import pyarrow as pa
import pytest

from datazone_dagster.rows.align import aligned

ROWS = pa.table({"a": pa.array([1, 2], pa.int32()), "b": ["x", "y"]})


def test_columns_come_from_the_values_then_from_the_rows_and_are_null_otherwise() -> None:
    schema = pa.schema(
        [("c", pa.int64()), ("a", pa.int64()), ("d", pa.string()), ("e", pa.bool_())]
    )
    found = aligned(ROWS, schema, {"c": pa.array([5, 6], pa.int8()), "e": pa.scalar(False)})
    assert found.schema.equals(schema)
    assert found.to_pylist() == [
        {"c": 5, "a": 1, "d": None, "e": False},
        {"c": 6, "a": 2, "d": None, "e": False},
    ]


def test_values_replace_a_column_and_a_null_value_makes_it_null() -> None:
    found = aligned(ROWS, ROWS.schema, {"a": pa.scalar(None), "b": ROWS["b"].slice(0)})
    assert found.to_pylist() == [{"a": None, "b": "x"}, {"a": None, "b": "y"}]


def test_rows_without_columns_of_the_schema_stay_as_many() -> None:
    assert len(aligned(ROWS, pa.schema([("c", pa.string())]))) == 2
    assert aligned(ROWS.slice(0, 0), ROWS.schema).equals(ROWS.schema.empty_table())


def test_a_value_that_does_not_fit_raises() -> None:
    with pytest.raises(pa.ArrowInvalid):
        aligned(pa.table({"a": [1.5]}), pa.schema([("a", pa.int64())]))
