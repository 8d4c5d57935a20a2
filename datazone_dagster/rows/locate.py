"""Where the rows of given keys stand: file by file, position by position.

Only the key column is read, of files and row groups whose bounds may hold a key; the versions
only where a row group may hold one that is not below the claims'. Memory holds what is decoded
at a time and what was found, not the files.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap64

from datazone_dagster.delta.read_file import rows_at
from datazone_dagster.delta.transaction_log import LiveFile, Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.key_filter import KeyFilter, RowPositions

FILE = "_dz_file"
POSITION = "_dz_position"
CHANGE_ROW = "_dz_change_row"

SCHEMA = pa.schema(
    [
        pa.field(FILE, pa.int32(), nullable=False),
        pa.field(POSITION, pa.int64(), nullable=False),
        pa.field(CHANGE_ROW, pa.int32(), nullable=False),
        pa.field(VERSION, pa.string()),
    ]
)
"""Of what is found: file (place in `Snapshot.files`), position in it, place in the keys asked
for, and the version; null where it is known to be below `below`."""

READ_ROWS = 1 << 15
BUFFER_BYTES = 1 << 20
"""Rows decoded at a time: what they take stays in the processor's cache. Column chunks are read
through a buffer, not whole."""

LOOKED_UP_ROWS = 1 << 19
"""Rows that may be of the keys are looked up together: for each lookup the hash table of the
keys is built anew."""

MANY_FILES = 16
"""From so many on, sorting the keys is cheaper than to hold each of them against all bounds."""

THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class _Wanted:
    """What is looked for.

    Args:
        keys: In the order asked for.
        texts: The same sorted, where there are many bounds to hold them against; else None.
    """

    keys: pa.Array
    texts: list[str] | None
    key_filter: KeyFilter
    below: str | None

    def may_be_in(self, low: str | None, high: str | None) -> bool:
        """Whether a key is within bounds; Parquet and Arrow compare texts by their UTF-8."""
        if self.texts is not None:
            start = 0 if low is None else bisect_left(self.texts, low)
            return start < (len(self.texts) if high is None else bisect_right(self.texts, high))
        inside = pc.greater_equal(self.keys, "" if low is None else low)
        if high is not None:
            inside = pc.and_(inside, pc.less_equal(self.keys, high))
        return bool(pc.any(inside).as_py())


def locate(snapshot: Snapshot, keys: pa.ChunkedArray, *, below: str | None = None) -> pa.Table:
    """The live rows of these keys, as `SCHEMA`.

    Args:
        snapshot: The table.
        keys: Each once.
        below: The lowest version that matters: a version below it need not be read. None:
            every version is read.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    if not len(keys):
        return SCHEMA.empty_table()
    one = pa.array(keys.combine_chunks())
    texts = sorted(one.to_pylist()) if len(snapshot.files) >= MANY_FILES else None
    wanted = _Wanted(one, texts, KeyFilter(one), below)
    tasks = [
        (number, file)
        for number, file in enumerate(snapshot.files)
        if wanted.may_be_in(file.minimum.get(KEY), file.maximum.get(KEY))
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda task: _in_file(snapshot, wanted, *task), tasks))
    return pa.concat_tables([SCHEMA.empty_table(), *found])


def positions(found: pa.Table, files: tuple[LiveFile, ...]) -> dict[str, BitMap64]:
    """The positions of located rows, by path of their file."""
    return {files[number].path: places for number, places in _by_file(found)}


def existing_rows(snapshot: Snapshot, found: pa.Table, schema: pa.Schema) -> pa.Table:
    """The whole rows that were located, each with its file and position in front.

    Args:
        snapshot: The one that they were located in.
        found: As `locate` gives it, or a part of it.
        schema: The columns to read; partition columns and columns added later are filled.
    """
    parts = []
    for number, places in _by_file(found):
        rows = rows_at(snapshot, snapshot.files[number], schema, places)
        at = pa.array(np.array(places.to_array(), dtype=np.int64))
        rows = rows.add_column(0, SCHEMA.field(POSITION), at)
        file = pa.array(np.full(len(rows), number, np.int32))
        parts.append(rows.add_column(0, SCHEMA.field(FILE), file))
    shape = pa.schema([SCHEMA.field(FILE), SCHEMA.field(POSITION), *schema])
    return pa.concat_tables([shape.empty_table(), *parts])


def _by_file(found: pa.Table) -> Iterator[tuple[int, BitMap64]]:
    numbers, places = found[FILE].to_numpy(), found[POSITION].to_numpy()
    for number in np.unique(numbers):
        yield int(number), BitMap64(np.sort(places[numbers == number]).astype(np.uint64))


