"""Facts of the files of a store, and the listing of a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the store lists it.

    Args:
        path: Path relative to the table.
        size_bytes: Size of the file.
        modified_at: Time of its last write, by the store's clock.
    """

    path: str
    size_bytes: int
    modified_at: datetime


def stored_file(path: str, facts: os.stat_result) -> StoredFile:
    """Return the facts of a local file."""
    modified_at = datetime.fromtimestamp(facts.st_mtime, timezone.utc)
    return StoredFile(path, facts.st_size, modified_at)


def local_files(root: Path, folder: Path, *, recursive: bool = True) -> Iterator[StoredFile]:
    """Yield the files of a local folder; those that vanish meanwhile are left out.

    Args:
        root: Folder that the paths are relative to.
        folder: Folder to list, which need not exist.
        recursive: Whether the folders in it are listed as well.
    """
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if recursive:
                    yield from local_files(root, folder / entry.name)
            elif entry.is_file():
                with suppress(FileNotFoundError):
                    path = (folder / entry.name).relative_to(root).as_posix()
                    yield stored_file(path, entry.stat())
