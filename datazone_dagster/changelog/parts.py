"""The change log by parts: some thousand rows that stand together, read column by column.

A part is a row group of a file. What a run does not need of it is neither fetched nor
decoded: images are most of the bytes, and many are of changes that do not count any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from datazone_dagster.changelog.ranges import rows_between
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.delta import DataFile, filesystem
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.column_names import Log


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group, with the decoded bytes of all its columns."""

    file: int
    group: int
    rows: int
    decoded_bytes: int


class RowGroups:
    """The rows of the batches in (after_batch, through_batch], in the order of the log.

    A context manager: it keeps the file open that was read last. A part that lies across an
    end of the range has fewer rows than its row group; they are the same in every read.

    Args:
        table: The change log at one version.
        storage_options: Of its store.
        files: Its files with batches of the range, in order.
        after_batch: Where the range begins, exclusive.
        through_batch: Where it ends, inclusive.
    """

    def __init__(
        self,
        table: DeltaTable,
        storage_options: Mapping[str, str],
        files: Sequence[DataFile],
        after_batch: int,
        through_batch: int,
    ) -> None:
        local = TableStore(table.table_uri, storage_options)
        self._local = local if local.is_local else None
        self._store = filesystem(table, storage_options, files)
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

    def read(self, part: RowGroup, columns: Sequence[str]) -> pa.Table:
        """These columns of the rows of a part that lie in the range.

        Raises:
            OSError: The store failed.
        """
        after_batch, through_batch = self._range
        file = self._files[part.file]
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        whole = after_batch < file.minimum[Log.BATCH] and file.maximum[Log.BATCH] <= through_batch
        wanted = list(columns) if whole else list(dict.fromkeys((*columns, Log.BATCH)))
        rows = self._parquet(part.file).read_row_group(
            part.group, columns=wanted, use_threads=False
        )
        rows = rows_between(rows, file, after_batch, through_batch)
        return rows.select(schema.names).cast(schema)

    def _parquet(self, number: int) -> pq.ParquetFile:
        if self._open is None or self._open[0] != number:
            self._close()
            path = self._files[number].path
            # Reading ahead saves requests. Where there are none, it is done by other threads only
            # to hand over memory: their pages are new ones each time.
            handle = self._local.open(path) if self._local else self._store.open_input_file(path)
            parquet = pq.ParquetFile(handle, pre_buffer=self._local is None)
            self._open = (number, handle, parquet)
        return self._open[2]

    def _close(self) -> None:
        if self._open is not None:
            _, handle, parquet = self._open
            parquet.close()
            handle.close()
            self._open = None
