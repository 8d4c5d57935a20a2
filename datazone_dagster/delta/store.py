"""The folder of a table: files by path, and the atomic put of a log entry.

Files are read through the storage handler of delta-rs, so the same options lead to the same
location. Uploads and put-if-absent, which that handler lacks, go through obstore.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.fs import DeltaStorageHandler
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

if TYPE_CHECKING:
    from obstore import WritableFile

from datazone_dagster.delta import in_one_line
from datazone_dagster.errors import StorageError

_CLIENT_OPTIONS = {
    "allow_http": bool,
    "allow_invalid_certificates": bool,
    "connect_timeout": str,
    "timeout": str,
    "proxy_url": str,
    "user_agent": str,
}
_READERS = 8
"""Number of small files read concurrently."""

UNKNOWN = "?"
"""Identity of the files of a store that tells no e_tag: its files are all alike."""


class TableStore:
    """Files below one table's root.

    Args:
        uri: Location of the table, as spelled by delta-rs (`file:///...`, `s3://...`).
        storage_options: Options as given to delta-rs. Never printed.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str]) -> None:
        self.uri = uri
        self._options = dict(storage_options)
        self._local = _local_folder(uri)

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        """The folder as an Arrow filesystem; a local folder does not go through delta-rs."""
        if self._local is not None:
            return pafs.SubTreeFileSystem(str(self._local), pafs.LocalFileSystem())
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))

    @property
    def is_local(self) -> bool:
        """Whether the folder is local: reading a range of a file then costs no request."""
        return self._local is not None

    @property
    def has_commit_lock(self) -> bool:
        """Whether delta-rs commits to this store under a lock, which a put would bypass."""
        names = {name.upper() for name in (*self._options, *os.environ)}
        return self._local is None and "AWS_S3_LOCKING_PROVIDER" in names

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access reads."""
        if self._local is not None:
            return pa.OSFile(str(self._local / path))
        return self.filesystem.open_input_file(path)

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
        try:
            if self._local is not None:
                with open(self._local / path, "rb") as handle:
                    return handle.read(), _identity(os.fstat(handle.fileno()))
            found = obstore.get(self._objects, path)
            return bytes(found.bytes()), found.meta["e_tag"] or UNKNOWN
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise OSError(str(error)) from error

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
        try:
            if self._local is not None:
                return _identity(os.stat(self._local / path))
            return obstore.head(self._objects, path)["e_tag"] or UNKNOWN
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise OSError(str(error)) from error

    def identities_after(self, folder: str, name: str) -> dict[str, str]:
        """List the files directly in a folder whose names come after `name`, with identities.

        Raises:
            OSError: The store failed.
        """
        if self._local is not None:
            found = {one: self.identity_of(f"{folder}/{one}") for one in self.names(folder)}
            return {one: known for one, known in found.items() if one > name and known is not None}
        try:
            listed = [
                one
                for some in obstore.list(
                    self._objects, folder, offset=f"{folder}/{name}", chunk_size=1000
                )
                for one in some
            ]
        except BaseError as error:
            raise OSError(str(error)) from error
        names = ((one["path"].removeprefix(f"{folder}/"), one["e_tag"]) for one in listed)
        return {name: e_tag or UNKNOWN for name, e_tag in names if "/" not in name}

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder."""
        found = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return [info.base_name for info in found if info.is_file]

    def folders(self) -> list[str]:
        """Return the names of the folders directly below the root; none if there is no root.

        Raises:
            OSError: The store failed.
        """
        if self._local is not None:
            found = self._local.iterdir() if self._local.is_dir() else iter(())
            return [path.name for path in found if path.is_dir()]
        try:
            prefixes = obstore.list_with_delimiter(self._objects)["common_prefixes"]
        except BaseError as error:
            raise OSError(str(error)) from error
        return [prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes]

    def write(self, path: str, content: bytes) -> None:
        """Write a new file that nothing refers to yet."""
        with self.open_output(path) as handle:
            handle.write(content)

    def open_output(self, path: str) -> pa.NativeFile:
        """Open a new file for writing; create its folders where the store has folders."""
        if self._local is not None:
            (self._local / path).parent.mkdir(parents=True, exist_ok=True)
            return self.filesystem.open_output_stream(path)
        return pa.PythonFile(_Upload(obstore.open_writer(self._objects, path)), mode="w")

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files that nothing refers to; files that are already gone are skipped."""
        for path in paths:
            try:
                self.filesystem.delete_file(path)
            except FileNotFoundError:
                continue

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, atomically replacing the one that is there.

        Raises:
            OSError: The store failed; the file is the old one or the new one.
        """
        try:
            obstore.put(self._objects, path, content, use_multipart=False)
        except BaseError as error:
            raise OSError(str(error)) from error

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
        if self._local is not None:
            if self._local.exists():
                shutil.rmtree(self._local)
            return
        try:
            for found in obstore.list(self._objects):
                obstore.delete(self._objects, [one["path"] for one in found])
        except BaseError as error:
            raise OSError(str(error)) from error

    def put_if_absent(self, path: str, content: bytes) -> str | None:
        """Create a file atomically if there is none at this path.

        Returns:
            Identity of the new file (see `identity_of`); None if a file exists already.

        Raises:
            OSError: The store failed; the file may exist or not.
        """
        try:
            made = obstore.put(self._objects, path, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return None
        except BaseError as error:
            raise OSError(str(error)) from error
        return made["e_tag"] or UNKNOWN if self._local is None else self.identity_of(path)

    @cached_property
    def _objects(self) -> ObjectStore:
        if self._local is not None:
            return LocalStore(self._local)
        config, client, retry = _sorted_options(self._options)
        try:
            return from_url(
                self.uri.rstrip("/"),
                config=config,
                client_options=client,  # type: ignore[arg-type]  # names checked in _CLIENT_OPTIONS
                retry_config=retry,  # type: ignore[arg-type]  # only max_retries
            )
        except (BaseError, ValueError, TypeError) as error:
            raise StorageError(
                f"The store of {self.uri} can't be opened for commits: {in_one_line(error)}.",
                safe="Nothing was written.",
                hint="Check the storage options.",
            ) from error


def _identity(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _local_folder(uri: str) -> Path | None:
    """Return the folder of a local URI; a plain path is taken as it is, `#`, `?` and `%` too."""
    if "://" not in uri:
        return Path(uri)
    split = urlsplit(uri)
    return Path(unquote(split.path)) if split.scheme == "file" else None


class _Upload(io.RawIOBase):
    """A multipart upload; the file exists once it is closed."""

    def __init__(self, upload: WritableFile) -> None:
        self._upload = upload
        self._size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")  # Arrow passes signed bytes
        self._upload.write(content)
        self._size_bytes += len(content)
        return len(content)

    def tell(self) -> int:
        return self._size_bytes

    def close(self) -> None:
        if not self.closed:
            self._upload.close()
        super().close()


def _sorted_options(
    options: Mapping[str, str],
) -> tuple[Any, dict[str, Any] | None, dict[str, Any] | None]:
    """Sort the flat options of delta-rs into obstore's three groups: store, client, retries.

    Options that only delta-rs knows (locks, renames, its own caches) are left out: a commit
    is one conditional put.
    """
    config, client, retry = {}, {}, {}
    for name, value in options.items():
        key = name.lower()
        bare = key.split("_", 1)[1] if key.startswith(("aws_", "azure_", "google_")) else key
        if bare in _CLIENT_OPTIONS:
            client[bare] = _truth(value) if _CLIENT_OPTIONS[bare] is bool else value
        elif bare == "max_retries":
            retry["max_retries"] = int(value)
        elif key.startswith(_STORE_PREFIXES) and not key.startswith(_ONLY_DELTA_RS):
            config[key] = value
        elif bare in _BARE_STORE_OPTIONS:
            config[bare] = value
    return config or None, client or None, retry or None


_STORE_PREFIXES = ("aws_", "azure_", "google_")
_ONLY_DELTA_RS = (
    "aws_s3_locking_provider",
    "aws_s3_allow_unsafe_rename",
    "aws_copy_if_not_exists",
    "aws_force_credential_load",
)
_BARE_STORE_OPTIONS = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "token",
    "region",
    "endpoint",
    "endpoint_url",
    "virtual_hosted_style_request",
    "skip_signature",
    "conditional_put",
    "account_name",
    "account_key",
    "sas_key",
    "service_account",
    "service_account_key",
)


def _truth(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on", "y")
