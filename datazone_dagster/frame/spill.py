"""Folders for what DuckDB spills, and the end of those whose process was killed.

A process that is killed removes nothing. Each folder has a file that its process holds locked,
and the system lets go of a lock with its process, whatever ended it. So a later process of ours
takes a folder away if it gets the lock. Process numbers would not do: those of another container
that shares the temporary folder mean nothing here, a lock is known to all of them.
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
"""A folder without a lock is being made, or its process was killed while it made it."""


class SpillFolder:
    """A new folder in the temporary folder, ours until `remove`, or until this process ends."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix=PREFIX))
        making = self._root / f"{_LOCK}.new"
        lock = os.open(making, os.O_RDWR | os.O_CREAT, 0o600)
        self.remove = weakref.finalize(self, _remove, self._root, lock)
        """Delete it with all that is in it; at the latest this is done when the process ends."""
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Locked before it has its name: nobody else can come first.
        making.rename(self._root / _LOCK)

    @property
    def path(self) -> str:
        """Where DuckDB may put files; it makes the folder when it has the first."""
        return str(self._root / "spilled")


def _remove(root: Path, lock: int) -> None:
    shutil.rmtree(root, ignore_errors=True)
    os.close(lock)


def remove_abandoned() -> None:
    """Delete the folders of this user that no living process holds. It never fails.

    Several processes may do this at once, here and in other containers.
    """
    with os.scandir(tempfile.gettempdir()) as entries:
        folders = [entry for entry in entries if entry.name.startswith(PREFIX)]
    for folder in folders:
        try:
            if folder.is_dir(follow_symlinks=False) and _is_mine(folder):
                _remove_if_abandoned(Path(folder.path))
        except OSError:
            continue  # its process removes it right now, or it is not for us to remove


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
