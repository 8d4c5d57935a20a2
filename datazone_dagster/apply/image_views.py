"""The images of a chunk's latest changes, read by row group and joined to their keyed changes.

Most images of a row group belong to latest changes, some do not. Copying the ones that do would
cost a third of the time for reading them, so queries get views of the decoded data instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.changelog.row_groups import RowGroup, RowGroups
from datazone_dagster.model.column_names import Log

ROW_GROUP = "row_group"
ROW = "row"
"""Columns of a keyed change: the index of its row group among those read, and its row there."""

_VIEWED = (Log.NEW_IMAGE, Log.OLD_IMAGE)
_PIECE_ROWS = 16_384
_PIECE_BYTES = 16 << 20

VIEWS_SCHEMA = pa.schema(
    [
        field.with_type(pa.string_view()) if field.name in _VIEWED else field
        for field in CHANGES_SCHEMA
    ]
)
"""`CHANGES_SCHEMA` with image views: a reference to one keeps its full row group in memory."""

_VIEW_BYTES = 16  # Arrow's columnar format, "Variable-size Binary View Layout"


class Images:
    """The latest changes with columns that the first pass did not read; all others are null.

    Args:
        row_groups: Row groups of the change log.
        read: The row groups of the latest changes.
        latest: The latest changes, with `ROW_GROUP` and `ROW`, in the order of the row groups.
        columns: Columns to read.
    """

    def __init__(
        self,
        row_groups: RowGroups,
        read: Sequence[RowGroup],
        latest: pa.Table,
        columns: Sequence[str],
    ) -> None:
        self._row_groups = row_groups
        self._read = read
        self._latest = latest
        self._columns = columns
        self.yielded = 0
        """Number of changes yielded so far."""

    def views(self) -> Iterator[pa.RecordBatch]:
        """Yield batches in `VIEWS_SCHEMA`; memory holds one row group, plus referenced views."""
        for keyed_changes, row_group in self._by_row_group():
            found = self._row_groups.read(row_group, self._columns)
            positions = keyed_changes[ROW].to_numpy()
            rows = pa.Table.from_arrays(
                [
                    views_at(found[name], positions)
                    if name in _VIEWED
                    else found[name].take(keyed_changes[ROW])
                    for name in self._columns
                ],
                names=list(self._columns),
            )
            self.yielded += len(keyed_changes)
            yield from merged_columns(keyed_changes, rows, VIEWS_SCHEMA).to_batches()

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables in `CHANGES_SCHEMA`, some thousand changes each."""
        pending: list[pa.Table] = []
        pending_rows = pending_bytes = 0
        for keyed_changes, row_group in self._by_row_group():
            found = self._row_groups.read(row_group, self._columns).take(
                keyed_changes[ROW].combine_chunks()
            )
            pending.append(merged_columns(keyed_changes, found, CHANGES_SCHEMA))
            # Of the columns that were read: the size of slices of the others takes long to find.
            pending_rows, pending_bytes = pending_rows + len(found), pending_bytes + found.nbytes
            self.yielded += len(keyed_changes)
            if pending_rows >= _PIECE_ROWS or pending_bytes >= _PIECE_BYTES:
                yield pa.concat_tables(pending)
                pending, pending_rows, pending_bytes = [], 0, 0
        if pending:
            yield pa.concat_tables(pending)

    def _by_row_group(self) -> Iterator[tuple[pa.Table, RowGroup]]:
        runs = pc.run_end_encode(self._latest[ROW_GROUP].combine_chunks())
        start = 0
        for number, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield self._latest.slice(start, end - start), self._read[number]
            start = end


def merged_columns(keyed_changes: pa.Table, found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Merge two tables of the same changes into a schema; columns missing in both are null."""

    def column(name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
        for table in (found, keyed_changes):
            if name in table.column_names:
                return table[name]
        return _nulls(kind, len(keyed_changes))

    return pa.Table.from_arrays([column(field.name, field.type) for field in schema], schema=schema)


def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    return _some_nulls(kind).slice(0, rows) if rows <= _PIECE_ROWS else pa.nulls(rows, kind)


@functools.cache
def _some_nulls(kind: pa.DataType) -> pa.Array:
    return pa.nulls(_PIECE_ROWS, kind)


def views_at(
    texts: pa.ChunkedArray, positions: np.ndarray[Any, np.dtype[np.int64]]
) -> pa.ChunkedArray:
    """Return the texts at these positions, given in ascending order, without a copy."""
    found: list[pa.Array] = []
    start = 0
    for chunk in texts.chunks:
        low, high = np.searchsorted(positions, (start, start + len(chunk)))
        here = positions[low:high] - start
        start += len(chunk)
        array = chunk.cast(pa.string_view())
        _, views, *data = array.buffers()
        offset_bytes = array.offset * _VIEW_BYTES
        taken = np.frombuffer(views, f"V{_VIEW_BYTES}", len(chunk), offset_bytes)[here]
        valid = pa.array(chunk.is_valid().to_numpy(zero_copy_only=False)[here])
        found.append(
            pa.Array.from_buffers(
                pa.string_view(), len(here), [valid.buffers()[1], pa.py_buffer(taken), *data]
            )
        )
    return pa.chunked_array(found, pa.string_view())
