"""One row per interval of a key's life (SCD2): what a chunk changes. Pure.

The changes of a key, by version, form runs: neighbours that are equal on the tracked columns.
A run is one row, with the values of its last change, valid from the run's first change until
the first change of the next run, or until the key leaves. Times come from the service floored
to the second and may go back, versions never do: a row never begins before its predecessor
ends, so that at any time at most one interval of a key is valid.

Which rows a set of changes gives depends on the set only, not on the order in which the
changes came. So the changes that no row shows are kept aside for a while (see `unseen`), and a
late change is planned with all of its key's changes. A change that is newer than all of its
key, the usual case, needs the key's last row only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.history_sql import (
    ASIDE,
    COME,
    COMPARE,
    COUNTS,
    GONE,
    LATE,
    PLAN,
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
from datazone_dagster.rows.merge_batch import CAUSE, MergeBatch

_TIME = pa.timestamp("us", tz="UTC")

INTERVAL_FIELDS = (
    pa.field(VALID_FROM, _TIME),
    pa.field(VALID_TO, _TIME),
    pa.field(IS_CURRENT, pa.bool_()),
)
DELETION_FIELDS = (pa.field(DELETED, pa.bool_()), pa.field(DELETE_CAUSE, pa.string()))

_HELD, _UNSEEN, _NEW = 0, 1, 2


@dataclass(frozen=True)
class HistoryPlan:
    """What a chunk changes in a history table.

    Args:
        gone: Key and version of the rows that leave.
        rows: The rows that come, in the table's schema; may replace rows of `gone`.
        unseen: The changes that no row shows from now on, one row or several each: the
            columns of the function's result, the hidden ones, and `cause` (null: absorbed by
            a neighbour; its values are those of the row).
        counts: In intervals; deleted are those that a change closed for good.
    """

    gone: pa.Table
    rows: pa.Table
    unseen: pa.Table
    counts: MergeCounts


def payload_schema(table: pa.Schema) -> pa.Schema:
    """The table's columns that a single change fills."""
    return pa.schema([field for field in table if field.name not in (*INTERVAL, *DELETION)])


def tracked_columns(table: pa.Schema, track: tuple[str, ...]) -> list[str]:
    """The columns on which neighbours must be equal to be one interval; default: all."""
    own = [name for name in table.names if name not in HIDDEN and not _is_ours(name)]
    return list(track) or own


def _is_ours(name: str) -> bool:
    return name in (*INTERVAL, *DELETION) or name.startswith(f"{RESERVED_PREFIX}valid")


def late_keys(keyed_changes: pa.Table, held: pa.Table, unseen: pa.Table) -> pa.Array:
    """Keys of which a claim is not surely newer than everything that is known of them.

    Args:
        claims: Key, version and event time.
        held: Key, version and end of the table's rows of these keys.
        unseen: Key and version of what is kept aside, from the lowest version of the claims.
    """
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("claims", keyed_changes)
        connection.register("held", held.rename_columns(["_dz_key", "_dz_version", "valid_to"]))
        connection.register("unseen", unseen.select([KEY, VERSION]))
        late = pa.table(connection.sql(LATE.format(fresh="claims", time="_dz_event_time")))
    return pa.array(late[KEY].combine_chunks().cast(pa.string()))


def plan_history(
    batch: MergeBatch,
    held: pa.Table,
    unseen: pa.Table,
    *,
    table: pa.Schema,
    track: tuple[str, ...] = (),
) -> HistoryPlan:
    """Plan the rows of the keys of a chunk.

    Args:
        batch: Every claim of the chunk, key and version unique, with event times.
        held: The table's rows of these keys; of keys that are not late the last ones suffice.
        unseen: What is kept aside of the late keys, each change once; of others nothing is
            needed.
        table: The table's schema, in which `held` and the planned rows are.
        track: Columns that make a new interval when they change; none: all.
    """
    payload = payload_schema(table)
    absorbed = unseen.filter(pc.is_null(unseen[CAUSE])).select(payload.names)
    values = pa.concat_tables(
        [_in(held, payload), _in(absorbed, payload), _in(batch.rows, payload)]
    )
    sources = [_HELD] * len(held) + [_UNSEEN] * len(absorbed) + [_NEW] * len(batch.rows)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("compared", _compared(values, sources, tracked_columns(table, track)))
        connection.register("existing_rows", _with_deletion(held))
        connection.register("absorbed_changes", unseen.select([KEY, VERSION, EVENT_TIME, CAUSE]))
        connection.register("claims", batch.keyed_changes)
        for statement in PLAN:
            connection.execute(statement)
        if DELETED not in table.names:
            connection.execute("update runs set closed_by = null")
        for statement in COMPARE:
            connection.execute(statement)
        gone = _arrow(connection, GONE).cast(
            pa.schema([(KEY, pa.string()), (VERSION, pa.string())])
        )
        come = _arrow(connection, COME)
        aside = _arrow(connection, ASIDE)
        (counts,) = connection.execute(COUNTS).fetchall()
    return HistoryPlan(
        gone=gone,
        rows=_intervals(values, come, table),
        unseen=_kept_aside(values, aside, payload),
        counts=MergeCounts(*cast("tuple[int, int, int]", counts)),
    )


def _in(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    return rows.select(schema.names).cast(schema)


def _compared(values: pa.Table, sources: list[int], tracked: list[str]) -> pa.Table:
    """Key, version, where the row comes from, and what is tracked of it as one struct."""
    columns = [pa.chunked_array([pa.repeat(pa.scalar(True), len(values))])]
    columns += [values[name] for name in tracked]
    # Numbered, because names that are unique here need not be so for DuckDB.
    struct = pa.table(columns, names=[f"c{at}" for at in range(len(columns))])
    return pa.table(
        {
            "source": pa.array(sources, pa.int8()),
            "row": pa.array(range(len(values)), pa.int64()),
            KEY: values[KEY],
            VERSION: values[VERSION],
            "tracked": struct.to_struct_array(),
        }
    )


def _with_deletion(held: pa.Table) -> pa.Table:
    columns = held.select([KEY, VERSION, EVENT_TIME, VALID_FROM, VALID_TO])
    for field in DELETION_FIELDS:
        missing = pa.chunked_array([pa.nulls(len(held), field.type)])
        column = held[field.name] if field.name in held.column_names else missing
        columns = columns.append_column(field, column)
    return columns


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return pa.table(connection.sql(query))


def _intervals(values: pa.Table, come: pa.Table, table: pa.Schema) -> pa.Table:
    rows = values.take(come["row"].combine_chunks())
    added = {
        VALID_FROM: come["valid_from"].cast(_TIME),
        VALID_TO: come["valid_to"].cast(_TIME),
        IS_CURRENT: pc.is_null(come["valid_to"]),
        DELETED: pc.is_valid(come["cause"]),
        DELETE_CAUSE: come["cause"].cast(pa.string()),
    }
    return pa.Table.from_arrays(
        [added[name] if name in added else rows[name] for name in table.names], schema=table
    )


def _kept_aside(values: pa.Table, aside: pa.Table, payload: pa.Schema) -> pa.Table:
    """Rows as they are; a change without rows as its key, version and time, the rest null."""
    rows = values.take(aside["row"].combine_chunks().cast(pa.int64()))
    own = {name: aside[name].cast(payload.field(name).type) for name in HIDDEN}
    return pa.Table.from_arrays(
        [own[name] if name in own else rows[name] for name in payload.names], schema=payload
    ).append_column(pa.field(CAUSE, pa.string()), aside[CAUSE].cast(pa.string()))
