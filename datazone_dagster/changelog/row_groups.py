"""Row groups of the change log: some thousand consecutive rows, read column by column.

Columns that a run does not need are neither fetched nor decoded: images are most of the bytes,
and many of them belong to superseded changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.changelog.ranges import rows_between
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.delta import rows_at_a_time
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.table_file import DataFile


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a file, with the decoded size of all its columns in bytes."""

    file: int
    group: int
    rows: int
    decoded_bytes: int


class RowGroups:
    """The rows of the batches in (after_batch, through_batch], in the order of the log.

    A context manager: the file read last stays open. A row group that crosses an end of the range
    yields only the rows inside the range, the same ones in every read.

    Args:
        store: Folder of the change log.
        files: Files of the change log with batches of the range, in order.
        after_batch: Start of the range, exclusive.
        through_batch: End of the range, inclusive.
    """

    def __init__(
        self,
        store: TableStore,
        files: Sequence[DataFile],
        after_batch: int,
        through_batch: int,
    ) -> None:
        self._store = store
        self._files = files
        self._range = (after_batch, through_batch)
        self._open: tuple[int, Any, pq.ParquetFile] | None = None

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __iter__(self) -> Iterator[RowGroup]:
        for number in range(len(self._files)):
            metadata = self._parquet(number).metadata
            for group in range(metadata.num_row_groups):
                facts = metadata.row_group(group)
                yield RowGroup(number, group, int(facts.num_rows), int(facts.total_byte_size))

    def read(self, row_group: RowGroup, columns: Sequence[str]) -> pa.Table:
        """Read these columns of the rows of a row group that are in the range.

        Raises:
            OSError: The store failed.
        """
        rows = self._parquet(row_group.file).read_row_group(
            row_group.group, columns=self._to_read(row_group, columns), use_threads=False
        )
        return self._in_range(row_group, rows, columns)

    def pieces(self, row_group: RowGroup, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows that `read` returns, some thousand at a time, decoded on the way.

        Raises:
            OSError: The store failed.
        """
        parquet = self._parquet(row_group.file)
        size = rows_at_a_time(parquet.metadata.row_group(row_group.group))
        wanted = self._to_read(row_group, columns)
        for batch in parquet.iter_batches(size, row_groups=[row_group.group], columns=wanted):
            yield self._in_range(row_group, pa.Table.from_batches([batch]), columns)

    def _to_read(self, row_group: RowGroup, columns: Sequence[str]) -> list[str]:
        after_batch, through_batch = self._range
        file = self._files[row_group.file]
        inside = after_batch < file.minimum[Log.BATCH] and file.maximum[Log.BATCH] <= through_batch
        return list(columns) if inside else list(dict.fromkeys((*columns, Log.BATCH)))

    def _in_range(self, row_group: RowGroup, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        rows = rows_between(rows, self._files[row_group.file], *self._range)
        return rows.select(schema.names).cast(schema)

    def _parquet(self, number: int) -> pq.ParquetFile:
        if self._open is None or self._open[0] != number:
            self._close()
            file = self._files[number]
            handle = self._store.open(unquote(file.path), file.size_bytes)
            # Reading ahead saves requests. A local file needs none: there, other threads would
            # read ahead only to hand over memory, in fresh pages each time.
            parquet = pq.ParquetFile(handle, pre_buffer=not self._store.is_local)
            self._open = (number, handle, parquet)
        return self._open[2]

    def _close(self) -> None:
        if self._open is not None:
            _, handle, parquet = self._open
            parquet.close()
            handle.close()
            self._open = None
