"""Lookup of the rows of given keys: their files and row positions.

Only the key column is read, from files and row groups whose bounds may contain a key. Versions
are read only from row groups that may have one that is not below those of the keyed changes.
Memory has the rows being decoded and the rows found, not the files.
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
"""Located rows: index of the file in `Snapshot.files`, position in the file, index of the key
among the keys given, and version; the version is null where it is known to be below `below`."""

READ_ROWS = 1 << 15
BUFFER_BYTES = 1 << 20
"""Bounds of decoding: so many rows stay in the processor's cache, and column chunks are read
through a buffer instead of in full."""

LOOKED_UP_ROWS = 1 << 19
"""Candidate rows that are looked up together: each lookup builds the hash table of the keys
again."""

MANY_FILES = 16
"""Number of files from which on sorting the keys is cheaper than comparing each with all bounds."""

THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class _Wanted:
    """The keys to locate.

    Args:
        keys: The keys, in the order given.
        texts: The keys sorted, if there are many bounds to compare them with; else None.
        key_filter: Filter made from the keys.
        below: Lowest version that matters; None: every version does.
    """

    keys: pa.Array
    texts: list[str] | None
    key_filter: KeyFilter
    below: str | None

    def may_be_in(self, low: str | None, high: str | None) -> bool:
        """Return whether a key is within bounds; Parquet and Arrow compare texts as UTF-8."""
        if self.texts is not None:
            start = 0 if low is None else bisect_left(self.texts, low)
            return start < (len(self.texts) if high is None else bisect_right(self.texts, high))
        inside = pc.greater_equal(self.keys, "" if low is None else low)
        if high is not None:
            inside = pc.and_(inside, pc.less_equal(self.keys, high))
        return bool(pc.any(inside).as_py())


def locate(snapshot: Snapshot, keys: pa.ChunkedArray, *, below: str | None = None) -> pa.Table:
    """Return the live rows of these keys, in `SCHEMA`.

    Args:
        snapshot: Snapshot of the table.
        keys: Keys, each once.
        below: Lowest version that matters: a version below it need not be read. None: every
            version is read.

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
    """Return the positions of located rows, by path of their file."""
    return {files[number].path: bitmap for number, bitmap in _by_file(found)}


