"""Upkeep of a Delta log: checkpoints often enough, and old entries deleted, by us alone.

Opening a table reads the entries since the newest checkpoint. delta-rs makes checkpoints after
some of its own commits only; most commits are ours. So are most checkpoints: delta-rs reads the
whole log for one, with about a hundred requests. Its log cleaning is switched off by `NO_CLEANING`:
it lists the whole log at each of its commits.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pyarrow as pa

from datazone_dagster.delta.durable_files import UNNAMED
from datazone_dagster.delta.intervals import CHECKPOINT_EVERY, CHECKPOINT_INTERVAL
from datazone_dagster.delta.log_checkpoint import (
    checkpoint_file,
    has_hidden_partitions,
    needs_delta_rs,
)
from datazone_dagster.delta.log_files import ENTRY, LOG, complete_checkpoints, entry_path
from datazone_dagster.delta.put_entry import require_same_table
from datazone_dagster.delta.removed_files import checkpoint_path, removes_in_checkpoint
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import Snapshot, snapshot_at

NO_CLEANING = {"delta.enableExpiredLogCleanup": "false"}
"""Table property with which no other writer cleans the log."""


_FILES_PER_COMMIT = 250
"""Files of a table that may be repeated in a checkpoint for each commit since the last one."""


def checkpoint_due(snapshot: Snapshot, every: int = CHECKPOINT_EVERY) -> bool:
    """Return whether opening the table would read `every` entries or more.

    Checkpoints of a table with thousands of files are rarer: each repeats all of them.
    """
    made = -1 if snapshot.checkpoint_version is None else snapshot.checkpoint_version
    large = min(len(snapshot.by_identity) // _FILES_PER_COMMIT, CHECKPOINT_INTERVAL)
    return snapshot.version - made >= max(every, large)


def make_checkpoint(table: KeptTable, snapshot: Snapshot) -> Snapshot:
    """Write a checkpoint of this version, and return the version as read from it.

    It costs a look at the newest entry, a read of the checkpoint before, and two writes.

    Raises:
        ConcurrentWriterError: The table was made again; nothing was written.
        DeltaError: The log can't be read.
        StorageError: The log can't be read.
        OSError: The store failed; the log is as before, or has the checkpoint.
    """
    require_same_table(snapshot)
    if needs_delta_rs(snapshot) or not _write_checkpoint(snapshot):
        handle = table.handle(snapshot)
        handle.create_checkpoint()
        table.give_back(handle)
        snapshot.store.sync(f"{LOG}/{name}" for name in snapshot.store.names(LOG))
    table.checkpoint_made(snapshot.version)
    return snapshot.with_checkpoint(snapshot.version)


def _write_checkpoint(snapshot: Snapshot) -> bool:
    """Write a checkpoint; return whether it is written: one in another form may be in its way."""
    found = _with_removes(snapshot)
    if found is None:
        return False
    made = checkpoint_file(*found, datetime.now(timezone.utc))
    snapshot.store.replace(checkpoint_path(snapshot.version), made.content)
    snapshot.store.replace(f"{LOG}/_last_checkpoint", made.hint)
    return True


def _with_removes(snapshot: Snapshot) -> tuple[Snapshot, pa.StructArray | None] | None:
    """Return the table with all its removed files: what is kept of it, or else as read anew.

    Returns:
        The table, and the removed files of the checkpoint before; None if delta-rs has to read it.
    """
    with suppress(FileNotFoundError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if snapshot.remainder.is_complete and not has_hidden_partitions(snapshot):
            return snapshot, removes_in_checkpoint(snapshot)
    with suppress(FileNotFoundError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        anew = snapshot_at(snapshot.store, snapshot.version)
        if anew.remainder.is_complete:
            return anew, removes_in_checkpoint(anew)
    return None


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
    now = table.now()  # delta-rs commits its start and its end
    if now is not None:
        snapshot.store.sync(map(entry_path, range(snapshot.version + 1, now.version + 1)))


def clean_log(snapshot: Snapshot, retention: timedelta) -> int:
    """Delete the entries and checkpoints that no version within the retention needs.

    So are files that a killed process left before they had their name, once they are as old.

    Every version that was written within the retention can still be opened: the newest checkpoint
    that is older stays, and everything after it. All times are the store's.

    Args:
        snapshot: Newest version of the table.
        retention: Time for which versions stay, before the newest commit.

    Returns:
        Number of entries and checkpoints deleted, in files.

    Raises:
        OSError: The store failed; the next call deletes the remaining files.
    """
    found = snapshot.store.files_in(LOG)
    times = {file.path.removeprefix(f"{LOG}/"): file.modified_at for file in found}
    newest = times.get(entry_path(snapshot.version).removeprefix(f"{LOG}/"))
    if newest is None:
        return 0
    before = newest - retention
    snapshot.store.delete(
        f"{LOG}/{name}" for name in times if UNNAMED.fullmatch(name) and times[name] < before
    )
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
