"""The store fails: a commit that fails or whose answer is lost, a full disk, a read-only directory.

Commits fail at the named points around them, once, so a test sees the same every time. The
disk and the directory are real: the kernel refuses, whichever library writes.
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
    """Within the block, the nth commit to a kind of table fails; nothing of it is kept.

    Args:
        to: Which kind. A drain commits to the change log and then to the checkpoint table, a
            run to a dataset once a chunk.
        nth: Which commit of that kind. A drain that finds no records counts too.

    Raises:
        DefinitionError: There is no such kind.
    """
    with _fails_once(to, _BEFORE, nth, "the commit was refused"):
        yield


@contextmanager
def answer_lost(to: TableKind, nth: int = 1) -> Iterator[None]:
    """Within the block, the nth commit to a kind of table happens, but its answer is lost.

    The writer sees the same as with `commit_fails`: only the table tells the two apart.

    Args:
        to: As for `commit_fails`.
        nth: Which commit of that kind. Only commits that happen count.

    Raises:
        DefinitionError: There is no such kind.
    """
    with _fails_once(to, _AFTER, nth, "no answer to the commit"):
        yield


@contextmanager
def _fails_once(to: str, points: dict[str, str], nth: int, what: str) -> Iterator[None]:
    if to not in points:
        raise DefinitionError(
            f"{to!r} is no kind of table that a commit goes to.",
            hint=f"One of {', '.join(points)}.",
        )

    def fail() -> None:
        raise StorageError(
            f"Scripted: {what} ({to}).",
            safe="The change log and earlier commits are untouched.",
            hint="Drain and apply again: the table tells whether this commit happened.",
        )

    with at_point(points[to], fail, nth):
        yield


@contextmanager
def full_disk(*, file_bytes: int = 0) -> Iterator[None]:
    """Within the block, this process can write no file past a size, as on a disk that is full.

    The limit is the kernel's (RLIMIT_FSIZE) and holds for everything that the process writes to
    files, its captured output included: don't print in the block. Other processes, a local
    DynamoDB for instance, are not touched unless they are started in it.

    Args:
        file_bytes: What still fits. With 0 nothing does; a few hundred bytes let small log
            entries through and cut data files short.

    Raises:
        DefinitionError: This system has no such limit.
    """
    try:
        import resource
    except ImportError as error:
        raise DefinitionError("This system has no limit on the size of files.") from error
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so a write past the limit is an error, not the end.
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(directory: Path | str) -> Iterator[None]:
    """Within the block, nothing can be made, replaced or deleted in a directory and those below.

    Permissions do it. Root may write in spite of them: for root the directories are also marked
    as immutable (Linux, `chattr +i`), which takes a file system that knows it and the capability
    CAP_LINUX_IMMUTABLE. A process that is killed in the block leaves them so;
    `chattr -R -i DIRECTORY` undoes it.

    Args:
        directory: A lakehouse, or one of its tables.

    Raises:
        DefinitionError: There is no such directory, or it can't be shut for this process.
    """
    if not Path(directory).is_dir():
        raise DefinitionError(
            f"There is no directory {str(directory)!r}.",
            hint="Drain and apply once before, so that the tables are there.",
        )
    with ExitStack() as undo:
        # From below: in a directory that is shut, those below could not be shut any more.
        for path, _, _ in os.walk(directory, topdown=False):
            below = Path(path)
            undo.callback(below.chmod, below.stat().st_mode & 0o7777)
            below.chmod(below.stat().st_mode & 0o555)
            if os.geteuid() == 0:
                _mark(below, immutable=True)
                undo.callback(_mark, below, immutable=False)
        yield


_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
"""Of ioctl(2) for inode flags on 64-bit Linux."""


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
            safe="It is as it was.",
            hint="Run this test as another user, or with the capability CAP_LINUX_IMMUTABLE.",
        ) from error
    finally:
        os.close(handle)
