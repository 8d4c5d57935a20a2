"""Files that no commit ever named: of a drain that lost a race, or died before its commit.

Such a file is not deleted when its commit fails: the answer alone may be lost, and the commit
stand. It goes once it can't be committed any more. A writer here commits by the version that it
opened before it wrote its file, or not at all, so a file older than the newest commit has had
its chance; some hours are added to that. All times are the store's, and no clock counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from deltalake import DeltaTable

from datazone_dagster.delta.orphans import orphan_files
from datazone_dagster.delta.transaction_log import Snapshot, entry_path, read_snapshot

NEWEST_BUCKETS = 4
OTHER_BUCKETS = 4
"""How many partitions of the change log one look lists: one request of the store each."""


def delete_orphan_files(
    table: DeltaTable, storage_options: Mapping[str, str], folders: Iterable[str], kept: timedelta
) -> list[str]:
    """Delete files right in some folders that the table never had.

    Args:
        table: The table, at a version that it has or had.
        storage_options: Of its store.
        folders: Which to look through, relative to the table; the root is "".
        kept: For how long before the newest commit files stay all the same; no shorter than
            replaced files stay.

    Returns:
        The paths that went.

    Raises:
        OSError: The store failed; what is left goes another time.
    """
    snapshot = read_snapshot(table, storage_options)
    committed_at = newest_commit_at(snapshot)
    if committed_at is None:
        return []
    found = orphan_files(snapshot, committed_at - kept, folders)
    snapshot.store.delete(found)
    return found


def newest_commit_at(snapshot: Snapshot) -> datetime | None:
    """When the store got the entry of this version; None if the entry is gone."""
    entry = snapshot.store.filesystem.get_file_info(entry_path(snapshot.version))
    found: datetime | None = entry.mtime
    return found


def buckets_to_look_through(first: int, last: int, turn: int) -> list[int]:
    """Some of the partitions `first` to `last`: the newest always, the others by turns."""
    newest = range(max(first, last + 1 - NEWEST_BUCKETS), last + 1)
    others = range(first, newest.start)
    if len(others) <= OTHER_BUCKETS:
        return [*others, *newest]
    start = turn * OTHER_BUCKETS
    return [*(others[(start + n) % len(others)] for n in range(OTHER_BUCKETS)), *newest]
