"""Records that a dataset could not take: kept raw, with the reason, until they are redriven.

A record is here once, however often its chunk is retried or its shard is read again: by its
place in the stream, or, if it is no stream record, by its text. A redrive pins the records
under a number, commits the dataset under the same number, and then marks them: a process
that dies in between is put right by the next redrive, which compares the numbers.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties, write_deltalake

from datazone_dagster.delta import create_table, guarded, open_table, transaction
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout

KIND = "quarantine"

RECORD_ID = "record_id"
FIRST_SEEN_AT = "first_seen_at"
LAST_SEEN_AT = "last_seen_at"
REDRIVE = "redrive"
"""The redrive that took the record, or is about to; null while it waits."""
REDRIVEN_AT = "redriven_at"
"""When the record got into the dataset."""

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
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class Quarantine:
    """The quarantine of one dataset."""

    def __init__(self, layout: Layout, dataset_id: str) -> None:
        self.uri = layout.quarantine(dataset_id)
        self._storage_options = layout.storage_options
        self._dataset_id = dataset_id
        self._app_id = "redrive"

    def put(self, changes: pa.Table, now: datetime) -> int:
        """Add change log rows that carry a `reason`; known ones get a new `last_seen_at`.

        A record that was redriven and fails anew waits again.

        Args:
            changes: Rows with the change log's columns.
            now: The time, timezone aware.

        Returns:
            How many were new.

        Raises:
            ConcurrentWriterError: Another run wrote to the quarantine meanwhile.
            StorageError: The store failed.
        """
        if not len(changes):
            return 0
        rows = _once(_rows(changes, now))
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
            merged: dict[str, Any] = (
                table.merge(
                    rows,
                    predicate=f"t.{RECORD_ID} = s.{RECORD_ID}",
                    source_alias="s",
                    target_alias="t",
                    streamed_exec=False,
                    writer_properties=_WRITER,
                )
                .when_matched_update(
                    {
                        LAST_SEEN_AT: f"s.{LAST_SEEN_AT}",
                        Log.REASON: f"s.{Log.REASON}",
                        REDRIVE: f"s.{REDRIVE}",
                        REDRIVEN_AT: f"s.{REDRIVEN_AT}",
                    }
                )
                .when_not_matched_insert_all()
                .execute()
            )
        return int(merged["num_target_rows_inserted"])

    def waiting(self, finished_redrive: int = 0, *, through_batch: int | None = None) -> pa.Table:
        """The records that wait to be redriven, by the table as it is now.

        Args:
            finished_redrive: The last redrive that the dataset has committed.
            through_batch: Only those of this batch and earlier ones.
        """
        table = self._open()
        rows = SCHEMA.empty_table() if table is None else _read(table)
        if through_batch is not None:
            rows = rows.filter(pc.less_equal(rows[Log.BATCH], through_batch))
        return _waiting(rows, finished_redrive)

    def waiting_count(self, finished_redrive: int = 0) -> int:
        """How many records `waiting` would give, without reading the records themselves."""
        table = self._open()
        if table is None:
            return 0
        marks = pa.table(table.scan(columns=[REDRIVE, REDRIVEN_AT]))
        return len(_waiting(marks, finished_redrive))

    def oldest_waiting(self) -> datetime | None:
        """When the oldest record that waits was made, or first seen; None if none waits."""
        waiting = self.waiting()
        times = (pc.min(waiting[name]).as_py() for name in (Log.EVENT_TIME, FIRST_SEEN_AT))
        return min((time for time in times if time is not None), default=None)

    def start_redrive(self) -> Redrive | None:
        """What waits now, for one redrive; None if there is no quarantine.

        Raises:
            StorageError: The table can't be read.
        """
        table = self._open()
        return None if table is None else Redrive(self._dataset_id, self._app_id, table)

    def _open(self) -> DeltaTable | None:
        return open_table(self.uri, self._storage_options, KIND)


class Redrive:
    """One attempt to bring quarantined records back, on one version of the quarantine."""

    def __init__(self, dataset_id: str, app_id: str, table: DeltaTable) -> None:
        self._dataset_id = dataset_id
        self._app_id = app_id
        self._table = table
        self._rows = _read(table)
        self.number = (table.transaction_version(app_id) or 0) + 1
        """The number under which the dataset has to commit these records."""

    def records(self, finished_redrive: int) -> pa.Table:
        """The records that wait, oldest first, with the change log's columns.

        Args:
            finished_redrive: The last redrive that the dataset has committed: what was pinned
                under a higher number never got there.
        """
        rows = _waiting(self._rows, finished_redrive)
        return rows.sort_by([(Log.BATCH, "ascending"), (Log.VERSION, "ascending")])

    def pin(self, records: pa.Table, finished_redrive: int, now: datetime) -> None:
        """Say which records this redrive takes. Comes before the commit of the dataset.

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
        marked = _with(self._rows, REDRIVE, redrives)
        self._replace(_with(marked, REDRIVEN_AT, _times(marked, earlier, now)), self.number)

    def mark(self, finished_redrive: int, now: datetime) -> None:
        """Mark the records that are in the dataset. Comes after its commit.

        Args:
            finished_redrive: The last redrive that the dataset has committed.
            now: The time, timezone aware.

        Raises:
            ConcurrentWriterError: The quarantine changed since; the next redrive marks them.
            StorageError: The store failed.
        """
        arrived = _redriven_by_now(self._rows, finished_redrive)
        times = _times(self._rows, arrived, now)
        if times.null_count != self._rows[REDRIVEN_AT].null_count:
            self._replace(_with(self._rows, REDRIVEN_AT, times), self.number)

    def _replace(self, rows: pa.Table, version: int) -> None:
        with guarded(self._table.table_uri, f"Redriving records of {self._dataset_id!r}"):
            write_deltalake(
                self._table,
                rows,
                mode="overwrite",
                writer_properties=_WRITER,
                commit_properties=transaction(self._app_id, version),
            )
        self._rows = rows


