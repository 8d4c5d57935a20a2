"""Key and version columns of a data file, opened only when one of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.kept_indexes import RowGroup

READ_ROWS = 1 << 15
BUFFER_BYTES = 1 << 20
"""Bounds of decoding: so many rows stay in the processor's cache, and column chunks are read
through a buffer instead of in full."""


class KeyColumns:
    """A context manager that closes the file if it was opened.

    Args:
        store: Folder of the table.
        file: File of the table.
    """

    def __init__(self, store: TableStore, file: LiveFile) -> None:
        self._store = store
        self._file = file
        self._stack = ExitStack()

    def __enter__(self) -> KeyColumns:
        """Return itself; nothing is opened."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the file."""
        self._stack.close()

    @cached_property
    def _parquet(self) -> pq.ParquetFile:
        handle = self._stack.enter_context(self._store.open(self._file.path, self._file.size_bytes))
        remote = not self._store.is_local
        return pq.ParquetFile(handle, pre_buffer=remote, buffer_size=0 if remote else BUFFER_BYTES)

    def groups(self) -> Sequence[RowGroup]:
        """Return the row groups of the file.

        Raises:
            OSError: The store failed.
        """
        found, first_row = [], 0
        for number in range(self._parquet.num_row_groups):
            end = first_row + self._parquet.metadata.row_group(number).num_rows
            low, high = self._bounds(number, KEY)
            highest_version = self._bounds(number, VERSION)[1]
            found.append(RowGroup(number, range(first_row, end), low, high, highest_version))
            first_row = end
        return found

    def column(self, group: RowGroup, name: str) -> Iterator[tuple[int, pa.Array]]:
        """Yield a text column of a row group in pieces, each with its first row in the group.

        Raises:
            OSError: The store failed.
        """
        start = 0
        for batch in self._parquet.iter_batches(
            READ_ROWS, row_groups=[group.number], columns=[name], use_threads=False
        ):
            column = batch.column(0)
            yield start, column if pa.types.is_string(column.type) else column.cast(pa.string())
            start += len(column)

    def _bounds(self, number: int, name: str) -> tuple[str | None, str | None]:
        """Return the bounds of a text column in a row group, None where the footer has none."""
        footer, schema = self._parquet.metadata, self._parquet.schema
        leaves = range(footer.num_columns)
        leaf = next((leaf for leaf in leaves if schema.column(leaf).path == name), None)
        if leaf is None:
            return None, None
        statistics = footer.row_group(number).column(leaf).statistics
        if statistics is None or not statistics.has_min_max:
            return None, None
        low, high = statistics.min, statistics.max
        return (low, high) if isinstance(low, str) and isinstance(high, str) else (None, None)
