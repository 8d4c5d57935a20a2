"""Records that a dataset could not take: stored raw, with the reason, until they are redriven.

A record is stored once, however often its chunk is retried or its shard is read again. Its
identity is its position in the stream; for a scanned item, its version and key; for what is no
record, its text. A redrive pins the records under a number, commits the dataset under the same
number, and then marks them: if a process dies in between, the next redrive compares the numbers
and completes the marks.

Records may have images by the gigabyte: only ids and marks of all records are in memory, images
a part at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.quarantine_rows import (
    FIRST_SEEN_AT,
    LAST_SEEN_AT,
    MARKS,
    RECORD_ID,
    REDRIVE,
    REDRIVEN_AT,
    SCHEMA,
    first_of_each,
    new_rows,
    parts,
    record_ids,
    redriven_by_now,
    redriven_times,
    seen_again,
    still_waiting,
)
from datazone_dagster.delta import guarded, transaction
from datazone_dagster.delta.log_upkeep import NO_CLEANING
from datazone_dagster.delta.orphans import orphan_files
from datazone_dagster.delta.read_file import all_rows
from datazone_dagster.delta.table import Table, created, opened
from datazone_dagster.delta.write_table import delete_before
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.rows.streamed_rows import FILE_BYTES, StreamedRows

KIND = "quarantine"

ROW = "row"
"""Number of the row of a record in one version of the quarantine."""

_OF_A_REDRIVE = (
    *(RECORD_ID, Log.BATCH, Log.VERSION, Log.KEYS, Log.SIZE_BYTES),
    *(REDRIVE, REDRIVEN_AT),
)
"""Columns of all records that a redrive holds in memory."""

ATTEMPTS = 20
"""Attempts at adding records while others add theirs: every bucket of the dataset may."""

_CONFIGURATION = {
    **NO_CLEANING,
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}


class Quarantine:
    """The quarantine of one dataset."""

    def __init__(self, layout: Layout, dataset_id: str) -> None:
        self.uri = layout.quarantine(dataset_id)
        self._storage_options = layout.storage_options
        self._dataset_id = dataset_id
        self._app_id = "redrive"

    def put(self, changes: pa.Table, now: datetime) -> int:
        """Add change log rows that carry a `reason`; known ones get a new `last_seen_at`.

        A record that was redriven and fails again waits again.

        Args:
            changes: Rows with the change log's columns.
            now: The current time, timezone aware.

        Returns:
            The number of new records.

        Raises:
            ConcurrentWriterError: Another run changed records of the quarantine meanwhile. Runs of
                other buckets may add some.
            StorageError: The store failed.
        """
        if not len(changes):
            return 0
        ids = record_ids(changes)
        for attempts_left in reversed(range(ATTEMPTS)):
            table = self._open() or self._created()
            try:
                return self._put(table, changes, ids, now)
            except ConcurrentWriterError:
                if not attempts_left or not self._has_only_more(table):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _put(self, table: Table, changes: pa.Table, ids: pa.StringArray, now: datetime) -> int:
        stored = StreamedRows(table, SCHEMA, (RECORD_ID, *MARKS))
        new = first_of_each(ids, set(stored.rows[RECORD_ID].to_pylist()))
        stored.replace(
            seen_again(stored.rows, ids, changes[Log.REASON], now),
            added=new_rows(changes, ids, new, now),
            doing=f"Quarantining records of dataset {self._dataset_id!r}",
        )
        return int(new.sum())

    def _has_only_more(self, known: Table) -> bool:
        """Return whether others have added records only: what was erased must not come back."""
        newest = self._open()
        return newest is not None and known.at.by_identity.keys() <= newest.at.by_identity.keys()

    def _created(self) -> Table:
        return created(
            self.uri,
            self._storage_options,
            KIND,
            SCHEMA,
            configuration=_CONFIGURATION,
            description=f"Records that dataset {self._dataset_id} could not take. "
            "Written by datazone_dagster only.",
        )

    def put_again(self, records: pa.Table, now: datetime) -> None:
        """Give stored records that wait on a new `reason` and `last_seen_at`.

        Args:
            records: Table with `record_id` and `reason`; records that are not stored, such as
                erased ones, stay out.
            now: The current time, timezone aware.

        Raises:
            ConcurrentWriterError: Another run wrote to the quarantine meanwhile.
            StorageError: The store failed.
        """
        table = self._open()
        if table is None or not len(records):
            return
        stored = StreamedRows(table, SCHEMA, (RECORD_ID, *MARKS))
        ids = records[RECORD_ID].combine_chunks()
        stored.replace(
            seen_again(stored.rows, ids, records[Log.REASON], now),
            doing=f"Quarantining records of dataset {self._dataset_id!r}",
        )

    def copy_from(self, other: Quarantine, now: datetime) -> None:
        """Add the records that wait in another quarantine of the dataset, a part at a time.

        Raises:
            ConcurrentWriterError: Another run wrote to the quarantine meanwhile. Parts that were
                added stay; adding them again changes nothing but `last_seen_at`.
            StorageError: The store failed.
        """
        redrive = other.start_redrive()
        if redrive is None:
            return
        waiting = redrive.records(0)
        sizes = np.asarray(pc.fill_null(waiting[Log.SIZE_BYTES], 0).to_numpy(), np.int64) + 1024
        for start, end in parts(sizes, FILE_BYTES):
            self.put(redrive.read(waiting.slice(start, end - start)), now)

    def mark_rebuilt(
        self, rebuilt: Quarantine, after_batch: int, through_batch: int, now: datetime
    ) -> None:
        """Mark the records of some batches that do not wait in the quarantine of a rebuilt dataset.

        Args:
            rebuilt: Quarantine of the rebuild, which read these batches and was swapped in.
            after_batch: Start of the batches, exclusive.
            through_batch: End of the batches, inclusive.
            now: The current time, timezone aware.

        Raises:
            ConcurrentWriterError: Others wrote to the quarantine each time; nothing was marked.
            StorageError: The store failed; the rows of the rebuild are in the dataset.
        """
        still = rebuilt.waiting(columns=(RECORD_ID,))[RECORD_ID].combine_chunks()
        for attempts_left in reversed(range(ATTEMPTS)):
            if (table := self._open()) is None:
                return
            stored = StreamedRows(table, SCHEMA, _OF_A_REDRIVE)
            batches = stored.rows[Log.BATCH]
            read = pc.and_(pc.greater(batches, after_batch), pc.less_equal(batches, through_batch))
            taken = pc.and_(read, pc.invert(pc.is_in(stored.rows[RECORD_ID], still)))
            try:
                stored.replace(
                    {REDRIVEN_AT: redriven_times(stored.rows, taken, now)},
                    doing=f"Marking rebuilt records of dataset {self._dataset_id!r}",
                )
                return
            except ConcurrentWriterError:
                if not attempts_left:
                    raise

    def waiting(
        self,
        finished_redrive: int = 0,
        *,
        through_batch: int | None = None,
        columns: Sequence[str] = tuple(SCHEMA.names),
    ) -> pa.Table:
        """Return the records that wait to be redriven, as the table is now.

        Args:
            finished_redrive: The last redrive that the dataset has committed.
            through_batch: Last batch whose records are returned; None: all batches.
            columns: Columns to read; images and raw texts take memory by the gigabyte.
        """
        table = self._open()
        needed = [
            name for name in SCHEMA.names if name in {*columns, Log.BATCH, REDRIVE, REDRIVEN_AT}
        ]
        schema = pa.schema([SCHEMA.field(name) for name in needed])
        rows = schema.empty_table() if table is None else self._read(table, schema)
        if through_batch is not None:
            rows = rows.filter(pc.less_equal(rows[Log.BATCH], through_batch))
        return still_waiting(rows, finished_redrive).select(list(columns))

    def waiting_count(self, finished_redrive: int = 0) -> int:
        """Count the records that `waiting` would return, without reading the records."""
        table = self._open()
        if table is None:
            return 0
        marks = pa.schema([SCHEMA.field(name) for name in (REDRIVE, REDRIVEN_AT)])
        return len(still_waiting(self._read(table, marks), finished_redrive))

    def expire(self, before: datetime) -> None:
        """Remove all records that were last seen before a time.

        Raises:
            ConcurrentWriterError: Another run wrote to the quarantine meanwhile.
            StorageError: The store failed.
        """
        table = self._open()
        if table is None:
            return
        seen = self._read(table, pa.schema([SCHEMA.field(LAST_SEEN_AT)]))[LAST_SEEN_AT]
        if pc.any(pc.less(seen, pa.scalar(before, seen.type))).as_py():
            doing = f"Removing old records of dataset {self._dataset_id!r}"
            with guarded(self.uri, doing), table.by_delta_rs() as handle:
                delete_before(handle, LAST_SEEN_AT, before)

    def delete_old_files(self, before: datetime) -> int:
        """Delete files that were replaced before a time, and orphans from then; return how many.

        Each redrive and each repeated failure replaces the files of its records.

        Raises:
            StorageError: The store failed; no record is lost.
        """
        table = self._open()
        if table is None:
            return 0
        with guarded(self.uri, f"Cleaning the quarantine of dataset {self._dataset_id!r}"):
            paths = orphan_files(table.at, before)
            table.at.store.delete(paths)
        return len(paths)

    def oldest_waiting(self) -> datetime | None:
        """Return when the oldest waiting record was made, or first seen; None if none waits."""
        waiting = self.waiting(columns=(Log.EVENT_TIME, FIRST_SEEN_AT))
        times = (pc.min(waiting[name]).as_py() for name in (Log.EVENT_TIME, FIRST_SEEN_AT))
        return min((time for time in times if time is not None), default=None)

    def start_redrive(self) -> Redrive | None:
        """Start a redrive of the records that wait now; None if there is no quarantine.

        Raises:
            StorageError: The table can't be read.
        """
        table = self._open()
        if table is None:
            return None
        return Redrive(self._dataset_id, self._app_id, table)

    def _open(self) -> Table | None:
        return opened(self.uri, self._storage_options, KIND)

    def _read(self, table: Table, schema: pa.Schema) -> pa.Table:
        with guarded(self.uri, f"Reading quarantined records of dataset {self._dataset_id!r}"):
            return all_rows(table.at, schema)


class Redrive:
    """One attempt to redrive quarantined records, on one version of the quarantine."""

    def __init__(self, dataset_id: str, app_id: str, table: Table) -> None:
        self._dataset_id = dataset_id
        self._app_id = app_id
        self._table = table
        self._stored = self._read()
        self.number = table.transaction(app_id) + 1
        """The number under which the dataset has to commit these records."""

    def records(self, finished_redrive: int) -> pa.Table:
        """Return the records that wait, oldest first: id, batch, version, keys, size, `ROW`.

        Args:
            finished_redrive: The last redrive that the dataset has committed: records pinned
                under a higher number never reached it.
        """
        rows = self._stored.rows
        rows = still_waiting(
            rows.append_column(ROW, pa.array(np.arange(len(rows)))), finished_redrive
        )
        return rows.sort_by([(Log.BATCH, "ascending"), (Log.VERSION, "ascending")])

    def read(self, records: pa.Table) -> pa.Table:
        """Return some of `records` as they are stored, images included; call it before `pin`.

        Raises:
            StorageError: The table can't be read.
        """
        return self._stored.read(records[ROW])

    def pin(self, records: pa.Table, finished_redrive: int, now: datetime) -> None:
        """Record which records this redrive takes; call it before the commit of the dataset.

        Raises:
            ConcurrentWriterError: The quarantine changed since; nothing was written.
            StorageError: The store failed.
        """
        rows = self._stored.rows
        taken = pc.is_in(rows[RECORD_ID], records[RECORD_ID].combine_chunks())
        earlier = redriven_by_now(rows, finished_redrive)
        redrives = pc.if_else(
            taken,
            pa.scalar(self.number, pa.int64()),
            pc.if_else(earlier, rows[REDRIVE], pa.scalar(None, pa.int64())),
        )
        self._replace({REDRIVE: redrives, REDRIVEN_AT: redriven_times(rows, earlier, now)})
        self._stored = self._read()

    def mark(self, finished_redrive: int, now: datetime) -> None:
        """Mark the records that are in the dataset; call it after the dataset's commit.

        Args:
            finished_redrive: The last redrive that the dataset has committed.
            now: The current time, timezone aware.

        Raises:
            ConcurrentWriterError: The quarantine changed since; the next redrive marks them.
            StorageError: The store failed.
        """
        rows = self._stored.rows
        times = redriven_times(rows, redriven_by_now(rows, finished_redrive), now)
        if times.null_count != rows[REDRIVEN_AT].null_count:
            self._replace({REDRIVEN_AT: times})

    def _read(self) -> StreamedRows:
        return StreamedRows(self._table, SCHEMA, _OF_A_REDRIVE)

    def _replace(self, values: Mapping[str, pa.ChunkedArray]) -> None:
        self._stored.replace(
            values,
            commit=transaction(self._app_id, self.number),
            doing=f"Redriving records of {self._dataset_id!r}",
        )
