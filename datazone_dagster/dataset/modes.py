"""How a chunk gets into a dataset's table, by the mode of the dataset.

Each mode decides with pure planning and writes what others need before its one commit, which
carries the position. A handle that is stale by then fails, so a plan never meets other rows
than it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, WriterProperties, write_deltalake

from datazone_dagster.dataset.absorbed_changes import AbsorbedChanges
from datazone_dagster.dataset.history import (
    DELETION_FIELDS,
    INTERVAL_FIELDS,
    late_keys,
    payload_schema,
    plan_history,
)
from datazone_dagster.dataset.keyed_changes import collapse, each_change
from datazone_dagster.dataset.soft_delete import plan_soft, stamped
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import guarded
from datazone_dagster.errors import ResultError, SchemaChangeError
from datazone_dagster.model.column_names import (
    DELETE_CAUSE,
    DELETED,
    EVENT_TIME,
    KEY,
    VALID_TO,
    VERSION,
)
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.engine import MergeEngine, MergeTarget
from datazone_dagster.rows.existing_rows import find_rows, read_existing
from datazone_dagster.rows.versions import HIGHEST, with_highest

WRITER = WriterProperties(compression="ZSTD", compression_level=1)


@dataclass(frozen=True)
class ChunkRows:
    """One chunk on its way into a table.

    Args:
        changes: What the function was given, with the hidden columns.
        rows: What it returned, in the table's schema; the columns of the mode are null.
        now: The time, for what is kept a while.
    """

    changes: pa.Table
    rows: pa.Table
    now: datetime


class Mode(Protocol):
    """How a dataset holds what its items became."""

    name: str
    """As a dataset declares it."""

    fields: tuple[pa.Field, ...]
    """Columns that the mode adds to those of the function's result."""

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: CommitProperties) -> MergeCounts:
        """Put a chunk into the table, in one commit.

        Raises:
            ConcurrentWriterError: Another commit came first; the table is as it was.
            ResultError: The rows are not of this chunk.
            StorageError: The store failed.
        """
        ...


class AppendMode:
    """Every event once."""

    name = "append"
    fields: tuple[pa.Field, ...] = ()

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: CommitProperties) -> MergeCounts:
        """See `Mode.write`."""
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        with guarded(target.uri, f"Appending to dataset {target.dataset_id!r}"):
            write_deltalake(
                target.table,
                chunk.rows.sort_by([(EVENT_TIME, "ascending")]),
                mode="append",
                schema_mode="merge" if target.added else None,
                writer_properties=WRITER,
                commit_properties=commit,
            )
        return MergeCounts(inserted=len(chunk.rows))


class MergeMode:
    """The newest rows of each item; deleted ones leave."""

    name = "merge"
    fields: tuple[pa.Field, ...] = ()

    def __init__(self, engine: MergeEngine, tombstones: Tombstones) -> None:
        self._engine = engine
        self._tombstones = tombstones

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: CommitProperties) -> MergeCounts:
        """See `Mode.write`."""
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        batch = collapse(chunk.changes, chunk.rows, dataset_id=target.dataset_id)
        batch = batch.without(self._tombstones.superseded(batch.keyed_changes).select([KEY]))
        batch = replace(batch, rows=_unmarked(batch.rows))
        self._tombstones.write(batch.keyed_changes, chunk.now)
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        return self._engine.merge(target, batch, commit)


def _unmarked(rows: pa.Table) -> pa.Table:
    """Rows that are not deleted, and say so where the table had soft deletes once."""
    if DELETED not in rows.column_names:
        return rows
    at = rows.column_names.index(DELETED)
    return rows.set_column(at, rows.schema.field(at), pa.repeat(pa.scalar(False), len(rows)))


