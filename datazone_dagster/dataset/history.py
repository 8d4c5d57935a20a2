"""Plan of a history table (SCD2), which has one row per interval of a key's life. Pure.

The changes of a key, by version, form runs: neighbours that are equal on the tracked columns.
A run is one row, with the values of its last change, valid from the run's first change until
the first change of the next run, or until the key leaves. Times come from the service floored
to the second and may go back, versions never do: a row never begins before its predecessor
ends, so that at any time at most one interval of a key is valid.

The rows depend on the set of changes only, not on the order in which the changes arrive.
Changes that no row shows are therefore stored for a while (see `absorbed_changes`), and a late
change is planned together with all changes of its key. A change that is newer than everything
known of its key, the usual case, needs the key's last row only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.history_codes import ChangeCodes, value_numbers
from datazone_dagster.dataset.history_sql import (
    ABSORBED,
    ADDED,
    COMPARE,
    COUNTS,
    LATE,
    PLAN,
    REMOVED,
)
from datazone_dagster.model.column_names import (
    DELETE_CAUSE,
    DELETED,
    DELETION,
    EVENT_TIME,
    HIDDEN,
    INTERVAL,
    IS_CURRENT,
    KEY,
    RESERVED_PREFIX,
    VALID_FROM,
    VALID_TO,
    VERSION,
)
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.merge_batch import CAUSE, MergeBatch

_TIME = pa.timestamp("us", tz="UTC")

INTERVAL_FIELDS = (
    pa.field(VALID_FROM, _TIME),
    pa.field(VALID_TO, _TIME),
    pa.field(IS_CURRENT, pa.bool_()),
)
DELETION_FIELDS = (pa.field(DELETED, pa.bool_()), pa.field(DELETE_CAUSE, pa.string()))

_EXISTING, _ABSORBED, _NEW = 0, 1, 2

_LARGE_VALUE_BYTES = 256
"""Average size of a column's values above which their digests are compared instead."""

_DIGEST_BYTES = 20


@dataclass(frozen=True)
class HistoryPlan:
    """Changes that a chunk makes to a history table.

    Args:
        removed: Key and version of the rows to remove.
        rows: The rows to add, in the table's schema; they may replace rows of `removed`.
        absorbed: The changes that no row shows from now on, one row or several each: the
            columns of the function's result, the hidden ones, and `cause` (null: the change
            equals its neighbour, whose row shows its values).
        counts: Numbers of intervals; `deleted` counts those that a change closed for good.
    """

    removed: pa.Table
    rows: pa.Table
    absorbed: pa.Table
    counts: MergeCounts


def payload_schema(table: pa.Schema) -> pa.Schema:
    """Return the table's columns that a single change fills."""
    return pa.schema([field for field in table if field.name not in (*INTERVAL, *DELETION)])


def tracked_columns(table: pa.Schema, track: tuple[str, ...]) -> list[str]:
    """Return the columns on which neighbours must be equal to be one interval; default: all."""
    own = [name for name in table.names if name not in HIDDEN and not _is_ours(name)]
    return list(track) or own


def _is_ours(name: str) -> bool:
    return name in (*INTERVAL, *DELETION) or name.startswith(f"{RESERVED_PREFIX}valid")


def late_keys(
    connection: duckdb.DuckDBPyConnection,
    keyed_changes: pa.Table,
    existing: pa.Table,
    absorbed: pa.Table,
) -> pa.Array:
    """Return the keys with a change that may be older than something known of its key.

    Args:
        connection: A database without tables, used for this call only.
        keyed_changes: Key, version and event time.
        existing: Key, version and end of the table's rows of these keys.
        absorbed: Key and version of the absorbed changes, from the lowest version of
            `keyed_changes` on.
    """
    connection.register("keyed_changes", keyed_changes)
    connection.register("existing", existing.rename_columns(["_dz_key", "_dz_version", "valid_to"]))
    connection.register("absorbed", absorbed.select([KEY, VERSION]))
    late = pa.table(connection.sql(LATE.format(fresh="keyed_changes", time="_dz_event_time")))
    return pa.array(late[KEY].combine_chunks().cast(pa.string()))


