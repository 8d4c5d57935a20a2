"""Writer of one batch of the change log: its file is written while the shards are read.

The thread that parses a page also writes it: its records go into the file while they are in the
processor's cache, through the memory of one row group. Handing the records to another thread
took a third more CPU and no less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

import pyarrow as pa
from deltalake.transaction import AddAction

from datazone_dagster.changelog.files import FileWriter
from datazone_dagster.changelog.schema import BatchRows, ShardRecords, bucket_of
from datazone_dagster.delta import guarded
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.checkpoint import Landed


class BatchWriter:
    """Writes the records of one batch into one file.

    The file counts only once `commit` has added it to the table's log. Records of one shard
    land in the order in which they are put.

    Args:
        uri: Location of the table, for error texts.
        store: The table's folder.
        batch: Number of the batch; where its rows have none, that of the batch to come next.
        epoch: Epoch of the batch's rows.
        commit: Function called once with the file, if there were any rows, and the positions
            that it reaches; returns the number under which the batch landed, which is higher if a
            scan landed batches meanwhile.
        by_slots: As for `FileWriter`.
        by_commit: Whether the commit gives the rows their number: see `numbering`.
    """

    def __init__(
        self,
        uri: str,
        store: TableStore,
        batch: int,
        epoch: int,
        commit: Callable[[AddAction, Sequence[Landed] | None], int],
        *,
        by_slots: int = 0,
        by_commit: bool = False,
    ) -> None:
        self.batch = batch
        self._doing = (uri, f"Landing batch {batch}")
        self._store = store
        self._rows = BatchRows(None if by_commit else batch, epoch)
        self._commit = commit
        self._by_slots = by_slots
        self._writer: FileWriter | None = None
        self._finished: AddAction | None = None

    def begin_epoch_at(self, sequence_digits: str | None) -> None:
        """Give changes below a padded sequence number the epoch before; None: no change."""
        self._rows.epoch_from = sequence_digits

    def put(self, records: ShardRecords) -> None:
        """Add records.

        Raises:
            StorageError: The file can't be written.
        """
        self._write(self._rows.add(records))

    def finish(self) -> None:
        """Write the records still buffered, and close the file.

        Raises:
            StorageError: The file can't be written.
        """
        self._write(self._rows.flush())
        if self._writer is not None:
            with guarded(*self._doing):
                self._finished = self._writer.finish()
            self._writer = None

    @property
    def has_rows(self) -> bool:
        """Whether anything was put: `commit` then lands a batch."""
        return self._finished is not None or self._writer is not None

    def commit(self, landed: Sequence[Landed] | None = None) -> int | None:
        """Finish the file and commit it.

        Args:
            landed: Positions that the batch reaches, for the shards that moved; None: unknown,
                its rows tell.

        Returns:
            Number of the batch, or None if there was nothing to land.

        Raises:
            ConcurrentWriterError: Another commit came first: see `ChangeLogSnapshot.begin`.
            StorageError: The store failed.
        """
        self.finish()
        if self._finished is None:
            return None
        with guarded(*self._doing):
            self.batch = self._commit(self._finished, landed)
        return self.batch

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)

    def _write(self, tables: Iterable[pa.Table]) -> None:
        with guarded(*self._doing):
            for rows in tables:
                if self._writer is None:
                    self._writer = FileWriter(
                        self._store, bucket_of(self.batch), by_slots=self._by_slots
                    )
                self._writer.write(rows)
