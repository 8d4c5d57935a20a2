"""The folder of a table: files by path, and the atomic put of a log entry.

A local folder is read by Arrow, an object store by obstore: the storage handler of delta-rs makes
several requests for a file, and no thread of the process runs until they are answered.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cached_property

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from datazone_dagster.delta.conditional_writes import require_conditional_writes
from datazone_dagster.delta.durable_files import (
    create_file,
    replace_file,
    sync_files,
    sync_new_table,
)
from datazone_dagster.delta.remote_files import (
    SMALL_BYTES,
    FileCache,
    by_blocks,
    by_ranges,
    delete_objects,
    upload_to,
)
from datazone_dagster.delta.store_access import object_store
from datazone_dagster.delta.store_errors import storage_error, store_calls
from datazone_dagster.delta.stored_files import (
    StoredFile,
    identity_of_file,
    identity_of_tag,
    local_files,
    local_folder,
    stored_file,
)
from datazone_dagster.delta.time_limits import REQUESTS, UPLOADS
from datazone_dagster.errors import DefinitionError

_READERS = 20
"""Number of small files read concurrently."""

_CACHE = FileCache()


class TableStore:
    """Files below one table's root.

    Args:
        uri: Location of the table, as spelled by delta-rs (`file:///...`, `s3://...`).
        storage_options: Options as given to delta-rs. Never printed.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str]) -> None:
        self.uri = uri
        self._root = uri.rstrip("/")
        self._options = dict(storage_options)
        self._local = local_folder(uri)
        self.shares_blocks = False
        """Whether readers of large files, which follow each other, share what was read."""

    @property
    def is_local(self) -> bool:
        """Whether the folder is local: reading a range of a file then costs no request."""
        return self._local is not None

    def open(self, path: str, size_bytes: int | None = None) -> pa.NativeFile:
        """Open a file that never changes for random access reads.

        Args:
            path: Path of the file.
            size_bytes: Size of the file, if it is known: it saves a request for a large file.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The store failed.
        """
        if self._local is not None:
            return pa.OSFile(str(self._local / path))
        content = _CACHE.get(self._root, path)
        if content is not None:
            return pa.BufferReader(content)
        if size_bytes is None or size_bytes <= SMALL_BYTES:
            with self._calls():
                found = obstore.get(self._objects, path)
                size_bytes = found.meta["size"]
                if size_bytes <= SMALL_BYTES:
                    content = pa.py_buffer(found.bytes())
                    _CACHE.put(self._root, path, content)
                    return pa.BufferReader(content)
        if self.shares_blocks:
            objects = self._objects
            return by_blocks(objects, path, size_bytes, self._calls, _CACHE, self._root)
        return by_ranges(self._objects, path, size_bytes, self._calls)

    def open_small(self, path: str) -> pa.NativeFile:
        """Open a file for random access reads after one request; all of it may be in memory.

        Raises:
            OSError: The store failed, or there is no such file.
        """
        if self._local is not None:
            return self.open(path)
        content = self.read(path)
        if content is None:
            raise FileNotFoundError(f"{path} is missing")
        return pa.BufferReader(content)

    def read(self, path: str) -> bytes | None:
        """Read a small file completely; None if there is none."""
        found = self.read_identified(path)
        return None if found is None else found[0]

    def read_constant(self, path: str) -> bytes | None:
        """Read a small file that never changes; None if there is none.

        A process that has read or written it asks an object store for it only once.
        """
        if self._local is not None:
            return self.read(path)
        known = _CACHE.get(self._root, path)
        if known is None:
            found = self.read(path)
            if found is None:
                return None
            known = pa.py_buffer(found)
            _CACHE.put(self._root, path, known)
        content: bytes = known.to_pybytes()
        return content

    def read_all(self, paths: Iterable[str]) -> list[bytes | None]:
        """Read small files completely, several at once where each costs a request."""
        return [None if one is None else one[0] for one in self.read_all_identified(paths)]

    def read_identified(self, path: str) -> tuple[bytes, str] | None:
        """Read a small file completely, in one request; None if there is none.

        Returns:
            Content and identity of the file: see `identity_of`.

        Raises:
            OSError: The store failed.
        """
        with suppress(FileNotFoundError), self._calls():
            if self._local is not None:
                with open(self._local / path, "rb") as handle:
                    return handle.read(), identity_of_file(os.fstat(handle.fileno()))
            found = obstore.get(self._objects, path)
            return bytes(found.bytes()), identity_of_tag(found.meta["e_tag"])
        return None

    def read_all_identified(self, paths: Iterable[str]) -> list[tuple[bytes, str] | None]:
        """As `read_identified`, several files at once where each costs a request."""
        wanted = list(paths)
        if self.is_local or len(wanted) < 2:
            return [self.read_identified(path) for path in wanted]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.read_identified, wanted))

    def identity_of(self, path: str) -> str | None:
        """Return what tells a file from any other one that was ever at its path.

        Returns:
            Inode, time and size of a local file, else the store's e_tag; None if there is no file.

        Raises:
            OSError: The store failed.
        """
        with suppress(FileNotFoundError), self._calls():
            if self._local is not None:
                return identity_of_file(os.stat(self._local / path))
            return identity_of_tag(obstore.head(self._objects, path)["e_tag"])
        return None

    def identities_after(self, folder: str, name: str) -> dict[str, str]:
        """List the files directly in a folder whose names come after `name`, with identities.

        Raises:
            OSError: The store failed.
        """
        if self._local is not None:
            found = {one: self.identity_of(f"{folder}/{one}") for one in self.names(folder)}
            return {one: known for one, known in found.items() if one > name and known is not None}
        with self._calls():
            listed = [
                one
                for some in obstore.list(
                    self._objects, folder, offset=f"{folder}/{name}", chunk_size=1000
                )
                for one in some
            ]
        tags = {one["path"].removeprefix(f"{folder}/"): one["e_tag"] for one in listed}
        # Not every store honours the offset.
        later = [one for one in tags if one > name and "/" not in one]
        return {one: identity_of_tag(tags[one]) for one in later}

    def find(self, path: str) -> StoredFile | None:
        """Return the facts of a file; None if there is none.

        Raises:
            OSError: The store failed.
        """
        with suppress(FileNotFoundError), self._calls():
            if self._local is not None:
                return stored_file(path, (self._local / path).stat())
            found = obstore.head(self._objects, path)
            return StoredFile(path, found["size"], found["last_modified"])
        return None

    def files_below(self, folder: str = "") -> list[StoredFile]:
        """Return the files below a folder and its folders; none if there is no such folder.

        Raises:
            OSError: The store failed.
        """
        with self._calls():
            if self._local is not None:
                return list(local_files(self._local, self._local / folder))
            return [
                StoredFile(one["path"], one["size"], one["last_modified"])
                for some in obstore.list(self._objects, prefix=folder or None)
                for one in some
            ]

    def files_in(self, folder: str) -> list[StoredFile]:
        """Return the files directly in a folder; none if there is no such folder.

        Raises:
            OSError: The store failed.
        """
        with self._calls():
            if self._local is not None:
                return list(local_files(self._local, self._local / folder, recursive=False))
            found = obstore.list_with_delimiter(self._objects, prefix=folder or None)
        return [
            StoredFile(one["path"], one["size"], one["last_modified"]) for one in found["objects"]
        ]

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder."""
        return [file.path.rpartition("/")[2] for file in self.files_in(folder)]

    def folders(self) -> list[str]:
        """Return the names of the folders directly below the root; none if there is no root.

        Raises:
            OSError: The store failed.
        """
        with self._calls():
            if self._local is not None:
                found = self._local.iterdir() if self._local.is_dir() else iter(())
                return [path.name for path in found if path.is_dir()]
            prefixes = obstore.list_with_delimiter(self._objects)["common_prefixes"]
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes]

    def write(self, path: str, content: bytes) -> None:
        """Write a new file that nothing refers to yet, and that never changes."""
        with self.open_output(path) as handle:
            handle.write(content)

    def open_output(self, path: str) -> pa.NativeFile:
        """Open a new file that never changes for writing.

        Its folders are created where the store has folders. An object store has the file once it
        is closed.

        Raises:
            StorageError: The store has no conditional writes: what is written could be lost.
            OSError: The store failed.
        """
        if self._local is not None:
            with self._calls():
                (self._local / path).parent.mkdir(parents=True, exist_ok=True)
                return pa.OSFile(str(self._local / path), mode="wb")
        require_conditional_writes(self.uri, self._options)
        return upload_to(
            lambda is_large: self._patient if is_large else self._objects,
            path,
            lambda content: _CACHE.put(self._root, path, content),
            self._calls,
        )

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files that nothing refers to; files that are already gone are skipped.

        S3 deletes a thousand files in one request.

        Raises:
            OSError: The store failed; some files may remain.
        """
        names = list(paths)
        with self._calls():
            if self._local is not None:
                for name in names:
                    (self._local / name).unlink(missing_ok=True)
                return
            for name in names:
                _CACHE.remove(self._root, name)
            delete_objects(self._objects, names)

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, atomically replacing the one that is there.

        Raises:
            OSError: The store failed; the file is the old one or the new one.
        """
        with self._calls():
            if self._local is not None:
                replace_file(self._local / path, content)
                return
            obstore.put(self._objects, path, content, use_multipart=False)

    def sync(self, paths: Iterable[str], *, new_table: bool = False) -> None:
        """Have files outlast a loss of power; an object store stores them for good at once.

        Raises:
            OSError: The store failed.
        """
        if self._local is not None:
            with self._calls():
                (sync_new_table if new_table else sync_files)(self._local, paths)

    def delete_empty_folders(self, folder: str) -> None:
        """Delete a folder and those above it while they are empty; object stores have none."""
        if self._local is None:
            return
        path = self._local / folder
        while path != self._local:
            try:
                path.rmdir()
            except OSError:
                return
            path = path.parent

    def delete_all(self) -> None:
        """Delete everything below the root, if there is anything.

        Raises:
            OSError: The store failed; some files may remain.
        """
        with self._calls():
            if self._local is None:
                for found in obstore.list(self._objects):
                    delete_objects(self._objects, [one["path"] for one in found])
            elif self._local.exists():
                shutil.rmtree(self._local)

    def put_if_absent(self, path: str, content: bytes) -> str | None:
        """Create a file atomically if there is none at this path.

        Returns:
            Identity of the new file (see `identity_of`); None if a file exists already.

        Raises:
            StorageError: The store has no conditional writes.
            OSError: The store failed; the file may exist or not.
        """
        require_conditional_writes(self.uri, self._options)
        with suppress(AlreadyExistsError), self._calls():
            if self._local is not None:
                created = create_file(self._local / path, content)
                return self.identity_of(path) if created else None
            made = obstore.put(self._objects, path, content, mode="create", use_multipart=False)
            return identity_of_tag(made["e_tag"])
        return None

    def _calls(self) -> AbstractContextManager[None]:
        return store_calls(self.uri)

    @cached_property
    def _objects(self) -> ObjectStore:
        return self._opened(REQUESTS)

    @cached_property
    def _patient(self) -> ObjectStore:
        return self._opened(UPLOADS)

    def _opened(self, limits: Mapping[str, str]) -> ObjectStore:
        try:
            return object_store(self.uri, self._options, limits)
        except DefinitionError:
            raise
        except (BaseError, ValueError, TypeError) as error:
            raise storage_error(
                f"The store of {self.uri} can't be opened",
                error,
                safe="Nothing was written.",
                hint="Check the storage options.",
            ) from error
