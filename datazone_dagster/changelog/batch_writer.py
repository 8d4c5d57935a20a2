"""One batch on its way into the change log: its file is written while the shards are read.

Parquet and its compression run without Python's lock, so a second core has work while pages
are parsed; and what waits to be written is bounded by bytes, so a batch needs the memory of
a few row groups, whatever its size.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

import pyarrow.fs as pafs
from deltalake.transaction import AddAction

from datazone_dagster.changelog.files import write_file
from datazone_dagster.changelog.schema import ShardRecords, batch_parts, bucket_of
from datazone_dagster.delta import guarded
from datazone_dagster.model.record import ChangeRecords

PENDING_BYTES = 8 << 20
"""Decoded bytes that wait to be written; whoever brings more waits too."""


class _AbandonedError(Exception):
    """The batch is not committed: what the file would hold is read again."""


class BatchWriter:
    """Takes the records of one batch, from any thread, and writes them into one file.

    The file counts only once `commit` has put it into the table's log. Records of one shard
    land in the order in which they are put.

    Args:
        uri: Of the table, for error texts.
        store: Gives the folder of the table.
        batch: The number of the batch.
        epoch: Of its rows.
        commit: Called once with the file, if there were any rows.
    """

    def __init__(
        self,
        uri: str,
        store: Callable[[], pafs.FileSystem],
        batch: int,
        epoch: int,
        commit: Callable[[AddAction], None],
    ) -> None:
        self.batch = batch
        self._doing = (uri, f"Landing batch {batch}")
        self._store = store
        self._epoch = epoch
        self._commit = commit
        self._pending: deque[tuple[ShardRecords, int]] = deque()
        self._pending_bytes = 0
        self._changed = threading.Condition()
        self._closed = self._abandoned = False
        self._thread: threading.Thread | None = None
        self._file: AddAction | None = None
        self._failure: BaseException | None = None

    def put(self, records: ShardRecords) -> None:
        """Add records; waits while more than `PENDING_BYTES` are not written yet.

        Raises:
            StorageError: The file can't be written.
        """
        size = ChangeRecords.of(records.records).image_bytes
        size += sum(len(one.raw) for one in records.malformed)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write, name="datazone-batch-writer", daemon=True
                )
                self._thread.start()
            while self._pending_bytes > PENDING_BYTES and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            self._pending.append((records, size))
            self._pending_bytes += size
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until everything that was put is in the file.

        Raises:
            StorageError: The file can't be written.
        """
        self._finish()
        if self._failure is not None:
            raise self._failure

    def commit(self) -> int | None:
        """Finish the file and commit it.

        Returns:
            The number of the batch, or None if there was nothing to land.

        Raises:
            ConcurrentWriterError: Another drain landed a batch since the snapshot.
            StorageError: The store failed.
        """
        self.finish()
        if self._file is None:
            return None
        with guarded(*self._doing):
            self._commit(self._file)
        return self.batch

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._abandoned = True
        self._finish()

    def _finish(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        try:
            with guarded(*self._doing):
                parts = batch_parts(self.batch, self._epoch, self._records())
                self._file = write_file(self._store(), bucket_of(self.batch), parts)
        except _AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again where records are put
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _records(self) -> Iterator[ShardRecords]:
        while True:
            with self._changed:
                while not self._pending and not self._closed:
                    self._changed.wait()
                if self._abandoned:
                    raise _AbandonedError
                if not self._pending:
                    return
                records, size = self._pending.popleft()
                self._pending_bytes -= size
                self._changed.notify_all()
            yield records
