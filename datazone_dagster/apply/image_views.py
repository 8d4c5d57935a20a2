"""The images of a chunk's latest changes, read part by part beside the claims that they go with.

Most of a part's images count and some do not. To copy those that count would cost as much as a
third of reading them, so a query over them gets views of what was decoded instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.changelog.parts import RowGroup, RowGroups
from datazone_dagster.model.column_names import Log

ROW_GROUP = "part"
ROW = "row"
"""Columns of a claim: the place of its part among those read, and its row there."""

_VIEWED = (Log.NEW_IMAGE, Log.OLD_IMAGE)
_PIECE_ROWS = 16_384
_PIECE_BYTES = 16 << 20

VIEWS_SCHEMA = pa.schema(
    [
        field.with_type(pa.string_view()) if field.name in _VIEWED else field
        for field in CHANGES_SCHEMA
    ]
)
"""`CHANGES_SCHEMA` with images that are not copied: who holds one holds all of its part."""

_VIEW_BYTES = 16  # Arrow's columnar format, "Variable-size Binary View Layout"


class Images:
    """The latest changes with the columns that were not read before; others are null.

    Args:
        parts: The change log.
        read: The parts that the claims are of.
        latest: The claims, with `PART` and `ROW`, in the order of the parts.
        columns: What is to be read.
    """

    def __init__(
        self, parts: RowGroups, read: Sequence[RowGroup], latest: pa.Table, columns: Sequence[str]
    ) -> None:
        self._row_groups = parts
        self._read = read
        self._latest = latest
        self._columns = columns
        self.given = 0
        """Changes given so far."""

    def views(self) -> Iterator[pa.RecordBatch]:
        """In `VIEWS_SCHEMA`. One part is held at a time, and what of others is still in use."""
        for keyed_changes, part in self._by_row_group():
            found = self._row_groups.read(part, self._columns)
            places = keyed_changes[ROW].to_numpy()
            rows = pa.Table.from_arrays(
                [
                    viewed(found[name], places)
                    if name in _VIEWED
                    else found[name].take(keyed_changes[ROW])
                    for name in self._columns
                ],
                names=list(self._columns),
            )
            self.given += len(keyed_changes)
            yield from beside(keyed_changes, rows, VIEWS_SCHEMA).to_batches()

    def pieces(self) -> Iterator[pa.Table]:
        """In `CHANGES_SCHEMA`, some thousand at a time."""
        pending: list[pa.Table] = []
        for keyed_changes, part in self._by_row_group():
            found = self._row_groups.read(part, self._columns).take(
                keyed_changes[ROW].combine_chunks()
            )
            pending.append(beside(keyed_changes, found, CHANGES_SCHEMA))
            self.given += len(keyed_changes)
            if (
                sum(map(len, pending)) >= _PIECE_ROWS
                or sum(table.nbytes for table in pending) >= _PIECE_BYTES
            ):
                yield pa.concat_tables(pending)
                pending = []
        if pending:
            yield pa.concat_tables(pending)

    def _by_row_group(self) -> Iterator[tuple[pa.Table, RowGroup]]:
        runs = pc.run_end_encode(self._latest[ROW_GROUP].combine_chunks())
        start = 0
        for number, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield self._latest.slice(start, end - start), self._read[number]
            start = end


def beside(keyed_changes: pa.Table, found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Claims and what was found of the same changes, in a schema; what neither has is null."""

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


def viewed(texts: pa.ChunkedArray, places: np.ndarray[Any, np.dtype[np.int64]]) -> pa.ChunkedArray:
    """The texts at these places, which are in order, without a copy."""
    found: list[pa.Array] = []
    start = 0
    for chunk in texts.chunks:
        low, high = np.searchsorted(places, (start, start + len(chunk)))
        here = places[low:high] - start
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
