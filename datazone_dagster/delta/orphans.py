"""Files in a table's folder that nothing refers to any more: replaced ones, and those of writers
that died. Vacuum of delta-rs finds neither deletion vectors nor what was never committed.

A file goes if the table has it not, no version of the retention had it, and it was written
before the retention: a writer that is at work now has only younger ones. These are the rules
of Delta's own VACUUM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from urllib.parse import unquote

import pyarrow.fs as pafs

from datazone_dagster.delta.transaction_log import Action, Snapshot, removals
from datazone_dagster.delta.vectors import Vector

_OURS = (".parquet", ".bin")


def orphan_files(
    snapshot: Snapshot, before: datetime, folders: Iterable[str] | None = None
) -> list[str]:
    """Paths of the files that can go, relative to the table.

    Args:
        snapshot: The newest version of the table.
        before: The end of the retention.
        folders: Only what is right in these folders, which need not exist; None: in all.

    Raises:
        OSError: The store failed.
    """
    kept = set(_referred(snapshot, before.timestamp() * 1000))
    selectors = (
        [pafs.FileSelector("", recursive=True)]
        if folders is None
        else [pafs.FileSelector(folder, allow_not_found=True) for folder in folders]
    )
    return sorted(
        info.path
        for selector in selectors
        for info in snapshot.store.filesystem.get_file_info(selector)
        if info.is_file
        and info.path.endswith(_OURS)
        and not _is_hidden(info.path)
        and info.path not in kept
        and info.mtime is not None
        and info.mtime < before
    )


def _is_hidden(path: str) -> bool:
    """Folders that start with `_` are the log's, the change data feed's, or someone else's."""
    return any(part.startswith(("_", ".")) and "=" not in part for part in path.split("/"))


def _referred(snapshot: Snapshot, oldest_ms: float) -> Iterator[str]:
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
