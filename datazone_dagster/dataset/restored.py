"""Rows and position of a dataset after a RESTORE of its table.

RESTORE brings back the files and the properties of an older version, not its transactions: the
position would be that of newer rows, and the changes in between would be missing for good. So until
a run has committed again, the position is the one of the version that was restored.
"""

from __future__ import annotations

from threading import Lock

from datazone_dagster.dataset.properties import apply_app_id, erase_app_id, rebuild_app_id
from datazone_dagster.delta.log_files import entry_actions, entry_path
from datazone_dagster.delta.restore import Restore, restore_in
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import Snapshot, snapshot_at
from datazone_dagster.errors import StorageError

LOOKED_BACK = 50
"""Entries below a checkpoint that are searched for the last commit of an application."""


def version_of_rows(table: Snapshot, source: str, app_id: str | None = None) -> Snapshot:
    """Return the version that the rows are from: another one after a RESTORE.

    Args:
        table: The table.
        source: Name of the dataset's source.
        app_id: Application id of the position of a bucket; None: of the position of all keys.

    Raises:
        StorageError: The position of the restored rows is not known, or runs can't continue there.
    """
    found, app_id = table, app_id or apply_app_id(source)
    while (restore := _last_restore(found, app_id)) is not None:
        if restore.target is None:
            raise _unknown(table, restore, "the log does not say to which version")
        try:
            found = snapshot_at(table.store, restore.target)
        except StorageError as error:
            raise _unknown(table, restore, error.what) from error
        for mark, what in (
            (rebuild_app_id(source), "it was rebuilt"),
            (erase_app_id(source), "keys were erased from it"),
            (f"redrive/{source}", "quarantined records were redriven into it"),
        ):
            if found.transaction(mark) != table.transaction(mark):
                raise _unknown(table, restore, f"{what} after version {restore.target}")
    return found


def _last_restore(snapshot: Snapshot, app_id: str) -> Restore | None:
    """Return the last RESTORE since the last commit of an application; None if there is none.

    Entries below the checkpoint are read only if none above it answers the question.

    Raises:
        OSError: The store failed.
    """
    if app_id in snapshot.committed or not snapshot.transaction(app_id):
        return None
    if snapshot.restore is not None or snapshot.checkpoint_version is None:
        return snapshot.restore
    newest = snapshot.checkpoint_version
    key = (str(snapshot.metadata.get("id")), newest)
    with _lock:
        if key not in _below_checkpoints:
            if len(_below_checkpoints) >= _REMEMBERED:
                _below_checkpoints.clear()
            _below_checkpoints[key] = _Below(newest)
        return _below_checkpoints[key].last_restore(snapshot.store, app_id)


class _Below:
    """Entries from a checkpoint downwards, each read once, and only as far as was asked."""

    def __init__(self, newest: int) -> None:
        self._next = newest
        self._end = max(newest - LOOKED_BACK, -1)
        self._committed = set[str]()
        self._restore: Restore | None = None

    def last_restore(self, store: TableStore, app_id: str) -> Restore | None:
        """Return what `_last_restore` does, of these entries."""
        while app_id not in self._committed and self._next > self._end:
            content = store.read(entry_path(self._next))
            actions = [] if content is None else entry_actions(content)
            self._committed.update(one["txn"]["appId"] for one in actions if one.get("txn"))
            self._restore = restore_in(self._next, actions)
            self._next = self._end if self._restore or not actions else self._next - 1
        return None if app_id in self._committed else self._restore


_REMEMBERED = 1000
_below_checkpoints: dict[tuple[str, int], _Below] = {}
"""What was found below checkpoints, by table and version: it does not change."""
_lock = Lock()


def _unknown(table: Snapshot, restore: Restore, reason: str) -> StorageError:
    of = "" if restore.target is None else f" to version {restore.target}"
    dataset_id = table.store.uri.rstrip("/").rpartition("/")[2]
    return StorageError(
        f"The dataset at {table.store.uri} was restored{of} by commit {restore.version}, and runs "
        f"can't apply the changes since then: {reason}.",
        safe="Nothing was written; the change log has the changes.",
        hint=f"Run `datazone-dagster rebuild {dataset_id}`, or restore the table to version "
        f"{restore.version - 1}, the one before.",
    )
