"""Comparison of rows pair by pair: only as many columns are compared as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from datazone_dagster.dataset.history_codes import value_numbers
from datazone_dagster.dataset.key_order import Flags, Numbers

OpenDatabase = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]

_PIECE_BYTES = 8 << 20
"""Limit of the values that are compared at once, as far as they are of one size."""


def are_different(
    columns: Sequence[pa.ChunkedArray],
    left: Numbers,
    right: Numbers,
    open_database: OpenDatabase,
) -> Flags:
    """Return per pair of rows whether they differ in a column.

    NaN equals NaN, 0.0 equals -0.0, and null equals null.

    Args:
        columns: Columns to compare.
        left: Rows of the pairs.
        right: The other rows of the pairs.
        open_database: Opens a database, which compares nested values.
    """
    different = np.zeros(len(left), bool)
    for column in sorted(columns, key=lambda one: bool(kinds.is_nested(one.type))):
        equal = np.flatnonzero(~different)
        if not len(equal):
            break
        values = column.combine_chunks()
        for piece in _pieces(values, equal):
            ours, others = (values.take(pa.array(rows[piece])) for rows in (left, right))
            different[piece] = (
                _nested_differ(ours, others, open_database)
                if kinds.is_nested(column.type)
                else _differ(ours, others)
            )
    return different


def _pieces(values: pa.Array, pairs: Numbers) -> Iterator[Numbers]:
    size = max(1, _PIECE_BYTES * len(values) // (values.nbytes + 1))
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _differ(left: pa.Array, right: pa.Array) -> Flags:
    equal = pc.fill_null(pc.equal(left, right), False)
    equal = pc.or_(equal, pc.and_(left.is_null(), right.is_null()))
    if kinds.is_floating(left.type):
        equal = pc.or_(equal, pc.fill_null(pc.and_(pc.is_nan(left), pc.is_nan(right)), False))
    return np.asarray(pc.invert(equal).to_numpy(zero_copy_only=False), bool)


def _nested_differ(left: pa.Array, right: pa.Array, open_database: OpenDatabase) -> Flags:
    both = pa.chunked_array([left, right])
    with open_database() as connection:
        numbers = value_numbers(connection, [both], len(both)).to_numpy()
    return np.asarray(numbers[: len(left)] != numbers[len(left) :], bool)
