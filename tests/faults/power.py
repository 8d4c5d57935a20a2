"""A machine that loses power: of what no `fsync` has put on the disk, some is lost.

POSIX promises nothing about the rest. File systems put names on the disk before contents, and
files in any order: after a loss of power a new file is there, or empty, or gone.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path


class Disk:
    """What of a folder is on the disk: `fsync` is the system's own, and is taken note of.

    Args:
        root: The folder; its own name is on the disk.
        seed: What decides which of the other files and names the disk has, too.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._dice = random.Random(seed)
        self._contents: dict[int, tuple[int, int]] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._fsync = os.fsync

    def take_note(self) -> None:
        """Take note of every `fsync` of this process from now on."""
        os.fsync = self._sync  # type: ignore[assignment]  # what it does is the same

    def all_is_written(self) -> None:
        """The system has written everything meanwhile, as it does within a minute."""
        for folder, _, files in os.walk(self._root):
            self._note_names(Path(folder))
            for name in files:
                self._note_content((Path(folder) / name).stat())

    def lose_power(self) -> None:
        """Lose some of what is not on the disk."""
        for path in sorted(self._root.rglob("*"), key=lambda one: (len(one.parts), one)):
            if not path.exists():
                continue  # lost with its folder
            found = path.stat()
            names = self._names.get(path.parent.stat().st_ino, {})
            if names.get(path.name) != found.st_ino and self._dice.random() < 0.3:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.is_file() and self._contents.get(found.st_ino) != _content(found):
                path.write_bytes(b"" if self._dice.random() < 0.7 else path.read_bytes())

    def _sync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._note_names(descriptor)
        else:
            self._note_content(found)

    def _note_names(self, folder: Path | int) -> None:
        inode = os.fstat(folder).st_ino if isinstance(folder, int) else folder.stat().st_ino
        with os.scandir(folder) as entries:
            self._names[inode] = {entry.name: entry.inode() for entry in entries}

    def _note_content(self, found: os.stat_result) -> None:
        self._contents[found.st_ino] = _content(found)


def _content(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def power_cut(root: Path, wanted: str, seed: int) -> Callable[[str], None]:
    """Return a hook for `crash_points` that cuts the power at the nth time of a point.

    The system has written everything before the time before that one.

    Args:
        root: Folder of the tables.
        wanted: Name of the point, and which time, from 2 on: "after read#2".
        seed: Decides what is lost.
    """
    name, _, nth = wanted.partition("#")
    disk, reached = Disk(root, seed), 0
    disk.take_note()

    def cut(point: str) -> None:
        nonlocal reached
        reached += point == name
        if point == name and reached == int(nth) - 1:
            disk.all_is_written()
        if point == name and reached == int(nth):
            disk.lose_power()
            os.kill(os.getpid(), signal.SIGKILL)

    return cut
