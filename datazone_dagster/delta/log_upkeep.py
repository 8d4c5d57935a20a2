"""Upkeep of a Delta log: checkpoints often enough, and old entries deleted, by us alone.

Opening a table reads the entries since the newest checkpoint. delta-rs makes checkpoints after
some of its own commits only; most commits are ours. Its log cleaning is switched off by
`NO_CLEANING`: it lists the whole log at each of its commits.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from datazone_dagster.delta import CHECKPOINT_EVERY
from datazone_dagster.delta.log_files import ENTRY, LOG, complete_checkpoints, entry_path
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import Snapshot

NO_CLEANING = {"delta.enableExpiredLogCleanup": "false"}
"""Table property with which no other writer cleans the log."""


def checkpoint_due(snapshot: Snapshot, every: int = CHECKPOINT_EVERY) -> bool:
    """Return whether opening the table would read `every` entries or more."""
    made = -1 if snapshot.checkpoint_version is None else snapshot.checkpoint_version
    return snapshot.version - made >= every


def make_checkpoint(table: KeptTable, snapshot: Snapshot) -> Snapshot:
    """Write a checkpoint of this version, and return the version as read from it.

    Raises:
        DeltaError: The log can't be read.
        OSError: The store failed; the log is as before.
    """
    handle = table.handle(snapshot)
    handle.create_checkpoint()
    table.checkpoint_made(snapshot.version)
    table.give_back(handle)
    return replace(snapshot, checkpoint_version=snapshot.version)


def vacuum(table: KeptTable, snapshot: Snapshot, hours: int) -> None:
    """Delete the files that were replaced more than some hours ago and are still in the log.

    The kept state is at the newest version afterwards.

    Raises:
        DeltaError: The log can't be read.
        OSError: The store failed.
    """
    handle = table.handle(snapshot)
    handle.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=False)
    table.give_back(handle)
    table.now()  # delta-rs commits its start and its end


def clean_log(snapshot: Snapshot, retention: timedelta) -> int:
    """Delete the entries and checkpoints that no version within the retention needs.

    Every version that was written within the retention can still be opened: the newest checkpoint
    that is older stays, and everything after it. All times are the store's.

    Args:
        snapshot: Newest version of the table.
        retention: Time for which versions stay, before the newest commit.

    Returns:
        Number of files deleted.

    Raises:
        OSError: The store failed; the next call deletes the remaining files.
    """
    found = snapshot.store.files_in(LOG)
    times = {file.path.removeprefix(f"{LOG}/"): file.modified_at for file in found}
    newest = times.get(entry_path(snapshot.version).removeprefix(f"{LOG}/"))
    if newest is None:
        return 0
    before = newest - retention
    old = [
        one
        for one in complete_checkpoints(times)
        if one.version <= snapshot.version and all(times[name] < before for name in one.names)
    ]
    if not old:
        return 0
    first = max(one.version for one in old)
    # Oldest first: wherever this is interrupted, an entry is gone before the one after it, so a
    # process that slept finds that its own entry is gone.
    entries = sorted(name for name in times if ENTRY.fullmatch(name) and int(name[:20]) < first)
    checkpoints = [name for one in old if one.version < first for name in one.names]
    expired = [f"{LOG}/{name}" for name in (*entries, *checkpoints) if times[name] < before]
    snapshot.store.delete(expired)
    return len(expired)
