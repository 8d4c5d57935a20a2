"""A dataset's table: its position in the change log, and exactly-once writes of chunks.

The position is the Delta transaction version of `apply/<source>`, committed together with
the rows, so rows and position can't diverge.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.database.database import DEFAULT_MEMORY_LIMIT_BYTES
from datazone_dagster.dataset.bucket_positions import independent_of, marks_of
from datazone_dagster.dataset.chunk_written import ChunkWritten
from datazone_dagster.dataset.contract_refusals import rows_of_deletes, without_refused
from datazone_dagster.dataset.dataset_progress import (
    Progress,
    progress_of,
    require_erasures,
    require_marks,
    require_not_restored,
    require_progress,
)
from datazone_dagster.dataset.deletes import counted_deletes, without_ttl_deletes
from datazone_dagster.dataset.facts import TableFacts, facts_of
from datazone_dagster.dataset.idle_buckets import IsEmpty, pass_idle
from datazone_dagster.dataset.modes import AppendMode, ChunkRows, check_mode, mode_of
from datazone_dagster.dataset.passed_records import are_passed
from datazone_dagster.dataset.properties import FUNCTION, MODE, apply_app_id, generation_of
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.seen_columns import SeenColumns
from datazone_dagster.dataset.stored_state import (
    FunctionState,
    first_properties,
    store_state,
    stored_property,
    stored_start,
    unexpected_columns,
)
from datazone_dagster.dataset.swap_fence import begin_commit, make_way
from datazone_dagster.dataset.table_shape import KIND, create_dataset
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.dataset.widening_fence import WideningFence
from datazone_dagster.delta import Commit, guarded, transaction
from datazone_dagster.delta.log_upkeep import NO_CLEANING
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import HIDDEN, Log
from datazone_dagster.model.contract import OPEN, Contract
from datazone_dagster.model.function_record import FunctionRecord, MadeBy
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.process import crash_points
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.append import append
from datazone_dagster.rows.conform import Conformed, arrow_type, conform, first_schema
from datazone_dagster.rows.engine import MergeEngine, MergeTarget
from datazone_dagster.rows.engines import engine_for
from datazone_dagster.rows.existing_rows import find_rows
from datazone_dagster.rows.stored_form import in_stored_form
from datazone_dagster.rows.versions import has_rows, highest_versions

__all__ = ["KIND", "ChunkWritten", "DatasetTable"]

ATTEMPTS = 20
"""Attempts of a bucket at one chunk while others change columns or properties of the table."""


class DatasetTable:
    """The table of one dataset, written by one transform from one source."""

    def __init__(
        self,
        layout: Layout,
        dataset_id: str,
        source: str,
        *,
        mode: Literal["merge", "append", "history"],
        deletes: Literal["hard", "soft"] = "hard",
        ttl_deletes: Literal["apply", "ignore"] = "apply",
        track: tuple[str, ...] = (),
        partition_by: tuple[str, ...] = (),
        description: str | None = None,
        contract: Contract = OPEN,
        deletion_vectors: Literal["auto"] | bool = "auto",
        engine: MergeEngine | None = None,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        bucket: KeyBucket = WHOLE,
        clock: Clock = utc_now,
    ) -> None:
        self.uri = layout.dataset(dataset_id)
        self._source = source
        self._bucket = bucket
        self._independent = independent_of(source, bucket)
        self._attempts = 1 if bucket.is_whole else ATTEMPTS
        self._columns = SeenColumns(source, bucket)
        self._widening = WideningFence(source, bucket, clock)
        self.app_id = apply_app_id(source, bucket)
        self.redrive_app_id = f"redrive/{source}"
        self._storage_options = dict(layout.storage_options)
        self._dataset_id = dataset_id
        self._partition_by = partition_by
        self._description = description
        self._contract = contract
        self._ignores_ttl = ttl_deletes == "ignore"
        self._quarantine = Quarantine(layout, dataset_id)
        self._tombstones = Tombstones(layout, dataset_id, source)
        self._mode = mode_of(
            layout,
            dataset_id,
            source,
            mode=mode,
            deletes=deletes,
            track=track,
            engine=engine or engine_for(deletion_vectors),
            tombstones=self._tombstones,
            memory_limit_bytes=memory_limit_bytes,
            bucket=bucket,
        )

    def position(self) -> int:
        """Return the last batch that is in the table; 0 if none is."""
        return self.progress().position

    def progress(self, *, look: bool = True) -> Progress:
        """Return position and count of erasures; a run reads them before the change log.

        Args:
            look: Whether to look for newer versions than this process knows, here and below.
        """
        table = self._open(look=look)
        return Progress() if table is None else progress_of(table.at, self._source, self._bucket)

    def redriven(self, *, look: bool = True) -> int:
        """Return the number of the last redrive that is in the table; 0 if none is."""
        table = self._open(look=look)
        return 0 if table is None else table.transaction(self.redrive_app_id)

    def facts(self, *, look: bool = True) -> TableFacts | None:
        """Return version, size and columns of the table, without reading its data."""
        if (table := self._open(look=look)) is None:
            return None
        unexpected = unexpected_columns(table.at, self._source)
        return facts_of(table.at, table.schema, unexpected, stored_start(table.at, self._source))

    def state(self, *, look: bool = True) -> FunctionState:
        """Return the state of the function that is stored with the table; a run begins with it."""
        table = self._open(look=look)
        return FunctionState() if table is None else self._columns.see(table.at)

    def knows_columns(self, state: FunctionState) -> bool:
        """Return whether others have added no columns of items since a run began."""
        return (table := self._open()) is None or self._columns.cover(table.at, state)

    def make_way(self, now: datetime) -> None:
        """Raise `MakesWayError` if a rewrite of the table is known to be about to come."""
        if (table := self._open(look=False)) is not None:
            make_way(table.at, self.uri, self._source, now, self._widening.name)

    def apply(
        self,
        changes: pa.Table,
        rows: pa.Table,
        *,
        after_batch: int,
        through_batch: int,
        now: datetime,
        state: FunctionState = FunctionState(),
        known: Progress | None = None,
        empty_through: int = 0,
        version: str | None = None,
        start: SnapshotBase | None = None,
        merges_left: float = 0.0,
    ) -> ChunkWritten:
        """Write one chunk into the table, in one commit that also moves the position.

        Args:
            changes: The chunk that the function was given, with the hidden columns.
            rows: Rows that the function returned for it, with the hidden columns.
            after_batch: Position of the table before the chunk.
            through_batch: Position of the table after the chunk.
            now: The current time, for tombstones.
            state: State to store with the table before the rows; it is harmless if writing the
                rows then fails.
            known: Progress from before the chunk was read, which may have keys erased since; None:
                only `after_batch` counts, and that no key was ever erased.
            empty_through: Batch before the first change of the chunk.
            version: Version of the function, to store like the mapping; None stores none.
            start: Snapshot that the dataset begins with, for its first chunk: the table has no
                position before it.
            merges_left: Number of chunks of this size that the backlog will still bring.

        Raises:
            ConcurrentWriterError: The table is not at `after_batch`, keys were erased or it was
                rebuilt since, or another writer commits meanwhile. Nothing was written.
            SchemaChangeError: A column changed to a type that the table can't take.
            ResultError: The rows do not belong to this chunk.
            StorageError: The store failed.
        """
        before = after_batch if start is None else 0
        commit = transaction(self.app_id, through_batch)
        made_by = None if version is None else MadeBy(version, before + 1)
        facts = commit, now, state, through_batch, made_by, start, merges_left
        for attempts_left in reversed(range(self._attempts)):
            table = self._begin(rows, state)
            begin_commit(table, self._source, now, self._widening.name)
            known = known or Progress(generation=generation_of(table.at, self._source))
            progress = known._replace(position=before)
            require_progress(table.at, self._source, progress, self._bucket, empty_through)
            self._columns.require(table.at, state)
            try:
                return self._put(table, changes, rows, *facts)
            except ConcurrentWriterError:
                if not attempts_left:  # else others changed columns or properties: cast again
                    raise
        raise AssertionError("the last attempt returns or raises")

    def pass_to(self, batch: int, progress: Progress, now: datetime) -> bool:
        """Move the position past batches without rows for this bucket; False: there is no table.

        Raises:
            ConcurrentWriterError: The table is not at this progress, or a rebuild is about to be
                swapped in; nothing was written.
            StorageError: The store failed.
        """
        if (table := self._open()) is None:
            return False
        begin_commit(table, self._source, now)
        require_progress(table.at, self._source, progress, self._bucket)
        commit = transaction(self.app_id, batch)
        with guarded(self.uri, f"Moving the position of dataset {self._dataset_id!r}"):
            append(table, table.schema.empty_table(), commit, independent=self._independent)
        return True

    def pass_idle(self, batch: int, is_empty: IsEmpty, now: datetime) -> None:
        """Move the positions of other buckets without changes: see `idle_buckets`."""
        if (table := self._open(look=False)) is not None:
            with guarded(self.uri, f"Moving idle buckets of dataset {self._dataset_id!r}"):
                pass_idle(table, self._source, self._bucket, batch, is_empty, now)

    def redrive(
        self,
        changes: pa.Table,
        rows: pa.Table,
        *,
        after_redrive: int,
        number: int,
        now: datetime,
        state: FunctionState = FunctionState(),
        erasures: int = 0,
    ) -> ChunkWritten:
        """Write quarantined changes into the table, in one commit that also records the redrive.

        A row of a key with a newer version stays; an event that an append table has is not
        added again.

        Args:
            changes: Changes as for `apply`, all of them from batches that the table has passed.
            rows: Rows that the function returned for them.
            after_redrive: Number of the last redrive that the table is known to have.
            number: Number of this redrive.
            now: The current time, for tombstones.
            state: State as for `apply`.
            erasures: Count of erasures from before the records were read.

        Raises:
            ConcurrentWriterError: The table has another redrive or erasure, has not passed the
                changes, or another writer commits meanwhile. Nothing was written.
            SchemaChangeError, StorageError: As for `apply`.
        """
        table = self._begin(rows, state)
        require_not_restored(table.at, self._source)
        newest = pc.max(changes[Log.BATCH]).as_py() or 0
        is_passed = pc.all(are_passed(table.at, self._source, changes), min_count=0).as_py()
        if table.transaction(self.redrive_app_id) != after_redrive or not is_passed:
            raise ConcurrentWriterError(
                f"Dataset {self._dataset_id!r} changed just before its records were redriven.",
                safe="Nothing of this attempt was written; the records wait in the quarantine.",
            )
        require_erasures(table.at, self._source, erasures)
        if isinstance(self._mode, AppendMode):
            rows = rows.filter(pc.invert(has_rows(table.at, rows)))
        commit = transaction(self.redrive_app_id, number)
        return self._put(table, changes, rows, commit, now, state, newest)

    def newest_versions(self, keys: pa.ChunkedArray) -> dict[str, str]:
        """Return the highest version of each of these keys that the table has, or had.

        Raises:
            StorageError: The table can't be read.
        """
        known = [self._tombstones.for_keys(keys)]
        if (table := self._open()) is not None:
            target = MergeTarget(self._dataset_id, table, table.schema)
            known.append(find_rows(target, keys).locations)
        return highest_versions(known)

    def columns_with(self, rows: pa.Schema) -> pa.Schema:
        """Return the columns of the table, or those that it gets when it is made for such rows."""
        table = self._open(look=False)
        return self._first_schema(rows) if table is None else table.schema

    def fitting(self, changes: pa.Table, rows: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Return the changes and rows that the contract allows, and the others with a `reason`.

        Raises:
            SchemaChangeError: As for `apply`.
            StorageError: The table can't be read.
        """
        table = self._open()
        if self._ignores_ttl:  # rows without effect can't be refused
            rows = without_ttl_deletes(changes, rows)[1]
        return without_refused(changes, rows, self._conformed(table, changes, rows).refused)

    def _conformed(self, table: Table | None, changes: pa.Table, rows: pa.Table) -> Conformed:
        schema = self._first_schema(rows.schema) if table is None else table.schema
        declared = {column.name: arrow_type(column.type) for column in self._contract.columns}
        rows = in_stored_form(rows, schema, declared)
        return conform(
            aligned(rows, pa.schema([*rows.schema, *self._mode.fields])),
            schema,
            self._contract,
            exempt=lambda: rows_of_deletes(changes, rows),
            dataset_id=self._dataset_id,
            partition_by=self._partition_by if table is None else table.partition_columns,
        )

    def _put(
        self,
        table: Table,
        changes: pa.Table,
        rows: pa.Table,
        commit: Commit,
        now: datetime,
        state: FunctionState,
        batch: int,
        made_by: MadeBy | None = None,
        start: SnapshotBase | None = None,
        merges_left: float = 0.0,
    ) -> ChunkWritten:
        check_mode(self._dataset_id, self._mode.name, stored_property(table.at, self._source, MODE))
        returned = set(rows.column_names) - set(HIDDEN)
        changes, rows, deletes = counted_deletes(
            changes, rows, ignore_ttl=self._ignores_ttl, stored=isinstance(self._mode, AppendMode)
        )
        applied = marks_of(table.at, self._source, self._bucket)
        conformed = self._conformed(table, changes, rows)
        changes, rows, refused = without_refused(changes, conformed.rows, conformed.refused)
        quarantined = self._quarantine.put(refused, now)
        added = self._widening.change_schema(table, conformed, self._dataset_id)
        stored = FunctionRecord.from_json(stored_property(table.at, self._source, FUNCTION))
        record = stored.after(made_by, returned)
        state = replace(state, function=record)
        store_state(table, self._source, state, conformed.unexpected, batch, start)
        # Those of these commits that delta-rs makes may come after a commit of another run.
        require_marks(table.at, self._source, applied, self._bucket)
        target = MergeTarget(
            self._dataset_id,
            table,
            conformed.schema,
            added,
            merges_left=merges_left,
            bucket=self._bucket,
            independent=self._independent,
            watched=tuple(applied),
        )
        counts = self._mode.write(target, ChunkRows(changes, rows, now), commit)
        self._columns.see(table.at)
        self._widening.lower(table)
        crash_points.reach(crash_points.AFTER_DATASET_COMMIT)
        names = tuple(field.name for field in conformed.added)
        return ChunkWritten(counts, table.at.version, names, quarantined, deletes)

    def _open(self, *, look: bool = True) -> Table | None:
        return opened(self.uri, self._storage_options, KIND, look=look)

    def _begin(self, rows: pa.Table, state: FunctionState) -> Table:
        self._mode.begin()
        return self._open() or self._create(rows, state)

    def _first_schema(self, rows: pa.Schema) -> pa.Schema:
        return first_schema(pa.schema([*rows, *self._mode.fields]), self._contract)

    def _create(self, rows: pa.Table, state: FunctionState) -> Table:
        return create_dataset(
            self.uri,
            self._storage_options,
            self._dataset_id,
            self._first_schema(rows.schema),
            partition_by=self._partition_by,
            configuration={**NO_CLEANING, MODE: self._mode.name, **first_properties(state)},
            description=self._description,
        )
