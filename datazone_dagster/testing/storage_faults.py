"""Storage faults: a commit fails or loses its answer, a disk is full, a directory read-only.

Commits fail at the named points around them, once, so a test sees the same every time. The
faults of disk and directory are real: the kernel refuses, whichever library writes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from datazone_dagster.errors import DefinitionError, StorageError
from datazone_dagster.process import crash_points
from datazone_dagster.testing.crashes import at_point

TableKind = Literal["change log", "checkpoint", "dataset"]

_BEFORE: dict[str, str] = {
    "change log": crash_points.AFTER_READ,
    "checkpoint": crash_points.AFTER_CHANGE_LOG_COMMIT,
    "dataset": crash_points.BEFORE_DATASET_COMMIT,
}
_AFTER: dict[str, str] = {
    "change log": crash_points.AFTER_CHANGE_LOG_COMMIT,
    "checkpoint": crash_points.AFTER_CHECKPOINT_COMMIT,
    "dataset": crash_points.AFTER_DATASET_COMMIT,
}


@contextmanager
def commit_fails(to: TableKind, nth: int = 1) -> Iterator[None]:
    """Fail the nth commit to a kind of table within the block; nothing of it is stored.

    Args:
        to: Kind of table. A drain commits to the change log and then to the checkpoint table, a
            run to a dataset once per chunk.
        nth: Number of the commit of that kind, from 1. A drain that finds no records counts too.

    Raises:
        DefinitionError: The kind does not exist.
    """
    with _fails_once(to, _BEFORE, nth, "the commit was refused"):
        yield


@contextmanager
def answer_lost(to: TableKind, nth: int = 1) -> Iterator[None]:
    """Lose the answer of the nth commit to a kind of table within the block; the commit succeeds.

    The writer sees the same as with `commit_fails`: only the table shows the difference.

    Args:
        to: Kind of table, as for `commit_fails`.
        nth: Number of the commit of that kind, from 1. Only commits that happen count.

    Raises:
        DefinitionError: The kind does not exist.
    """
    with _fails_once(to, _AFTER, nth, "no answer to the commit"):
        yield


@contextmanager
def _fails_once(to: str, points: dict[str, str], nth: int, what: str) -> Iterator[None]:
    if to not in points:
        raise DefinitionError(
            f"{to!r} is not a kind of table that receives commits.",
            hint=f"Use one of {', '.join(points)}.",
        )

    def fail() -> None:
        raise StorageError(
            f"Scripted: {what} ({to}).",
            safe="The change log and earlier commits are untouched.",
            hint="Drain and apply again: the table shows whether this commit happened.",
        )

    with at_point(points[to], fail, nth):
        yield


@contextmanager
def full_disk(*, file_bytes: int = 0) -> Iterator[None]:
    """Limit the size of every file that this process writes within the block, as on a full disk.

    The limit is the kernel's (RLIMIT_FSIZE) and applies to everything that the process writes to
    files, its captured output included: don't print in the block. Other processes, such as a
    local DynamoDB, are not affected unless the block starts them.

    Args:
        file_bytes: Size that still fits. With 0 nothing fits; a few hundred bytes let small log
            entries through and cut data files short.

    Raises:
        DefinitionError: This system has no such limit.
    """
    try:
        import resource
    except ImportError as error:
        raise DefinitionError("This system has no limit on the size of files.") from error
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so a write past the limit raises an error; the process survives.
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(directory: Path | str) -> Iterator[None]:
    """Make a directory and those below it read-only within the block.

    Permissions prevent files from being created, replaced or deleted. Root can write in spite of
    permissions: for root the directories are also marked as immutable (Linux, `chattr +i`), which
    requires a file system that supports the mark and the capability CAP_LINUX_IMMUTABLE. A process
    killed in the block leaves the directories immutable; `chattr -R -i DIRECTORY` undoes it.

    Args:
        directory: Lakehouse, or one of its tables.

    Raises:
        DefinitionError: The directory does not exist, or can't be made read-only for this process.
    """
    if not Path(directory).is_dir():
        raise DefinitionError(
            f"There is no directory {str(directory)!r}.",
            hint="Drain and apply once first, so that the tables exist.",
        )
    with ExitStack() as undo:
        # Bottom up: directories below an immutable one could not be changed any more.
        for path, _, _ in os.walk(directory, topdown=False):
            below = Path(path)
            undo.callback(below.chmod, below.stat().st_mode & 0o7777)
            below.chmod(below.stat().st_mode & 0o555)
            if os.geteuid() == 0:
                _mark(below, immutable=True)
                undo.callback(_mark, below, immutable=False)
        yield


_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
"""Requests of ioctl(2) for inode flags on 64-bit Linux, and the flag of an immutable inode."""


def _mark(directory: Path, *, immutable: bool) -> None:
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(handle, _GET_FLAGS, struct.pack("l", 0)))
        flags = flags | _IMMUTABLE if immutable else flags & ~_IMMUTABLE
        fcntl.ioctl(handle, _SET_FLAGS, struct.pack("l", flags))
    except OSError as error:
        raise DefinitionError(
            f"{directory} can't be made read-only for root: {error.strerror}.",
            safe="The directory is unchanged.",
            hint="Run this test as another user, or with the capability CAP_LINUX_IMMUTABLE.",
        ) from error
    finally:
        os.close(handle)
