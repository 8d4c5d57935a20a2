"""Plan of keys with late changes or several rows a change, by the queries of `history_sql`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.types as kinds

from datazone_dagster.dataset.history_codes import ChangeCodes, value_numbers
from datazone_dagster.dataset.history_newer import PlannedRows
from datazone_dagster.dataset.history_sql import ABSORBED, ADDED, COMPARE, COUNTS, PLAN, REMOVED
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.merge_batch import CAUSE

EXISTING, ABSORBED_BEFORE, NEW = 0, 1, 2
"""Sources of a row."""

_LARGE_VALUE_BYTES = 256
"""Average size of a column's values above which their digests are compared instead."""

_DIGEST_BYTES = 20


@dataclass(frozen=True)
class QueryInputs:
    """Tables that the queries read.

    Args:
        tracked: Columns that make a new interval when they change, of all values.
        rows: Source, position among all values (`row`), key and version of the rows to plan.
        existing: The table's rows, with the columns of deletions.
        absorbed: Key, version, event time and cause of the absorbed changes.
        keyed_changes: The keyed changes of the chunk, with event times.
    """

    tracked: Sequence[pa.ChunkedArray]
    rows: pa.Table
    existing: pa.Table
    absorbed: pa.Table
    keyed_changes: pa.Table


def plan_by_queries(
    connection: duckdb.DuckDBPyConnection, inputs: QueryInputs, *, soft: bool
) -> PlannedRows:
    """Plan the intervals.

    Args:
        connection: A database without tables, used for this call only.
        inputs: The rows and changes.
        soft: Whether an interval that a delete closes is marked.
    """
    codes = ChangeCodes.of([inputs.rows, inputs.existing, inputs.absorbed, inputs.keyed_changes])
    positions = inputs.rows["row"].combine_chunks()
    tracked = (_comparable(column.take(positions)) for column in inputs.tracked)
    numbers = value_numbers(connection, tracked, len(inputs.rows))
    tables = {
        "compared": inputs.rows.append_column("tracked", numbers),
        "existing_rows": inputs.existing,
        "absorbed_changes": inputs.absorbed,
        "keyed_changes": inputs.keyed_changes,
    }
    for name, rows in tables.items():
        connection.register(name, codes.encoded(rows))
    for statement in PLAN:
        connection.execute(statement)
    if not soft:
        connection.execute("update runs set closed_by = null")
    for statement in COMPARE:
        connection.execute(statement)
    (counts,) = connection.execute(COUNTS).fetchall()
    absorbed = codes.decoded(_arrow(connection, ABSORBED))
    return PlannedRows(
        _arrow(connection, REMOVED)["row"].to_numpy(),
        _arrow(connection, ADDED),
        absorbed.select([KEY, VERSION, EVENT_TIME, CAUSE, "row"]),
        MergeCounts(*cast("tuple[int, int, int]", counts)),
    )


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return digests of large values: DuckDB holds what it compares several times over."""
    if column.nbytes <= _LARGE_VALUE_BYTES * len(column):
        return column
    kind = column.type
    is_text = kinds.is_string(kind) or kinds.is_large_string(kind)
    is_bytes = kinds.is_binary(kind) or kinds.is_large_binary(kind)
    digests = (
        None if value is None else _digest(value if is_text or is_bytes else repr(value))
        for value in (one.as_py() for one in column)
    )
    return pa.chunked_array([pa.array(digests, pa.binary(_DIGEST_BYTES))])


def _digest(value: str | bytes) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return pa.table(connection.sql(query))
