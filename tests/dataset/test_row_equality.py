"""Pairs of rows are compared as whole columns were: nulls, NaN, signs of zero, nested values."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datazone_dagster.database.database import opened
from datazone_dagster.dataset.row_equality import are_different

VALUES: dict[pa.DataType, list[Any]] = {
    pa.string(): ["", "a", "A", None],
    pa.binary(): [b"", b"\x00", None],
    pa.decimal128(38, 18): [Decimal("0"), Decimal("1.5"), None],
    pa.float64(): [0.0, -0.0, math.nan, 1.5, None],
    pa.bool_(): [True, False, None],
    pa.timestamp("us", tz="UTC"): [0, 1, None],
    pa.list_(pa.string()): [[], ["a"], [None], None],
    pa.struct([("x", pa.float64())]): [{"x": 0.0}, {"x": -0.0}, {"x": None}, None],
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def differing(columns: list[pa.ChunkedArray], rows: int) -> list[bool]:
    """Compare each row with each, a few pairs at a time."""
    left, right = np.divmod(np.arange(rows * rows), rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datazone_dagster.dataset.row_equality._PIECE_BYTES", 64)
        return list(map(bool, are_different(columns, left, right, opened)))


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_values_differ_if_they_are_not_equal(kind: pa.DataType) -> None:
    values = [*VALUES[kind], VALUES[kind][0]]
    column = pa.chunked_array([pa.array(values[:1], kind), pa.array(values[1:], kind)])
    pairs = [not equal(one, other) for one in values for other in values]
    assert differing([column], len(values)) == pairs


def test_rows_differ_if_any_column_differs() -> None:
    rows = [("a", [1], 1.0), ("a", [1], 2.0), ("a", [2], 1.0), (None, [1], 1.0), ("a", [1], 1.0)]
    kinds = (pa.string(), pa.list_(pa.int64()), pa.float64())
    columns = [
        pa.chunked_array([pa.array(list(values), kind)])
        for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)
    ]
    assert differing(columns, len(rows)) == [one != other for one in rows for other in rows]
