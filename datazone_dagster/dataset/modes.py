"""Modes of a dataset: each one writes a chunk into the dataset's table in its own way.

Each mode decides with pure planning, writes the companion tables first, and then makes its one
commit, which carries the position. If the table has moved on by then, that commit fails: a plan is
never applied to rows other than those it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.database.database import opened
from datazone_dagster.dataset.absorbed_changes import AbsorbedChanges
from datazone_dagster.dataset.history import (
    DELETION_FIELDS,
    INTERVAL_FIELDS,
    payload_schema,
    plan_history,
)
from datazone_dagster.dataset.key_order import are_last, keys_before_ends, late_keys
from datazone_dagster.dataset.keyed_changes import collapse, each_change
from datazone_dagster.dataset.soft_delete import plan_soft, stamped
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import Commit, guarded
from datazone_dagster.errors import ResultError, SchemaChangeError
from datazone_dagster.model.column_names import (
    DELETE_CAUSE,
    DELETED,
    EVENT_TIME,
    KEY,
    VERSION,
)
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.append import append
from datazone_dagster.rows.bucket_files import tag_of
from datazone_dagster.rows.engine import MergeEngine, MergeTarget
from datazone_dagster.rows.existing_rows import find_rows, read_existing, read_located


@dataclass(frozen=True)
class ChunkRows:
    """One chunk on its way into a table.

    Args:
        changes: Rows that the function was given, with the hidden columns.
        rows: Rows that the function returned, in the table's schema; the columns of the mode
            are null.
        now: The current time, for data with a retention.
    """

    changes: pa.Table
    rows: pa.Table
    now: datetime


class Mode(Protocol):
    """The way in which a dataset represents the changes of its items."""

    name: str
    """Name of the mode, as in `Dataset(mode=...)`."""

    fields: tuple[pa.Field, ...]
    """Columns that the mode adds to those of the function's result."""

    def begin(self) -> None:
        """Look at the companion tables, before the dataset is found to be as the run knows it.

        Raises:
            StorageError: A table can't be read.
        """
        ...

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: Commit) -> MergeCounts:
        """Write a chunk into the table, in one commit.

        Raises:
            ConcurrentWriterError: Another commit came first; the table is as it was.
            ResultError: The rows do not belong to this chunk.
            StorageError: The store failed.
        """
        ...


_COPIED_RUN_ROWS = 256
"""Average length of runs from which on rows are not copied one by one to sort them."""


class AppendMode:
    """Stores every event once."""

    name = "append"
    fields: tuple[pa.Field, ...] = ()

    def begin(self) -> None:
        """See `Mode.begin`: there is none."""

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: Commit) -> MergeCounts:
        """See `Mode.write`."""
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        with guarded(target.uri, f"Appending to dataset {target.dataset_id!r}"):
            append(
                target.table,
                _oldest_first(chunk.rows),
                commit,
                added=target.added,
                independent=target.independent,
                tag=tag_of(target.bucket),
            )
        return MergeCounts(inserted=len(chunk.rows))


def _oldest_first(rows: pa.Table) -> pa.Table:
    """Sort rows by the time of their change; long runs of them are not copied."""
    times = rows[EVENT_TIME]
    if pc.all(pc.less_equal(times.slice(0, max(len(rows) - 1, 0)), times.slice(1))).as_py():
        return rows
    order = pc.sort_indices(times)  # half the time of `sort_by`; stable, too
    at = order.to_numpy().astype(np.int64)
    starts = np.append(0, np.flatnonzero(np.diff(at) != 1) + 1)
    if len(rows) < _COPIED_RUN_ROWS * len(starts):
        return rows.take(order)
    lengths = np.diff(np.append(starts, len(rows)))
    runs = zip(at[starts].tolist(), lengths.tolist(), strict=True)
    return pa.concat_tables([rows.slice(start, length) for start, length in runs])


class MergeMode:
    """Stores the newest rows of each item; those of deleted items are removed."""

    name = "merge"
    fields: tuple[pa.Field, ...] = ()

    def __init__(self, engine: MergeEngine, tombstones: Tombstones) -> None:
        self._engine = engine
        self._tombstones = tombstones

    def begin(self) -> None:
        """See `Mode.begin`."""
        self._tombstones.begin()

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: Commit) -> MergeCounts:
        """See `Mode.write`."""
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        batch = collapse(chunk.changes, chunk.rows, dataset_id=target.dataset_id)
        batch = batch.without(self._tombstones.superseded(batch.keyed_changes).select([KEY]))
        batch = replace(batch, rows=_unmarked(batch.rows))
        self._tombstones.write(batch.keyed_changes, chunk.now)
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        return self._engine.merge(target, batch, commit)


def _unmarked(rows: pa.Table) -> pa.Table:
    """Mark the rows as not deleted, if the table has had soft deletes."""
    if DELETED not in rows.column_names:
        return rows
    return aligned(rows, rows.schema, {DELETED: pa.scalar(False)})


