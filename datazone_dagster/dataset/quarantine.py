"""Records that a dataset could not take: stored raw, with the reason, until they are redriven.

A record is stored once, however often its chunk is retried or its shard is read again. Its
identity is its position in the stream; for a scanned item, its version and key; for what is no
record, its text. A redrive pins the records under a number, commits the dataset under the same
number, and then marks them: if a process dies in between, the next redrive compares the numbers
and completes the marks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.delta import Table, create_table, guarded, open_table, transaction
from datazone_dagster.delta.read_table import last_transaction, scanned
from datazone_dagster.delta.write_table import overwrite_rows, upsert_rows
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import SCAN_SHARD_ID
from datazone_dagster.rows.align import aligned

KIND = "quarantine"

RECORD_ID = "record_id"
FIRST_SEEN_AT = "first_seen_at"
LAST_SEEN_AT = "last_seen_at"
REDRIVE = "redrive"
"""Number of the redrive that took the record, or is about to; null while the record waits."""
REDRIVEN_AT = "redriven_at"
"""Time at which the record was committed to the dataset."""

_OURS = frozenset({RECORD_ID, FIRST_SEEN_AT, LAST_SEEN_AT, REDRIVE, REDRIVEN_AT})
"""Columns that a record does not have in the change log."""

_TIME = pa.timestamp("us", tz="UTC")
_TEXT_COLUMNS = (
    Log.STREAM_ARN,
    Log.SHARD_ID,
    Log.PARENT_SHARD_ID,
    Log.VERSION,
    Log.EVENT_ID,
    Log.EVENT_NAME,
    Log.KEYS,
    Log.OLD_IMAGE,
    Log.NEW_IMAGE,
    Log.USER_TYPE,
    Log.USER_PRINCIPAL,
    Log.REGION,
    Log.VIEW_TYPE,
    Log.RAW,
    Log.REASON,
)
SCHEMA = pa.schema(
    [
        pa.field(RECORD_ID, pa.string(), nullable=False),
        pa.field(Log.BATCH, pa.int64(), nullable=False),
        *(pa.field(name, pa.string()) for name in _TEXT_COLUMNS),
        pa.field(Log.EVENT_TIME, _TIME),
        pa.field(Log.SIZE_BYTES, pa.int64()),
        pa.field(FIRST_SEEN_AT, _TIME, nullable=False),
        pa.field(LAST_SEEN_AT, _TIME, nullable=False),
        pa.field(REDRIVE, pa.int64()),
        pa.field(REDRIVEN_AT, _TIME),
    ]
)
_CONFIGURATION = {
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
            ConcurrentWriterError: Another run wrote to the quarantine meanwhile.
            StorageError: The store failed.
        """
        if not len(changes):
            return 0
        rows = _first_of_each(_rows(changes, now))
        table = self._open() or create_table(
            self.uri,
            self._storage_options,
            KIND,
            SCHEMA,
            configuration=_CONFIGURATION,
            description=f"Records that dataset {self._dataset_id} could not take. "
            "Written by datazone_dagster only.",
        )
        with guarded(self.uri, f"Quarantining records of dataset {self._dataset_id!r}"):
            return upsert_rows(
                table,
                rows,
                on=RECORD_ID,
                replaced_columns=(LAST_SEEN_AT, Log.REASON, REDRIVE, REDRIVEN_AT),
            )

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
        rows = schema.empty_table() if table is None else _read(table, schema)
        if through_batch is not None:
            rows = rows.filter(pc.less_equal(rows[Log.BATCH], through_batch))
        return _waiting(rows, finished_redrive).select(list(columns))

    def waiting_count(self, finished_redrive: int = 0) -> int:
        """Count the records that `waiting` would return, without reading the records."""
        table = self._open()
        if table is None:
            return 0
        marks = scanned(table, [REDRIVE, REDRIVEN_AT]).read_all()
        return len(_waiting(marks, finished_redrive))

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
        return None if table is None else Redrive(self._dataset_id, self._app_id, table)

    def _open(self) -> Table | None:
        return open_table(self.uri, self._storage_options, KIND)