def existing_rows(snapshot: Snapshot, found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the full rows that were located, each with its file and position in front.

    Args:
        snapshot: Snapshot in which they were located.
        found: Located rows from `locate`, or some of them.
        schema: Columns to read; partition columns and columns added later are filled.
    """
    tables = []
    for number, bitmap in _by_file(found):
        rows = rows_at(snapshot, snapshot.files[number], schema, bitmap)
        at = pa.array(np.array(bitmap.to_array(), dtype=np.int64))
        rows = rows.add_column(0, SCHEMA.field(POSITION), at)
        file = pa.array(np.full(len(rows), number, np.int32))
        tables.append(rows.add_column(0, SCHEMA.field(FILE), file))
    full_schema = pa.schema([SCHEMA.field(FILE), SCHEMA.field(POSITION), *schema])
    return pa.concat_tables([full_schema.empty_table(), *tables])


def _by_file(found: pa.Table) -> Iterator[tuple[int, BitMap64]]:
    numbers, row_positions = found[FILE].to_numpy(), found[POSITION].to_numpy()
    for number in np.unique(numbers):
        yield int(number), BitMap64(np.sort(row_positions[numbers == number]).astype(np.uint64))


def _in_file(snapshot: Snapshot, wanted: _Wanted, number: int, file: LiveFile) -> pa.Table:
    with snapshot.store.open(file.path, file.size_bytes) as handle:
        remote = not snapshot.store.is_local
        parquet = pq.ParquetFile(
            handle, pre_buffer=remote, buffer_size=0 if remote else BUFFER_BYTES
        )
        groups = _groups(parquet, wanted)
        row_positions, change_rows = _look_up(parquet, groups, wanted)
        rows = pa.table(
            [
                pa.array(row_positions),
                pa.array(change_rows.astype(np.int32)),
                _versions(parquet, groups, row_positions, wanted.below),
            ],
            schema=_IN_FILE,
        )
    if file.vector is not None and len(rows):
        deleted = snapshot.deleted_in(file)
        rows = rows.filter(pa.array([at not in deleted for at in rows[POSITION].to_pylist()]))
    return rows.add_column(0, SCHEMA.field(FILE), pa.array(np.full(len(rows), number, np.int32)))


_IN_FILE = pa.schema([SCHEMA.field(name) for name in (POSITION, CHANGE_ROW, VERSION)])


def _groups(parquet: pq.ParquetFile, wanted: _Wanted) -> list[tuple[int, range]]:
    """Return the row groups whose bounds may contain a key, each with its rows' positions."""
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
    """Return the positions of rows with a key, in order, and the index of each row's key."""
    row_positions: list[RowPositions] = [np.zeros(0, np.int64)]
    change_rows: list[RowPositions] = [np.zeros(0, np.int64)]
    texts: list[pa.Array] = []
    at: list[RowPositions] = []

    def look_up() -> None:
        found = pc.index_in(pa.chunked_array(texts, pa.string()), wanted.keys)
        hits = np.flatnonzero(found.is_valid())
        row_positions.append(np.concatenate(at)[hits])
        change_rows.append(found.take(pa.array(hits)).to_numpy())
        texts.clear()
        at.clear()

    for group, rows in groups:
        for start, column in _column(parquet, group, KEY):
            candidates = wanted.key_filter.passing(column)
            texts.append(column.take(pa.array(candidates)))
            at.append(candidates + (rows.start + start))
            if sum(map(len, at)) >= LOOKED_UP_ROWS:
                look_up()
    if texts:
        look_up()
    return np.concatenate(row_positions), np.concatenate(change_rows)


def _versions(
    parquet: pq.ParquetFile,
    groups: list[tuple[int, range]],
    row_positions: RowPositions,
    below: str | None,
) -> pa.ChunkedArray:
    """Return the versions at these positions, which are in order; null if surely below `below`."""
    versions: list[pa.Array] = []
    for group, rows in groups:
        low, high = np.searchsorted(row_positions, (rows.start, rows.stop))
        inside = row_positions[low:high] - rows.start
        if not len(inside):
            continue
        highest = _bounds(parquet, group, VERSION)[1]
        if below is not None and highest is not None and highest < below:
            versions.append(pa.nulls(len(inside), pa.string()))
            continue
        for start, column in _column(parquet, group, VERSION):
            here = inside[(inside >= start) & (inside < start + len(column))] - start
            versions.append(column.take(pa.array(here)))
    return pa.chunked_array(versions, pa.string())


def _column(parquet: pq.ParquetFile, group: int, name: str) -> Iterator[tuple[int, pa.Array]]:
    """Yield a text column of a row group, `READ_ROWS` at a time, each piece with its first row."""
    start = 0
    for batch in parquet.iter_batches(
        READ_ROWS, row_groups=[group], columns=[name], use_threads=False
    ):
        column = batch.column(0)
        yield start, column if pa.types.is_string(column.type) else column.cast(pa.string())
        start += len(column)


def _bounds(parquet: pq.ParquetFile, group: int, name: str) -> tuple[str | None, str | None]:
    """Return the bounds of a text column in a row group, None where the footer has none."""
    leaves = range(parquet.metadata.num_columns)
    leaf = next((leaf for leaf in leaves if parquet.schema.column(leaf).path == name), None)
    if leaf is None:
        return None, None
    statistics = parquet.metadata.row_group(group).column(leaf).statistics
    if statistics is None or not statistics.has_min_max:
        return None, None
    low, high = statistics.min, statistics.max
    return (low, high) if isinstance(low, str) and isinstance(high, str) else (None, None)