class SoftMode:
    """Stores the newest rows of each item; those of deleted items stay, marked."""

    name = "merge"
    fields = DELETION_FIELDS

    def __init__(
        self, engine: MergeEngine, tombstones: Tombstones, memory_limit_bytes: int
    ) -> None:
        self._engine = engine
        self._tombstones = tombstones
        self._memory_limit_bytes = memory_limit_bytes

    def begin(self) -> None:
        """See `Mode.begin`."""
        self._tombstones.begin()

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: Commit) -> MergeCounts:
        """See `Mode.write`."""
        batch = each_change(chunk.changes, chunk.rows, dataset_id=target.dataset_id)
        existing = find_rows(target, batch.keyed_changes[KEY], _MARKS)
        tombstones = self._tombstones.for_keys(batch.keyed_changes[KEY])
        with opened(self._memory_limit_bytes) as connection:
            plan = plan_soft(
                connection, batch.keyed_changes, existing.locations.select(_MARKS), tombstones
            )
        rows = pa.concat_tables(
            [
                stamped(batch.rows, plan.from_chunk),
                stamped(read_existing(target, existing, plan.from_table), plan.from_table),
            ]
        )
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        self._tombstones.write(plan.tombstones, chunk.now)
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        self._engine.replace(target, plan.removed, rows, commit)
        return plan.counts


_MARKS = (KEY, VERSION, EVENT_TIME, DELETED, DELETE_CAUSE)


_CHANGE = (KEY, VERSION)


class HistoryMode:
    """Stores one row per interval in which an item did not change.

    Args:
        engine: Engine that writes the plan.
        absorbed: Table of the changes that no row shows.
        track: Columns that make a new interval when they change; none: all.
        soft: Whether intervals that a delete closed are marked.
        memory_limit_bytes: DuckDB's memory limit while it plans.
    """

    name = "history"

    def __init__(
        self,
        engine: MergeEngine,
        absorbed: AbsorbedChanges,
        track: tuple[str, ...],
        *,
        soft: bool,
        memory_limit_bytes: int,
    ) -> None:
        self.fields = (*INTERVAL_FIELDS, *(DELETION_FIELDS if soft else ()))
        self._engine = engine
        self._absorbed = absorbed
        self._track = track
        self._memory_limit_bytes = memory_limit_bytes

    def begin(self) -> None:
        """See `Mode.begin`."""
        self._absorbed.begin()

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: Commit) -> MergeCounts:
        """See `Mode.write`."""
        missing = [name for name in self._track if name not in target.schema.names]
        if missing:
            raise ResultError(
                f"Dataset {target.dataset_id!r} tracks {missing[0]!r}, which the function does "
                "not return.",
                safe="Nothing of the chunk was applied; the change log keeps it.",
                hint="Return that column, or list the columns to track in Dataset(track=[...]).",
            )
        batch = each_change(chunk.changes, chunk.rows, dataset_id=target.dataset_id)
        payload = payload_schema(target.schema)
        rows, late = self._existing(target, batch.keyed_changes, payload)
        absorbed = self._absorbed.for_keys(late, payload)
        database = partial(opened, self._memory_limit_bytes)
        plan = plan_history(database, batch, rows, absorbed, table=target.schema, track=self._track)
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        self._absorbed.put(plan.absorbed, chunk.now)
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        self._engine.replace(target, plan.removed, plan.rows, commit)
        return plan.counts

    def _existing(
        self, target: MergeTarget, keyed_changes: pa.Table, payload: pa.Schema
    ) -> tuple[pa.Table, pa.Array]:
        """Return the last row of each key, all rows of keys with late changes, and these keys."""
        keys = pc.unique(keyed_changes[KEY].combine_chunks())
        lowest = pc.min(keyed_changes[VERSION]).as_py() or ""
        recent = self._absorbed.since(lowest, keys, payload)
        found = find_rows(target, keyed_changes[KEY])
        locations = found.locations
        late = late_keys(
            keyed_changes, pa.concat_tables([one.select(_CHANGE) for one in (locations, recent)])
        )
        is_needed = are_last(locations) | pc.is_in(locations[KEY], late).to_numpy()
        rows = read_located(target, found, locations.filter(pa.array(is_needed)))
        ended_later = keys_before_ends(keyed_changes, rows)
        if len(ended_later):
            late = pa.concat_arrays([late, ended_later])
            others = pc.is_in(locations[KEY], late).to_numpy() & ~is_needed
            more = read_located(target, found, locations.filter(pa.array(others)))
            rows = pa.concat_tables([rows, more])
        return rows, late


def mode_of(
    layout: Layout,
    dataset_id: str,
    source: str,
    *,
    mode: Literal["merge", "append", "history"],
    deletes: Literal["hard", "soft"],
    track: tuple[str, ...],
    engine: MergeEngine,
    tombstones: Tombstones,
    memory_limit_bytes: int,
    bucket: KeyBucket = WHOLE,
) -> Mode:
    """Return the mode of a dataset, as it is declared, for the keys of a bucket."""
    if mode == "append":
        return AppendMode()
    if mode == "history":
        absorbed = AbsorbedChanges(layout, dataset_id, source, bucket)
        soft = deletes == "soft"
        return HistoryMode(
            engine, absorbed, track, soft=soft, memory_limit_bytes=memory_limit_bytes
        )
    if deletes == "soft":
        return SoftMode(engine, tombstones, memory_limit_bytes)
    return MergeMode(engine, tombstones)


def check_mode(dataset_id: str, declared: str, made: str | None) -> None:
    """Refuse to write a table in a mode other than the one it was created with.

    Args:
        dataset_id: Dataset to name in the error.
        declared: Mode that the dataset declares.
        made: Mode stored with the table; None if it has none.

    Raises:
        SchemaChangeError: The two modes differ.
    """
    if made is not None and made != declared:
        raise SchemaChangeError(
            f"Dataset {dataset_id!r} was made with mode={made!r} and is now declared with "
            f"mode={declared!r}: the rows of the two modes differ in meaning.",
            safe="Nothing was written; the table is as it was.",
            hint=f"Run `datazone-dagster rebuild {dataset_id}`, which rebuilds the table from "
            "the change log, or give the dataset a new id.",
        )
