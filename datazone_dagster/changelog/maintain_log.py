"""Keeps the change log small: joins old files, removes those that are replaced or forgotten.

Done by the drain after it has landed, a bounded piece at a time. Readers are safe: a
replaced file stays for hours after its commit. A writer that commits meanwhile wins, and
the piece is done again by a later drain.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from datazone_dagster.changelog.files import folder_of, write_file
from datazone_dagster.changelog.orphan_files import buckets_to_look_through, delete_orphan_files
from datazone_dagster.changelog.schema import SCHEMA, WRITTEN_SCHEMA, bucket_of
from datazone_dagster.delta import DataFile, filesystem, guarded, read_rows, transaction
from datazone_dagster.model.column_names import Log

RETENTION_HOURS = 3
"""How long replaced files stay: longer than a run reads one version of the change log."""

CONFIGURATION = {
    "delta.logRetentionDuration": "interval 1 hours",
    # What the log no longer tells of can't be deleted: it has to tell of a replaced file for
    # longer than from one deletion to the next. Each makes opening the table a little slower.
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS + 2} hours",
}

_READ_SCHEMA = pa.schema([SCHEMA.field(name) for name in WRITTEN_SCHEMA.names])


def join_files(
    table: DeltaTable, storage_options: Mapping[str, str], files: Sequence[DataFile]
) -> None:
    """Replace files that are neighbours in one bucket by one with the same rows.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing changed.
        StorageError: The store failed; the files stand as before.
    """
    with guarded(table.table_uri, f"Joining {len(files)} files of the change log"):
        bucket = bucket_of(files[0].minimum[Log.BATCH])
        parts = _row_groups(table, storage_options, files)
        store = filesystem(table, storage_options)
        joined = write_file(store, bucket, parts, data_change=False)
        commit = CommitProperties(max_commit_retries=0)
        _commit(table, [joined] if joined else [], files, data_change=False, commit=commit)


def remove_files(table: DeltaTable, files: Sequence[DataFile], truncate_app_id: str) -> None:
    """Take files, and the changes in them, out of the change log for good.

    The last batch that goes is recorded as the transaction version of `truncate_app_id`.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing changed.
        StorageError: The store failed; the files stand as before.
    """
    with guarded(table.table_uri, f"Removing {len(files)} files of applied changes"):
        through_batch = max(file.maximum[Log.BATCH] for file in files)
        commit = transaction(truncate_app_id, through_batch)
        _commit(table, [], files, data_change=True, commit=commit)


def delete_unreferenced_files(
    table: DeltaTable, storage_options: Mapping[str, str], first_batch: int, head: int
) -> None:
    """Delete files that were replaced or removed more than `RETENTION_HOURS` ago, and strays.

    Args:
        table: The change log.
        storage_options: Of its store.
        first_batch: The oldest batch that it has.
        head: The last one.

    Raises:
        StorageError: The store failed; what is left goes next time.
    """
    with guarded(table.table_uri, "Deleting replaced files of the change log"):
        table.vacuum(
            retention_hours=RETENTION_HOURS, enforce_retention_duration=False, dry_run=False
        )
        this_hour = int(time.time()) // 3600
        buckets = buckets_to_look_through(bucket_of(first_batch), bucket_of(head), this_hour)
        folders = [folder_of(bucket) for bucket in buckets]
        delete_orphan_files(table, storage_options, folders, timedelta(hours=RETENTION_HOURS))


def expired_files(
    files: Sequence[DataFile], applied_batch: int, created_before: datetime
) -> list[DataFile]:
    """The oldest files, as far as every dataset has applied them and all changes are old enough.

    From the front only, so that what is left has no hole. Records that are no changes have no
    time: a file of them alone is as old as it was written, which is after they were created.
    """
    expired: list[DataFile] = []
    for file in files:
        newest = file.maximum.get(Log.EVENT_TIME, file.written_at)
        if file.maximum[Log.BATCH] > applied_batch or newest >= created_before:
            break
        expired.append(file)
    return expired


def _row_groups(
    table: DeltaTable, storage_options: Mapping[str, str], files: Sequence[DataFile]
) -> Iterator[pa.Table]:
    for _, rows in read_rows(table, storage_options, files, _READ_SCHEMA):
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
    # The handle does not see its own commit.
    table.load_as_version(table.version() + 1)
