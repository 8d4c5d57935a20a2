"""Maintenance of the change log: joins old files, removes replaced and expired ones.

The drain does this after it has landed, a bounded piece at a time. Readers are safe: a
replaced file stays for hours after its commit. A writer that commits meanwhile wins the race,
and a later drain repeats the piece.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from datazone_dagster.changelog.files import folder_of, write_file
from datazone_dagster.changelog.orphan_files import buckets_to_search, delete_orphan_files
from datazone_dagster.changelog.schema import SCHEMA, WRITTEN_SCHEMA, bucket_of
from datazone_dagster.delta import guarded, transaction
from datazone_dagster.delta.read_rows import read_rows
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.table_file import DataFile

RETENTION_HOURS = 3
"""Hours that replaced files stay: longer than a run reads one version of the change log."""

CONFIGURATION = {
    "delta.logRetentionDuration": "interval 1 hours",
    # Only a file that the Delta log still lists can be deleted: a replaced file has to stay listed
    # for longer than the time between two deletions. Listed files make opening the table slower.
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS + 2} hours",
}

_READ_SCHEMA = pa.schema([SCHEMA.field(name) for name in WRITTEN_SCHEMA.names])


def join_files(
    table: DeltaTable, storage_options: Mapping[str, str], files: Sequence[DataFile]
) -> None:
    """Replace neighbouring files of one bucket with one file of the same rows.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing changed.
        StorageError: The store failed; the files are as before.
    """
    with guarded(table.table_uri, f"Joining {len(files)} files of the change log"):
        bucket = bucket_of(files[0].minimum[Log.BATCH])
        store = TableStore(table.table_uri, storage_options)
        joined = write_file(store, bucket, _rows(store, files), data_change=False)
        commit = CommitProperties(max_commit_retries=0)
        _commit(table, [joined] if joined else [], files, data_change=False, commit=commit)


def remove_files(table: DeltaTable, files: Sequence[DataFile], truncate_app_id: str) -> None:
    """Remove files, and the changes in them, from the change log for good.

    The last batch removed is recorded as the transaction version of `truncate_app_id`.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing changed.
        StorageError: The store failed; the files are as before.
    """
    with guarded(table.table_uri, f"Removing {len(files)} files of applied changes"):
        through_batch = max(file.maximum[Log.BATCH] for file in files)
        commit = transaction(truncate_app_id, through_batch)
        _commit(table, [], files, data_change=True, commit=commit)


def delete_unreferenced_files(
    table: DeltaTable, storage_options: Mapping[str, str], first_batch: int, head: int
) -> None:
    """Delete files replaced or removed more than `RETENTION_HOURS` ago, and orphan files.

    Args:
        table: The change log.
        storage_options: Options of the table's store.
        first_batch: Oldest batch in the log.
        head: Last batch in the log.

    Raises:
        StorageError: The store failed; the next call deletes the remaining files.
    """
    with guarded(table.table_uri, "Deleting replaced files of the change log"):
        table.vacuum(
            retention_hours=RETENTION_HOURS, enforce_retention_duration=False, dry_run=False
        )
        this_hour = int(time.time()) // 3600
        buckets = buckets_to_search(bucket_of(first_batch), bucket_of(head), this_hour)
        folders = [folder_of(bucket) for bucket in buckets]
        delete_orphan_files(table, storage_options, folders, timedelta(hours=RETENTION_HOURS))


def expired_files(
    files: Sequence[DataFile], applied_batch: int, created_before: datetime
) -> list[DataFile]:
    """Return the oldest files that every dataset has applied and whose changes are all old enough.

    Files expire from the front only, so that the remaining log has no hole. Malformed records have
    no event time: a file of them alone counts as old as its write, which is after their creation.
    """
    expired: list[DataFile] = []
    for file in files:
        newest = file.maximum.get(Log.EVENT_TIME, file.written_at)
        if file.maximum[Log.BATCH] > applied_batch or newest >= created_before:
            break
        expired.append(file)
    return expired


def _rows(store: TableStore, files: Sequence[DataFile]) -> Iterator[pa.Table]:
    for _, rows in read_rows(store, files, _READ_SCHEMA):
        yield rows.cast(WRITTEN_SCHEMA)


def _commit(
    table: DeltaTable,
    added: Sequence[AddAction],
    removed: Sequence[DataFile],
    *,
    data_change: bool,
    commit: CommitProperties,
) -> None:
    removals = [
        RemoveAction(
            file.path,
            data_change,
            time.time_ns() // 1_000_000,
            file.size_bytes,
            {name: str(value) for name, value in file.partition.items()},
        )
        for file in removed
    ]
    table.create_write_transaction(
        [*added, *removals],
        mode="append",
        schema=SCHEMA,
        partition_by=[Log.BUCKET],
        commit_properties=commit,
    )
    # The handle does not see its own commit by itself.
    table.load_as_version(table.version() + 1)
