"""Orphan files of a table: replaced files, and files of writers that died before their commit.

The vacuum of delta-rs finds neither deletion vectors nor files that were never committed. A
file is an orphan if the table does not have it, no version within the retention had it, and it
was written before the retention: all files of a writer that is still running are younger. These
are the rules of Delta's own VACUUM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from urllib.parse import unquote

from datazone_dagster.delta.log_files import Action
from datazone_dagster.delta.removed_files import removals
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.delta.vectors import Vector

_OURS = (".parquet", ".bin")


def orphan_files(
    snapshot: Snapshot, before: datetime, folders: Iterable[str] | None = None
) -> list[str]:
    """Return the paths of the files that can be deleted, relative to the table.

    Args:
        snapshot: Newest version of the table.
        before: Time before which files are outside the retention.
        folders: Folders whose direct files are searched, and which need not exist; None searches
            all folders.

    Raises:
        OSError: The store failed.
    """
    referenced = set(_referenced(snapshot, before.timestamp() * 1000))
    store = snapshot.store
    found = (
        store.files_below()
        if folders is None
        else [file for folder in folders for file in store.files_in(folder)]
    )
    return sorted(
        file.path
        for file in found
        if file.path.endswith(_OURS)
        and not _is_hidden(file.path)
        and file.path not in referenced
        and file.modified_at < before
    )


def _is_hidden(path: str) -> bool:
    """Return whether the path is in a folder of the log, the change data feed, or someone else's.

    Such folders start with `_` or `.`.
    """
    return any(name.startswith(("_", ".")) and "=" not in name for name in path.split("/"))


def _referenced(snapshot: Snapshot, oldest_ms: float) -> Iterator[str]:
    for file in snapshot.files:
        yield from _paths(snapshot, file.add)
    for removal in removals(snapshot):
        if removal.get("deletionTimestamp", 0) >= oldest_ms:
            yield from _paths(snapshot, removal)


def _paths(snapshot: Snapshot, action: Action) -> Iterator[str]:
    yield unquote(action["path"])
    vector = action.get("deletionVector")
    if vector is not None and vector["storageType"] != "i":
        root = snapshot.store.uri.rstrip("/") + "/"
        yield Vector.of_action(vector).path.removeprefix(root)
