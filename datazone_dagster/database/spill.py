"""Folders for the files that DuckDB spills, and removal of the folders of killed processes.

A killed process removes nothing. Each folder has a file that its process keeps locked, and the
system releases a lock when its process ends, for whatever reason. A later process that gets the
lock may therefore remove the folder. Process ids would not work: containers that share the
temporary folder do not share process ids, but do see the same locks.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

PREFIX = "datazone-frame-"

_LOCK = "lock"

_UNLOCKED_FOR_SECONDS = 3600.0
"""Minimum age of a folder without a lock file to be removed: a younger one may be in the making."""


class SpillFolder:
    """A new spill folder in the temporary folder, locked until `remove` or the process ends."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix=PREFIX))
        unnamed = self._root / f"{_LOCK}.new"
        lock = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
        self.remove = weakref.finalize(self, _remove, self._root, lock)
        """Delete the folder with its content; called at the latest when the process ends."""
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Locked before the file has its final name: no other process can get the lock first.
        unnamed.rename(self._root / _LOCK)

    @property
    def path(self) -> str:
        """Folder for DuckDB's files; DuckDB makes it for its first file."""
        return str(self._root / "spilled")


def _remove(root: Path, lock: int) -> None:
    shutil.rmtree(root, ignore_errors=True)
    os.close(lock)


def remove_abandoned() -> None:
    """Delete this user's folders that no living process has locked. Never fails.

    Several processes may call this at once, on this machine and in other containers.
    """
    with os.scandir(tempfile.gettempdir()) as entries:
        folders = [entry for entry in entries if entry.name.startswith(PREFIX)]
    for folder in folders:
        try:
            if folder.is_dir(follow_symlinks=False) and _is_mine(folder):
                _remove_if_abandoned(Path(folder.path))
        except OSError:
            continue  # removed by its own process meanwhile, or this process lacks the permission


def _is_mine(folder: os.DirEntry[str]) -> bool:
    return folder.stat(follow_symlinks=False).st_uid == os.geteuid()


def _remove_if_abandoned(root: Path) -> None:
    try:
        lock = os.open(root / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - root.stat().st_mtime > _UNLOCKED_FOR_SECONDS:
            shutil.rmtree(root, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(root, ignore_errors=True)
    finally:
        os.close(lock)