def plan_history(
    connection: duckdb.DuckDBPyConnection,
    batch: MergeBatch,
    existing: pa.Table,
    absorbed: pa.Table,
    *,
    table: pa.Schema,
    track: tuple[str, ...] = (),
) -> HistoryPlan:
    """Plan the rows of the keys of a chunk.

    Args:
        connection: A database without tables, used for this call only.
        batch: Every keyed change of the chunk, key and version unique, with event times.
        existing: The table's rows of these keys; the last rows suffice for keys that are not
            late.
        absorbed: The absorbed changes of the late keys, each change once; those of other keys
            are not needed.
        table: The table's schema, also that of `existing` and of the planned rows.
        track: Columns that make a new interval when they change; none: all.
    """
    payload = payload_schema(table)
    with_values = absorbed.filter(pc.is_null(absorbed[CAUSE])).select(payload.names)
    values = pa.concat_tables(
        [aligned(rows, payload) for rows in (existing, with_values, batch.rows)]
    )
    sources = (
        [_EXISTING] * len(existing) + [_ABSORBED] * len(with_values) + [_NEW] * len(batch.rows)
    )
    inputs = [values, existing, absorbed, batch.keyed_changes]
    codes = ChangeCodes.of(inputs)
    tracked = [_comparable(values[name]) for name in tracked_columns(table, track)]
    compared = pa.table(
        {
            "source": pa.array(sources, pa.int8()),
            "row": pa.array(range(len(values)), pa.int64()),
            KEY: values[KEY],
            VERSION: values[VERSION],
            "tracked": value_numbers(connection, tracked, len(values)),
        }
    )
    tables = {
        "compared": compared,
        "existing_rows": _with_deletion(existing),
        "absorbed_changes": absorbed.select([KEY, VERSION, EVENT_TIME, CAUSE]),
        "keyed_changes": batch.keyed_changes,
    }
    for name, rows in tables.items():
        connection.register(name, codes.encoded(rows))
    for statement in PLAN:
        connection.execute(statement)
    if DELETED not in table.names:
        connection.execute("update runs set closed_by = null")
    for statement in COMPARE:
        connection.execute(statement)
    removed = codes.decoded(_arrow(connection, REMOVED))
    added = _arrow(connection, ADDED)
    newly_absorbed = codes.decoded(_arrow(connection, ABSORBED))
    (counts,) = connection.execute(COUNTS).fetchall()
    return HistoryPlan(
        removed=removed,
        rows=_intervals(values, added, table),
        absorbed=_absorbed(values, newly_absorbed, payload),
        counts=MergeCounts(*cast("tuple[int, int, int]", counts)),
    )


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return digests of large values: DuckDB holds what it compares several times over."""
    if column.nbytes <= _LARGE_VALUE_BYTES * len(column):
        return column
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    digests = (
        None if value is None else _digest(value if is_text or is_bytes else repr(value))
        for value in (one.as_py() for one in column)
    )
    return pa.chunked_array([pa.array(digests, pa.binary(_DIGEST_BYTES))])


def _digest(value: str | bytes) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _with_deletion(existing: pa.Table) -> pa.Table:
    own = [existing.schema.field(name) for name in (KEY, VERSION, EVENT_TIME, VALID_FROM, VALID_TO)]
    return aligned(existing, pa.schema([*own, *DELETION_FIELDS]))


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return pa.table(connection.sql(query))


def _intervals(values: pa.Table, added: pa.Table, table: pa.Schema) -> pa.Table:
    rows = values.take(added["row"].combine_chunks())
    own = {
        VALID_FROM: added["valid_from"],
        VALID_TO: added["valid_to"],
        IS_CURRENT: pc.is_null(added["valid_to"]),
        DELETED: pc.is_valid(added["cause"]),
        DELETE_CAUSE: added["cause"],
    }
    return aligned(rows, table, own)


def _absorbed(values: pa.Table, changes: pa.Table, payload: pa.Schema) -> pa.Table:
    """Return the rows of the changes; one without rows has key, version and time, the rest null."""
    rows = values.take(changes["row"].combine_chunks().cast(pa.int64()))
    own = {name: changes[name] for name in (*HIDDEN, CAUSE)}
    return aligned(rows, payload.append(pa.field(CAUSE, pa.string())), own)