class SoftMode:
    """The newest rows of each item; those of deleted ones stay, marked."""

    name = "merge"
    fields = DELETION_FIELDS

    def __init__(self, engine: MergeEngine, tombstones: Tombstones) -> None:
        self._engine = engine
        self._tombstones = tombstones

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: CommitProperties) -> MergeCounts:
        """See `Mode.write`."""
        batch = each_change(chunk.changes, chunk.rows, dataset_id=target.dataset_id)
        held = find_rows(target, batch.keyed_changes[KEY], _MARKS)
        plan = plan_soft(
            batch.keyed_changes,
            held.places.select(_MARKS),
            self._tombstones.of(batch.keyed_changes[KEY]),
        )
        rows = pa.concat_tables(
            [
                stamped(batch.rows, plan.from_chunk),
                stamped(read_existing(target, held, plan.from_table), plan.from_table),
            ]
        )
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        self._tombstones.write(plan.tombstones, chunk.now)
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        self._engine.replace(target, plan.gone, rows, commit)
        return plan.counts


_MARKS = (KEY, VERSION, EVENT_TIME, DELETED, DELETE_CAUSE)


class HistoryMode:
    """One row per interval in which an item did not change.

    Args:
        engine: Writes the plan.
        unseen: Changes that no row shows.
        track: Columns that make a new interval when they change; none: all.
        soft: Whether intervals that a delete closed are marked.
    """

    name = "history"

    def __init__(
        self, engine: MergeEngine, unseen: AbsorbedChanges, track: tuple[str, ...], *, soft: bool
    ) -> None:
        self.fields = (*INTERVAL_FIELDS, *(DELETION_FIELDS if soft else ()))
        self._engine = engine
        self._unseen = unseen
        self._track = track

    def write(self, target: MergeTarget, chunk: ChunkRows, commit: CommitProperties) -> MergeCounts:
        """See `Mode.write`."""
        missing = [name for name in self._track if name not in target.schema.names]
        if missing:
            raise ResultError(
                f"Dataset {target.dataset_id!r} tracks {missing[0]!r}, which the function does "
                "not return.",
                safe="Nothing of the chunk was applied; the change log keeps it.",
                hint="Return that column, or name those that count in Dataset(track=[...]).",
            )
        batch = each_change(chunk.changes, chunk.rows, dataset_id=target.dataset_id)
        payload = payload_schema(target.schema)
        held = find_rows(target, batch.keyed_changes[KEY], (KEY, VERSION, VALID_TO))
        highest = held.places.group_by(KEY).aggregate([(VERSION, "max")])
        late, unseen = self._late(
            batch.keyed_changes, held.places.select([KEY, VERSION, VALID_TO]), payload
        )
        wanted = with_highest(held.places.select([KEY, VERSION]), highest)
        needed = pc.or_(
            pc.equal(wanted[HIGHEST], wanted[VERSION]), pc.is_in(wanted[KEY], value_set=late)
        )
        plan = plan_history(
            batch,
            read_existing(target, held, wanted.filter(needed)),
            unseen,
            table=target.schema,
            track=self._track,
        )
        crash_points.reach(crash_points.BEFORE_DATASET_COMMIT)
        self._unseen.put(plan.unseen, chunk.now)
        crash_points.reach(crash_points.AFTER_TOMBSTONES)
        self._engine.replace(target, plan.gone, plan.rows, commit)
        return plan.counts

    def _late(
        self, keyed_changes: pa.Table, held: pa.Table, payload: pa.Schema
    ) -> tuple[pa.Array, pa.Table]:
        """The keys with late changes, and what is kept aside of them."""
        keys = pc.unique(keyed_changes[KEY].combine_chunks())
        if not len(keys):
            return keys, self._unseen.of(keys, payload)
        recent = self._unseen.since(pc.min(keyed_changes[VERSION]).as_py(), keys, payload)
        late = late_keys(keyed_changes, held, recent)
        return late, self._unseen.of(late, payload)


def check_mode(dataset_id: str, declared: str, made: str | None) -> None:
    """Refuse to write a table in a mode that it was not made for.

    Args:
        dataset_id: For the error.
        declared: The mode of the dataset.
        made: The mode that the table knows of itself; None: none.

    Raises:
        SchemaChangeError: They differ.
    """
    if made is not None and made != declared:
        raise SchemaChangeError(
            f"Dataset {dataset_id!r} was made with mode={made!r}, and is now declared as "
            f"mode={declared!r}: its rows mean something else.",
            safe="Nothing was written; the table is as it was.",
            hint=f"Run `datazone-dagster rebuild {dataset_id}`, which makes the table anew from "
            "the change log, or give the dataset a new id.",
        )
