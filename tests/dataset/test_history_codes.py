"""Codes compare like the texts and values that they stand for."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.dataset.history_codes import ChangeCodes, value_numbers
from datazone_dagster.model.column_names import KEY, VERSION
from tests.examples import examples

VALUES: dict[pa.DataType, list[Any]] = {
    pa.string(): ["", "a", "b", None],
    pa.float64(): [0.0, -0.0, float("nan"), 1.5, None],
    pa.bool_(): [True, False, None],
    pa.timestamp("us", tz="UTC"): [0, 1, None],
    pa.list_(pa.struct([("x", pa.float64())])): [[], [{"x": 0.0}], [{"x": -0.0}], [None], None],
}


def same(one: object, other: object) -> bool:
    """Return whether DuckDB, which compared the values before, takes them for equal."""
    kind = "float" if isinstance(one, float) else "other"
    if kind == "float" and isinstance(other, float):
        return one == other or (one != one and other != other)
    return one == other


@settings(max_examples=examples(60), deadline=None)
@given(st.data(), st.integers(0, 6))
def test_rows_have_one_number_if_all_columns_are_equal(data: st.DataObject, rows: int) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(VALUES)), max_size=3))
    columns = [
        data.draw(st.lists(st.sampled_from(VALUES[kind]), min_size=rows, max_size=rows))
        for kind in kinds
    ]
    arrays = [
        pa.chunked_array([pa.array(values, kind)])
        for values, kind in zip(columns, kinds, strict=True)
    ]
    with duckdb.connect() as connection:
        numbers = value_numbers(connection, arrays, rows).to_pylist()
    for one in range(rows):
        for other in range(rows):
            equal = all(same(values[one], values[other]) for values in columns)
            assert (numbers[one] == numbers[other]) == equal


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.int64())])
def test_columns_of_several_chunks_have_one_set_of_numbers(kind: pa.DataType) -> None:
    value: Any = "a" if kind == pa.string() else [1]
    column = pa.chunked_array([pa.array([value, None], kind), pa.array([value], kind)])
    with duckdb.connect() as connection:
        first, null, last = value_numbers(connection, [column], 3).to_pylist()
    assert first == last != null


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.text("ab€", max_size=3), st.text("01", max_size=3)), max_size=8))
def test_codes_sort_like_their_texts_and_come_back(pairs: list[tuple[str, str]]) -> None:
    table = pa.table(
        {
            KEY: pa.array([key for key, _ in pairs], pa.string()),
            "other": pa.array(range(len(pairs)), pa.int64()),
            VERSION: pa.array([version for _, version in pairs], pa.string()),
        }
    )
    codes = ChangeCodes.of([table.slice(0, 3), table.slice(3)])
    encoded = codes.encoded(table)
    for name in (KEY, VERSION):
        by_code = sorted(zip(encoded[name].to_pylist(), table[name].to_pylist(), strict=True))
        assert [text for _, text in by_code] == sorted(table[name].to_pylist(), key=str.encode)
    assert codes.decoded(encoded) == table