class Redrive:
    """One attempt to redrive quarantined records, on one version of the quarantine."""

    def __init__(self, dataset_id: str, app_id: str, table: Table) -> None:
        self._dataset_id = dataset_id
        self._app_id = app_id
        self._table = table
        self._rows = _read(table)
        self.number = last_transaction(table, app_id) + 1
        """The number under which the dataset has to commit these records."""

    def records(self, finished_redrive: int) -> pa.Table:
        """Return the records that wait, oldest first, with the change log's columns.

        Args:
            finished_redrive: The last redrive that the dataset has committed: records pinned
                under a higher number never reached it.
        """
        rows = _waiting(self._rows, finished_redrive)
        return rows.sort_by([(Log.BATCH, "ascending"), (Log.VERSION, "ascending")])

    def pin(self, records: pa.Table, finished_redrive: int, now: datetime) -> None:
        """Record which records this redrive takes; call it before the commit of the dataset.

        Raises:
            ConcurrentWriterError: The quarantine changed since; nothing was written.
            StorageError: The store failed.
        """
        taken = pc.is_in(self._rows[RECORD_ID], records[RECORD_ID].combine_chunks())
        earlier = _redriven_by_now(self._rows, finished_redrive)
        redrives = pc.if_else(
            taken,
            pa.scalar(self.number, pa.int64()),
            pc.if_else(earlier, self._rows[REDRIVE], pa.scalar(None, pa.int64())),
        )
        times = _times(self._rows, earlier, now)
        marks = {REDRIVE: redrives, REDRIVEN_AT: times}
        self._replace(aligned(self._rows, SCHEMA, marks), self.number)

    def mark(self, finished_redrive: int, now: datetime) -> None:
        """Mark the records that are in the dataset; call it after the dataset's commit.

        Args:
            finished_redrive: The last redrive that the dataset has committed.
            now: The current time, timezone aware.

        Raises:
            ConcurrentWriterError: The quarantine changed since; the next redrive marks them.
            StorageError: The store failed.
        """
        arrived = _redriven_by_now(self._rows, finished_redrive)
        times = _times(self._rows, arrived, now)
        if times.null_count != self._rows[REDRIVEN_AT].null_count:
            self._replace(aligned(self._rows, SCHEMA, {REDRIVEN_AT: times}), self.number)

    def _replace(self, rows: pa.Table, version: int) -> None:
        with guarded(self._table.table_uri, f"Redriving records of {self._dataset_id!r}"):
            overwrite_rows(self._table, rows, transaction(self._app_id, version))
        self._rows = rows


def _read(table: Table, schema: pa.Schema = SCHEMA) -> pa.Table:
    return aligned(scanned(table, schema.names).read_all(), schema)


def _redriven_by_now(rows: pa.Table, finished_redrive: int) -> pa.ChunkedArray:
    return pc.fill_null(pc.less_equal(rows[REDRIVE], finished_redrive), False)


def _waiting(rows: pa.Table, finished_redrive: int) -> pa.Table:
    done = pc.or_(pc.is_valid(rows[REDRIVEN_AT]), _redriven_by_now(rows, finished_redrive))
    return rows.filter(pc.invert(done))


def _times(rows: pa.Table, arrived: pa.ChunkedArray, now: datetime) -> pa.ChunkedArray:
    """Return `redriven_at`: unchanged where it is set, `now` where a record has arrived."""
    fresh = pc.and_(arrived, pc.is_null(rows[REDRIVEN_AT]))
    return pc.if_else(fresh, pa.scalar(now, _TIME), rows[REDRIVEN_AT])


def _rows(changes: pa.Table, now: datetime) -> pa.Table:
    time = pa.scalar(now, _TIME)
    ours = {RECORD_ID: _record_ids(changes), FIRST_SEEN_AT: time, LAST_SEEN_AT: time}
    records = changes.select([name for name in SCHEMA.names if name not in _OURS])
    return aligned(records, SCHEMA, ours)


def _record_ids(changes: pa.Table) -> pa.Array:
    columns = (Log.STREAM_ARN, Log.SHARD_ID, Log.VERSION, Log.RAW, Log.KEYS)
    identities = zip(*(changes[name].to_pylist() for name in columns), strict=True)
    return pa.array([_record_id(*identity) for identity in identities])


def _record_id(arn: str, shard: str, version: str | None, raw: str | None, keys: str | None) -> str:
    # A record that is not a stream record may have any number: its text identifies it.
    parts = [arn, shard, raw or version or ""]
    if shard == SCAN_SHARD_ID and not raw:
        parts.append(keys or "")  # all items of a scan have the same version
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _first_of_each(rows: pa.Table) -> pa.Table:
    """Return the first row of each record: a merge would insert an unmatched one twice."""
    first = {record: at for at, record in reversed(list(enumerate(rows[RECORD_ID].to_pylist())))}
    return rows.take(pa.array(sorted(first.values()), pa.int64()))
