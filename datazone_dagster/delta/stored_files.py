"""Facts of the files of a store, and the listing of a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote, urlsplit

UNKNOWN = "?"
"""Identity of the files of a store that tells no e_tag: its files are all alike."""


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


def identity_of_tag(e_tag: str | None) -> str:
    """Return an e_tag without quotes, which Azure's listing leaves out."""
    return (e_tag or UNKNOWN).strip('"')


def identity_of_file(found: os.stat_result) -> str:
    """Return inode, time and size of a local file."""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def local_folder(uri: str) -> Path | None:
    """Return the folder of a local URI; a plain path is taken as it is, `#`, `?` and `%` too."""
    if "://" not in uri:
        return Path(uri)
    split = urlsplit(uri)
    return Path(unquote(split.path)) if split.scheme == "file" else None