def _read(table: DeltaTable) -> pa.Table:
    return pa.table(table.scan()).select(SCHEMA.names).cast(SCHEMA)


def _redriven_by_now(rows: pa.Table, finished_redrive: int) -> pa.ChunkedArray:
    return pc.fill_null(pc.less_equal(rows[REDRIVE], finished_redrive), False)


def _waiting(rows: pa.Table, finished_redrive: int) -> pa.Table:
    done = pc.or_(pc.is_valid(rows[REDRIVEN_AT]), _redriven_by_now(rows, finished_redrive))
    return rows.filter(pc.invert(done))


def _times(rows: pa.Table, arrived: pa.ChunkedArray, now: datetime) -> pa.ChunkedArray:
    """`redriven_at`: kept where it is set, now where a record has arrived."""
    fresh = pc.and_(arrived, pc.is_null(rows[REDRIVEN_AT]))
    return pc.if_else(fresh, pa.scalar(now, _TIME), rows[REDRIVEN_AT])


def _with(rows: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), SCHEMA.field(name), values)


def _rows(changes: pa.Table, now: datetime) -> pa.Table:
    times = pa.repeat(pa.scalar(now, _TIME), len(changes))
    ours: dict[str, pa.Array] = {
        RECORD_ID: _record_ids(changes),
        FIRST_SEEN_AT: times,
        LAST_SEEN_AT: times,
        REDRIVE: pa.nulls(len(changes), pa.int64()),
        REDRIVEN_AT: pa.nulls(len(changes), _TIME),
    }
    return pa.table(
        [
            ours[field.name] if field.name in ours else changes[field.name].cast(field.type)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )


def _record_ids(changes: pa.Table) -> pa.Array:
    places = zip(
        changes[Log.STREAM_ARN].to_pylist(),
        changes[Log.SHARD_ID].to_pylist(),
        changes[Log.VERSION].to_pylist(),
        # The number of a record that is no stream record may be anything: the text counts.
        changes[Log.RAW].to_pylist(),
        strict=True,
    )
    return pa.array(
        [
            hashlib.sha256("\0".join((arn, shard, raw or version or "")).encode()).hexdigest()[:32]
            for arn, shard, version, raw in places
        ]
    )


def _once(rows: pa.Table) -> pa.Table:
    """The first row of each record: a merge would insert an unmatched one twice."""
    first = {record: at for at, record in reversed(list(enumerate(rows[RECORD_ID].to_pylist())))}
    return rows.take(pa.array(sorted(first.values()), pa.int64()))
