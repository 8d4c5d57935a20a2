"""Files of an object store as Arrow streams, with few requests, and a cache of small ones.

Each request costs its latency and its price, not its bytes. So a small file is read by one
request, a large one by its ranges, and a file is uploaded by one request where it is not huge.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
from obstore.store import ObjectStore

if TYPE_CHECKING:
    from obstore import WritableFile

SMALL_BYTES = 8 << 20
"""Size up to which a file is read completely by one request."""

SINGLE_PUT_BYTES = 64 << 20
"""Size up to which a file is uploaded by one request; it is in memory until then."""

CACHE_BYTES = 64 << 20
"""Size of the small files, and of the blocks of large ones, that a process retains."""

BLOCK_BYTES = 4 << 20
"""Size of the pieces of a large file that several readers of a process share."""


class FileCache:
    """Contents of small files that never change, such as data files and deletion vectors.

    Args:
        most_bytes: Size of the contents that are retained; the least recently used ones go first.
    """

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._contents: OrderedDict[tuple[str, str], pa.Buffer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, table: str, path: str) -> pa.Buffer | None:
        """Return the content of a file; None if it is not retained."""
        with self._lock:
            content = self._contents.get((table, path))
            if content is not None:
                self._contents.move_to_end((table, path))
            return content

    def put(self, table: str, path: str, content: pa.Buffer) -> None:
        """Retain the content of a file, if it is small."""
        if content.size > SMALL_BYTES:
            return
        with self._lock:
            self._remove(table, path)
            self._contents[table, path] = content
            self._bytes += content.size
            while self._bytes > self._most_bytes:
                self._remove(*next(iter(self._contents)))

    def remove(self, table: str, path: str) -> None:
        """Drop a file that was deleted."""
        with self._lock:
            self._remove(table, path)

    def _remove(self, table: str, path: str) -> None:
        content = self._contents.pop((table, path), None)
        if content is not None:
            self._bytes -= content.size


Calls = Callable[[], AbstractContextManager[None]]
"""Context manager that converts the errors of calls on the store."""


def by_ranges(objects: ObjectStore, path: str, size_bytes: int, calls: Calls) -> pa.NativeFile:
    """Open a file whose ranges are read by one request each."""
    return pa.PythonFile(_RangeFile(size_bytes, _ranges_of(objects, path, calls)), mode="r")


def by_blocks(
    objects: ObjectStore, path: str, size_bytes: int, calls: Calls, cache: FileCache, table: str
) -> pa.NativeFile:
    """Open a file that is read by one request for each block that the cache does not retain.

    That is more bytes than `by_ranges` takes where a reader leaves out columns, and fewer requests
    where readers follow each other.
    """
    read = _ranges_of(objects, path, calls)

    def block(number: int) -> pa.Buffer:
        key = f"{path}#{number}"
        found = cache.get(table, key)
        if found is None:
            start = number * BLOCK_BYTES
            found = pa.py_buffer(read(start, min(BLOCK_BYTES, size_bytes - start)))
            cache.put(table, key, found)
        return found

    def read_blocks(start: int, length: int) -> bytes:
        pieces, at, end = [], start, start + length
        while at < end:
            number, offset = divmod(at, BLOCK_BYTES)
            piece = block(number).slice(offset)
            pieces.append(piece.slice(0, min(end - at, piece.size)).to_pybytes())
            at += len(pieces[-1])
        return b"".join(pieces)

    return pa.PythonFile(_RangeFile(size_bytes, read_blocks), mode="r")


def _ranges_of(objects: ObjectStore, path: str, calls: Calls) -> Callable[[int, int], bytes]:
    def read(start: int, length: int) -> bytes:
        with calls():
            return obstore.get_range(objects, path, start=start, length=length).to_bytes()

    return read


def upload_to(
    store: Callable[[bool], ObjectStore],
    path: str,
    uploaded: Callable[[pa.Buffer], None],
    calls: Calls,
) -> pa.NativeFile:
    """Open a new file that exists once it is closed.

    Args:
        store: Function that returns the store of the file, by whether the file is large.
        path: Path in the store.
        uploaded: Function that receives the content of a file that one request has uploaded.
        calls: Converts the errors of the store.
    """
    return pa.PythonFile(_Upload(store, path, uploaded, calls), mode="w")


class _RangeFile(io.RawIOBase):
    def __init__(self, size_bytes: int, read_range: Callable[[int, int], bytes]) -> None:
        self._read_range = read_range
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size_bytes - self._at, 0)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        found = self._read_range(self._at, length)
        self._at += length
        return found


class _Upload(io.RawIOBase):
    def __init__(
        self,
        store: Callable[[bool], ObjectStore],
        path: str,
        uploaded: Callable[[pa.Buffer], None],
        calls: Calls,
    ) -> None:
        self._store = store
        self._calls = calls
        self._path = path
        self._uploaded = uploaded
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._multipart: WritableFile | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")  # Arrow passes signed bytes
        self._size_bytes += len(content)
        if self._multipart is None:
            self._pieces.append(bytes(content))
            if self._size_bytes > SINGLE_PUT_BYTES:
                with self._calls():
                    self._multipart = self._begun()
        else:
            with self._calls():
                self._multipart.write(content)
        return len(content)

    def tell(self) -> int:
        return self._size_bytes

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        with self._calls():
            if self._multipart is not None:
                self._multipart.close()
                return
            content = b"".join(self._pieces)
            self._pieces.clear()
            objects = self._store(len(content) > SMALL_BYTES)
            obstore.put(objects, self._path, content, use_multipart=False)
        self._uploaded(pa.py_buffer(content))

    def __del__(self) -> None:
        """Give up an upload that nobody has closed: by itself, Python would finish it now."""

    def _begun(self) -> WritableFile:
        upload = obstore.open_writer(self._store(False), self._path)
        for piece in self._pieces:
            upload.write(piece)
        self._pieces.clear()
        return upload


def delete_objects(objects: ObjectStore, paths: list[str]) -> None:
    """Delete files; stores that delete them one by one stop at the first that is gone."""
    try:
        if paths:
            obstore.delete(objects, paths)
    except FileNotFoundError:
        for path in paths:
            with suppress(FileNotFoundError):
                obstore.delete(objects, path)