def _in_file(snapshot: Snapshot, wanted: _Wanted, number: int, file: LiveFile) -> pa.Table:
    with snapshot.store.open(file.path) as handle:
        remote = not snapshot.store.is_local
        parquet = pq.ParquetFile(
            handle, pre_buffer=remote, buffer_size=0 if remote else BUFFER_BYTES
        )
        groups = _groups(parquet, wanted)
        places, keyed_changes = _look_up(parquet, groups, wanted)
        rows = pa.table(
            [
                pa.array(places),
                pa.array(keyed_changes.astype(np.int32)),
                _versions(parquet, groups, places, wanted.below),
            ],
            schema=_IN_FILE,
        )
    if file.vector is not None and len(rows):
        deleted = snapshot.deleted_in(file)
        rows = rows.filter(pa.array([at not in deleted for at in rows[POSITION].to_pylist()]))
    return rows.add_column(0, SCHEMA.field(FILE), pa.array(np.full(len(rows), number, np.int32)))


_IN_FILE = pa.schema([SCHEMA.field(name) for name in (POSITION, CHANGE_ROW, VERSION)])


def _groups(parquet: pq.ParquetFile, wanted: _Wanted) -> list[tuple[int, range]]:
    """The row groups whose bounds allow a key, each with the positions of its rows."""
    found, first_row = [], 0
    for group in range(parquet.num_row_groups):
        end = first_row + parquet.metadata.row_group(group).num_rows
        if wanted.may_be_in(*_bounds(parquet, group, KEY)):
            found.append((group, range(first_row, end)))
        first_row = end
    return found


def _look_up(
    parquet: pq.ParquetFile, groups: list[tuple[int, range]], wanted: _Wanted
) -> tuple[RowPositions, RowPositions]:
    """The positions at which a key stands, in order, and which of the keys it is."""
    places: list[RowPositions] = [np.zeros(0, np.int64)]
    keyed_changes: list[RowPositions] = [np.zeros(0, np.int64)]
    texts: list[pa.Array] = []
    at: list[RowPositions] = []

    def look_up() -> None:
        found = pc.index_in(pa.chunked_array(texts, pa.string()), wanted.keys)
        hits = np.flatnonzero(found.is_valid())
        places.append(np.concatenate(at)[hits])
        keyed_changes.append(found.take(pa.array(hits)).to_numpy())
        texts.clear()
        at.clear()

    for group, rows in groups:
        for start, column in _column(parquet, group, KEY):
            maybe = wanted.key_filter.passing(column)
            texts.append(column.take(pa.array(maybe)))
            at.append(maybe + (rows.start + start))
            if sum(map(len, at)) >= LOOKED_UP_ROWS:
                look_up()
    if texts:
        look_up()
    return np.concatenate(places), np.concatenate(keyed_changes)


def _versions(
    parquet: pq.ParquetFile,
    groups: list[tuple[int, range]],
    places: RowPositions,
    below: str | None,
) -> pa.ChunkedArray:
    """The versions at these positions, which are in order; null where they are below `below`."""
    parts: list[pa.Array] = []
    for group, rows in groups:
        low, high = np.searchsorted(places, (rows.start, rows.stop))
        inside = places[low:high] - rows.start
        if not len(inside):
            continue
        highest = _bounds(parquet, group, VERSION)[1]
        if below is not None and highest is not None and highest < below:
            parts.append(pa.nulls(len(inside), pa.string()))
            continue
        for start, column in _column(parquet, group, VERSION):
            here = inside[(inside >= start) & (inside < start + len(column))] - start
            parts.append(column.take(pa.array(here)))
    return pa.chunked_array(parts, pa.string())


def _column(parquet: pq.ParquetFile, group: int, name: str) -> Iterator[tuple[int, pa.Array]]:
    """A text column of a row group, some thousand rows at a time, each with its first row."""
    start = 0
    for batch in parquet.iter_batches(
        READ_ROWS, row_groups=[group], columns=[name], use_threads=False
    ):
        column = batch.column(0)
        yield start, column if pa.types.is_string(column.type) else column.cast(pa.string())
        start += len(column)


def _bounds(parquet: pq.ParquetFile, group: int, name: str) -> tuple[str | None, str | None]:
    """The bounds of a text column in a row group, as far as the footer tells."""
    leaves = range(parquet.metadata.num_columns)
    leaf = next((leaf for leaf in leaves if parquet.schema.column(leaf).path == name), None)
    if leaf is None:
        return None, None
    statistics = parquet.metadata.row_group(group).column(leaf).statistics
    if statistics is None or not statistics.has_min_max:
        return None, None
    low, high = statistics.min, statistics.max
    return (low, high) if isinstance(low, str) and isinstance(high, str) else (None, None)
