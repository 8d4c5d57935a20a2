"""Orphan files: written by a drain that lost the commit race, or died before its commit.

Such a file is not deleted when its commit fails: only the answer may be lost, and the commit may
have happened. The file is deleted once it can't be committed any more. A writer here commits on
the version that it opened before it wrote its file, or not at all, so a file older than the
newest commit can no longer be committed; some hours are added as a margin. All times are the
store's; no local clock counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from datazone_dagster.delta.orphans import orphan_files
from datazone_dagster.delta.transaction_log import Snapshot, entry_path

NEWEST_BUCKETS = 4
OTHER_BUCKETS = 4
"""Partitions of the change log that one search lists: one request to the store each."""


def delete_orphan_files(
    snapshot: Snapshot,
    folders: Iterable[str],
    retention: timedelta,
) -> list[str]:
    """Delete files directly in some folders that the table never had.

    Args:
        snapshot: The table, at a version that it has or had.
        folders: Folders to search, relative to the table; the root is "".
        retention: Time before the newest commit within which files stay anyway; no shorter than
            the retention of replaced files.

    Returns:
        Paths of the deleted files.

    Raises:
        OSError: The store failed; a later call deletes the remaining files.
    """
    committed_at = newest_commit_at(snapshot)
    if committed_at is None:
        return []
    found = orphan_files(snapshot, committed_at - retention, folders)
    snapshot.store.delete(found)
    return found


def newest_commit_at(snapshot: Snapshot) -> datetime | None:
    """Return the store's time of this version's log entry; None if the entry is gone."""
    entry = snapshot.store.find(entry_path(snapshot.version))
    return None if entry is None else entry.modified_at


def buckets_to_search(first: int, last: int, turn: int) -> list[int]:
    """Return partitions among `first` to `last`: the newest always, the others by turns."""
    newest = range(max(first, last + 1 - NEWEST_BUCKETS), last + 1)
    others = range(first, newest.start)
    if len(others) <= OTHER_BUCKETS:
        return [*others, *newest]
    start = turn * OTHER_BUCKETS
    return [*(others[(start + n) % len(others)] for n in range(OTHER_BUCKETS)), *newest]
