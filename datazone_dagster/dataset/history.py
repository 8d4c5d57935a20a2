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

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.history_newer import plan_newer
from datazone_dagster.dataset.history_queries import (
    ABSORBED_BEFORE,
    EXISTING,
    NEW,
    QueryInputs,
    plan_by_queries,
)
from datazone_dagster.dataset.history_split import divided
from datazone_dagster.dataset.row_equality import OpenDatabase, are_different
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


@dataclass(frozen=True)
class HistoryPlan:
    """Changes that a chunk makes to a history table.

    Args:
        removed: Key and version of the existing rows to remove, and the columns of `existing`
            that the table does not have.
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


def plan_history(
    open_database: OpenDatabase,
    batch: MergeBatch,
    existing: pa.Table,
    absorbed: pa.Table,
    *,
    table: pa.Schema,
    track: tuple[str, ...] = (),
) -> HistoryPlan:
    """Plan the rows of the keys of a chunk.

    Args:
        open_database: Opens a database without tables, if one is needed.
        batch: Every keyed change of the chunk, key and version unique, with event times.
        existing: The table's rows of these keys, perhaps with more columns; the last rows suffice
            for keys that are not late (see `key_order`).
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
    tracked, is_soft = values.select(tracked_columns(table, track)), DELETED in table.names
    newer, others = divided(batch, existing, absorbed, len(values) - len(batch.rows))
    differ = partial(are_different, tracked.columns, open_database=open_database)
    planned = plan_newer(newer, differ, soft=is_soft)
    leaving = existing.select(
        [
            name
            for name in existing.column_names
            if name in (KEY, VERSION) or name not in table.names
        ]
    )
    removed = [leaving.take(pa.array(planned.removed))]
    added, newly_absorbed, counts = [planned.added], [planned.absorbed], planned.counts
    if len(others):
        inputs = _inputs(others, batch, existing, absorbed, values, tracked)
        with open_database() as connection:
            rest = plan_by_queries(connection, inputs, soft=is_soft)
        removed.append(leaving.take(pa.array(rest.removed)))
        added.append(rest.added)
        newly_absorbed.append(rest.absorbed)
        counts += rest.counts
    return HistoryPlan(
        removed=pa.concat_tables(removed),
        rows=_intervals(values, pa.concat_tables(added), table),
        absorbed=_absorbed(values, pa.concat_tables(newly_absorbed), payload),
        counts=counts,
    )


def _inputs(
    keys: pa.Array,
    batch: MergeBatch,
    existing: pa.Table,
    absorbed: pa.Table,
    values: pa.Table,
    tracked: pa.Table,
) -> QueryInputs:
    """Return what the queries need of some keys; the batch has the last of all values."""
    count, new = len(values), len(batch.rows)
    sources = np.repeat(
        [EXISTING, ABSORBED_BEFORE, NEW], [len(existing), count - len(existing) - new, new]
    )
    at = np.flatnonzero(pc.is_in(values[KEY], keys).to_numpy())
    rows = pa.table({"source": pa.array(sources[at], pa.int8()), "row": pa.array(at)})
    for name in (KEY, VERSION):
        rows = rows.append_column(name, values[name].take(rows["row"]))

    def of_keys(table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table[KEY], keys))

    return QueryInputs(
        tracked.columns,
        rows,
        of_keys(_with_deletion(existing)),
        of_keys(absorbed.select([KEY, VERSION, EVENT_TIME, CAUSE])),
        of_keys(batch.keyed_changes),
    )


def _with_deletion(existing: pa.Table) -> pa.Table:
    own = [existing.schema.field(name) for name in (KEY, VERSION, EVENT_TIME, VALID_FROM, VALID_TO)]
    return aligned(existing, pa.schema([*own, *DELETION_FIELDS]))


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
