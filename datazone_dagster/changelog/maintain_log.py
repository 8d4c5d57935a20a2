"""Maintenance of the change log: joins old files, removes replaced and expired ones.

The drain does this after it has landed, a bounded piece at a time. Readers are safe: a
replaced file stays for hours after its commit. A writer that commits meanwhile wins the race,
and a later drain repeats the piece.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pyarrow as pa
from deltalake.transaction import AddAction

from datazone_dagster.changelog.files import add_action, folder_of, write_file
from datazone_dagster.changelog.orphan_files import buckets_to_search, delete_orphan_files
from datazone_dagster.changelog.schema import SCHEMA, WRITTEN_SCHEMA, bucket_of
from datazone_dagster.changelog.set_commits import sets_in
from datazone_dagster.changelog.slot_parts import ranges_in
from datazone_dagster.delta import Commit, guarded, transaction
from datazone_dagster.delta.commit import FileActions, commit_files
from datazone_dagster.delta.log_upkeep import NO_CLEANING, clean_log, vacuum
from datazone_dagster.delta.read_rows import read_rows
from datazone_dagster.delta.rebase import Independent
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.table_file import DataFile

RETENTION_HOURS = 3
"""Hours that replaced files stay: longer than a run reads one version of the change log."""

LOG_RETENTION = timedelta(hours=1)
"""Time for which entries of the Delta log stay."""

CONFIGURATION = {
    **NO_CLEANING,
    "delta.logRetentionDuration": "interval 1 hours",
    # Only a file that the Delta log still lists can be deleted: a replaced file has to stay listed
    # for longer than the time between two deletions. Listed files make opening the table slower.
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS + 2} hours",
}

_READ_SCHEMA = pa.schema([SCHEMA.field(name) for name in WRITTEN_SCHEMA.names])


def join_files(snapshot: Snapshot, files: Sequence[DataFile], source: str) -> Snapshot:
    """Replace neighbouring files of one bucket with one file of the same rows.

    Returns:
        The change log after it.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing changed.
        StorageError: The store failed; the files are as before.
    """
    with guarded(snapshot.store.uri, f"Joining {len(files)} files of the change log"):
        bucket = bucket_of(files[0].minimum[Log.BATCH])
        tables = _rows(snapshot.store, files)
        by_slots = ranges_in(snapshot.configuration)
        joined = write_file(snapshot.store, bucket, tables, data_change=False, by_slots=by_slots)
        return _commit(snapshot, joined, files, source, operation="OPTIMIZE", data_change=False)


def remove_files(
    snapshot: Snapshot, files: Sequence[DataFile], truncate_app_id: str, source: str
) -> Snapshot:
    """Remove files, and the changes in them, from the change log for good.

    The last batch removed is recorded as the transaction version of `truncate_app_id`.

    Returns:
        The change log after it.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing changed.
        StorageError: The store failed; the files are as before.
    """
    with guarded(snapshot.store.uri, f"Removing {len(files)} files of applied changes"):
        through_batch = max(file.maximum[Log.BATCH] for file in files)
        commit = transaction(truncate_app_id, through_batch)
        return _commit(
            snapshot, None, files, source, operation="DELETE", data_change=True, commit=commit
        )


def delete_unreferenced_files(
    table: KeptTable, snapshot: Snapshot, first_batch: int, head: int
) -> None:
    """Delete files replaced or removed more than `RETENTION_HOURS` ago, orphans and old entries.

    Args:
        table: The change log.
        snapshot: Its newest version.
        first_batch: Oldest batch in the log.
        head: Last batch in the log.

    Raises:
        StorageError: The store failed; the next call deletes the remaining files.
    """
    with guarded(table.uri, "Deleting replaced files of the change log"):
        clean_log(snapshot, LOG_RETENTION)
        vacuum(table, snapshot, RETENTION_HOURS)
        this_hour = int(time.time()) // 3600
        buckets = buckets_to_search(bucket_of(first_batch), bucket_of(head), this_hour)
        folders = [folder_of(bucket) for bucket in buckets]
        delete_orphan_files(snapshot, folders, timedelta(hours=RETENTION_HOURS))


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
    snapshot: Snapshot,
    added: AddAction | None,
    removed: Sequence[DataFile],
    source: str,
    *,
    operation: str,
    data_change: bool,
    commit: Commit | None = None,
) -> Snapshot:
    adds = [] if added is None else [add_action(added)]
    removes = [snapshot.by_identity[file.path, None] for file in removed]
    return commit_files(
        snapshot,
        FileActions(adds, removes, data_change=data_change),
        operation=operation,
        parameters={"predicate": "[]"},
        metrics={"numRemovedFiles": len(removes), "numAddedFiles": len(adds)},
        properties=commit,
        independent=_lets_land(source) if sets_in(snapshot.transactions, source) else None,
    )


def _lets_land(source: str) -> Independent:
    """Return which writers add files only: with several drains, one nearly always comes first."""
    return lambda app_id: app_id.startswith((f"drain/{source}", f"scan/{source}"))
