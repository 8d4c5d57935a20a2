"""Rows with a partition value that a table can't hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from datazone_dagster.model.partition_folder import value_problem


def refused_values(values: pa.ChunkedArray, column: str) -> pa.ChunkedArray | None:
    """Return the reason per row for which the value can't be a partition's; None if all can."""
    if not (pt.is_string(values.type) or pt.is_large_string(values.type)):
        return None
    problems = {
        value: problem
        for value in pc.unique(values).to_pylist()
        if value is not None and (problem := value_problem(column, value)) is not None
    }
    if not problems:
        return None
    known = pa.array(list(problems), values.type)
    return pa.chunked_array([pa.array(list(problems.values()))]).take(
        pc.index_in(values, value_set=known)
    )


def has_refused(rows: pa.Table, partition_by: Iterable[str]) -> bool:
    """Return whether some row has a partition value that a table can't hold."""
    return any(
        refused_values(rows[column], column) is not None
        for column in partition_by
        if column in rows.column_names
    )
