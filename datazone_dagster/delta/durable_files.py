"""Local files that outlast a loss of power.

A file system writes contents some seconds after names, and files in any order: after a loss of
power, a new file may be empty, while one that was written later is complete. A change log whose
newest entry is lost, below a dataset that has applied it, would lose the changes that get its
number. So a log entry gets its name once its content is on the disk, and the files that it names.
"""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_NOT_FOR_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF}
"""Errors of file systems and users that can't sync a folder: names are up to the system there."""

UNNAMED = re.compile(r".+#[0-9]+")
"""Names of files that are being written, or were when their process was killed."""

_LAKEHOUSE_LEVELS = 3
"""Folders above a table that are made with it: `_changelog`, the lakehouse, and where that is."""


def create_file(path: Path, content: bytes) -> bool:
    """Create a file and its folders; return False, and change nothing, if there is such a file.

    Raises:
        OSError: The disk failed, or is full; there is no such file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = _written(path, content)
    try:
        os.link(unnamed, path)
    except FileExistsError:
        return False
    finally:
        unnamed.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes) -> None:
    """Create a file and its folders, or replace it: it is the old one or the new one.

    Raises:
        OSError: The disk failed, or is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = _written(path, content)
    try:
        unnamed.replace(path)
    finally:
        unnamed.unlink(missing_ok=True)
    _sync_folder(path.parent)


def sync_files(root: Path, paths: Iterable[str]) -> None:
    """Have files outlast a loss of power: their contents, and their names up to the root.

    Args:
        root: Folder of the table.
        paths: Paths below it. Files and folders that are gone are skipped.

    Raises:
        OSError: The disk failed.
    """
    folders = {root}
    for path in map(root.joinpath, paths):
        with suppress(FileNotFoundError):
            _sync(path)
            folders.update(one for one in path.parents if root in one.parents)
    for folder in sorted(folders, key=lambda one: len(one.parts), reverse=True):
        with suppress(FileNotFoundError):
            _sync_folder(folder)


def sync_new_table(root: Path, paths: Iterable[str]) -> None:
    """Have the first files of a table outlast a loss of power, and the folders that it is in."""
    sync_files(root, paths)
    for folder in root.parents[:_LAKEHOUSE_LEVELS]:
        _sync_folder(folder)


def _written(path: Path, content: bytes) -> Path:
    """Write a file next to this one; object_store and delta-rs list no file of such a name."""
    unnamed = path.with_name(f"{path.name}#{random.SystemRandom().getrandbits(63)}")
    try:
        with open(unnamed, "xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError:
        unnamed.unlink(missing_ok=True)
        raise
    return unnamed


def _sync_folder(path: Path) -> None:
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
