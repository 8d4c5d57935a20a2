"""Lookup of the rows of given keys: their files and row positions.

Only the key column is read, from files and row groups whose bounds may contain a key, and from
the second time on an index of it that the process keeps (`kept_indexes`). Versions are read only
from row groups where one may not be below that of its key's change. Memory has the rows
being decoded, the rows found and the indexes, not the files.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap64

from datazone_dagster.delta.read_file import rows_at
from datazone_dagster.delta.transaction_log import LiveFile, Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.process.container import usable_cores
from datazone_dagster.rows.bucket_files import may_have_keys
from datazone_dagster.rows.kept_indexes import KEPT_INDEXES, KeptFile, RowGroup
from datazone_dagster.rows.key_columns import KeyColumns
from datazone_dagster.rows.key_filter import KeyFilter, RowPositions
from datazone_dagster.rows.key_index import HashedKeys, KeyIndexBuilder

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
among the keys given, and version; the version is null where it is known to be lower than that of
the key's change."""

LOOKED_UP_ROWS = 1 << 19
"""Candidate rows that are looked up together: each lookup builds the hash table of the keys
again."""

MANY_FILES = 16
"""Number of files from which on sorting the keys is cheaper than comparing each with all bounds."""

AT_ONCE_ROWS = 1 << 17
"""Rows that get their index in their first lookup: for a few, that costs less than a lookup
without, which needs a filter and a hash table of the keys (5 to 10 ms for ten thousand keys)."""

THREADS = min(4, usable_cores())


class _Wanted:
    """The keys to locate.

    Args:
        keys: The keys, in the order given.
        texts: The keys sorted, if there are many bounds to compare them with; else None.
        changed_to: Version of each key's change; None: every version of the table matters.
    """

    def __init__(
        self, keys: pa.Array, texts: list[str] | None, changed_to: pa.ChunkedArray | None
    ) -> None:
        self.keys = keys
        self._changed_to = changed_to
        self._texts = texts
        self._lock = Lock()
        self._at_once_rows = AT_ONCE_ROWS
        self._key_filter: KeyFilter | None = None
        self._hashed: HashedKeys | None = None

    @property
    def key_filter(self) -> KeyFilter:
        """Filter made from the keys, for rows that are read."""
        with self._lock:
            self._key_filter = self._key_filter or KeyFilter(self.keys)
            return self._key_filter

    @property
    def hashed(self) -> HashedKeys:
        """Hashes of the keys, for rows that have an index."""
        with self._lock:
            self._hashed = self._hashed or HashedKeys(self.keys)
            return self._hashed

    def indexes_at_once(self, rows: int) -> bool:
        """Return whether a row group of so many rows is to get its index in its first lookup."""
        with self._lock:
            if rows > self._at_once_rows:
                return False
            self._at_once_rows -= rows
            return True

    def matters(self, highest: str | None, change_rows: RowPositions) -> bool:
        """Return whether a version up to `highest` of one of these keys may not be a lower one."""
        if self._changed_to is None or highest is None:
            return True
        versions = self._changed_to.take(pa.array(change_rows))
        return bool(pc.any(pc.less_equal(versions, highest)).as_py())

    def may_be_in(self, low: str | None, high: str | None) -> bool:
        """Return whether a key is within bounds; Parquet and Arrow compare texts as UTF-8."""
        if self._texts is not None:
            start = 0 if low is None else bisect_left(self._texts, low)
            return start < (len(self._texts) if high is None else bisect_right(self._texts, high))
        inside = pc.greater_equal(self.keys, "" if low is None else low)
        if high is not None:
            inside = pc.and_(inside, pc.less_equal(self.keys, high))
        return bool(pc.any(inside).as_py())


def locate(
    snapshot: Snapshot,
    keys: pa.ChunkedArray,
    *,
    changed_to: pa.ChunkedArray | None = None,
    bucket: KeyBucket = WHOLE,
) -> pa.Table:
    """Return the live rows of these keys, in `SCHEMA`.

    Args:
        snapshot: Snapshot of the table.
        keys: Keys, each once.
        changed_to: Version of each key's change: a lower one in the table need not be read. None:
            every version is read.
        bucket: Bucket of the keys: files that have none of its keys are not opened.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    if not len(keys):
        return SCHEMA.empty_table()
    one = pa.array(keys.combine_chunks())
    texts = sorted(one.to_pylist()) if len(snapshot.files) >= MANY_FILES else None
    wanted = _Wanted(one, texts, changed_to)
    kept = KEPT_INDEXES.files_of(snapshot)
    tasks = [
        (kept(file), number, file)
        for number, file in enumerate(snapshot.files)
        if may_have_keys(file, bucket)
        and wanted.may_be_in(file.minimum.get(KEY), file.maximum.get(KEY))
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


def _in_file(
    snapshot: Snapshot, wanted: _Wanted, kept: KeptFile, number: int, file: LiveFile
) -> pa.Table:
    with KeyColumns(snapshot.store, file) as columns:
        if kept.groups is None:
            KEPT_INDEXES.found(kept, columns.groups())
        groups = [group for group in kept.groups or () if wanted.may_be_in(group.low, group.high)]
        row_positions, change_rows = _look_up(snapshot, kept, columns, groups, wanted)
        if file.vector is not None and len(row_positions):
            live = _are_live(row_positions, snapshot.deleted_in(file))
            row_positions, change_rows = row_positions[live], change_rows[live]
        return pa.table(
            [
                pa.array(np.full(len(row_positions), number, np.int32)),
                pa.array(row_positions),
                pa.array(change_rows.astype(np.int32)),
                _versions(columns, groups, row_positions, change_rows, wanted),
            ],
            schema=SCHEMA,
        )


def _are_live(
    row_positions: RowPositions, deleted: BitMap64
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return per position whether its row is not deleted."""
    gone = deleted & BitMap64(row_positions.astype(np.uint64))
    return np.isin(row_positions, np.array(gone.to_array(), np.int64), invert=True)


def _look_up(
    snapshot: Snapshot,
    kept: KeptFile,
    columns: KeyColumns,
    groups: Sequence[RowGroup],
    wanted: _Wanted,
) -> tuple[RowPositions, RowPositions]:
    """Return the positions of rows with a key, in order, and the index of each row's key."""
    _index_at_once(snapshot, kept, columns, groups, wanted)
    others, found = [], []
    for group in groups:
        index = kept.indexes.get(group.number)
        if index is None:
            others.append(group)
        else:
            row_positions, change_rows = index.look_up(wanted.hashed)
            found.append((row_positions + group.rows.start, change_rows))
    if others or not found:
        with KEPT_INDEXES.builders(snapshot, kept, others) as builders:
            found.append(_read(columns, others, wanted, builders))
    row_positions = np.concatenate([one for one, _ in found])
    change_rows = np.concatenate([one for _, one in found])
    order = np.argsort(row_positions)
    return row_positions[order], change_rows[order]


def _index_at_once(
    snapshot: Snapshot,
    kept: KeptFile,
    columns: KeyColumns,
    groups: Sequence[RowGroup],
    wanted: _Wanted,
) -> None:
    unknown = (group for group in groups if group.number not in kept.indexes)
    few = [group for group in unknown if wanted.indexes_at_once(len(group.rows))]
    if not few:
        return
    kept.read_once.update(group.number for group in few)
    with KEPT_INDEXES.builders(snapshot, kept, few) as builders:
        for group in few:
            if group.number in builders:
                for _, column in columns.column(group, KEY):
                    builders[group.number].add(column)


def _read(
    columns: KeyColumns,
    groups: Sequence[RowGroup],
    wanted: _Wanted,
    builders: Mapping[int, KeyIndexBuilder],
) -> tuple[RowPositions, RowPositions]:
    """Read the keys of row groups; return the same as `_look_up`, and build their indexes."""
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

    for group in groups:
        builder = builders.get(group.number)
        for start, column in columns.column(group, KEY):
            candidates = wanted.key_filter.passing(column)
            texts.append(column.take(pa.array(candidates)))
            at.append(candidates + (group.rows.start + start))
            if builder is not None:
                builder.add(column)
            if sum(map(len, at)) >= LOOKED_UP_ROWS:
                look_up()
    if texts:
        look_up()
    return np.concatenate(row_positions), np.concatenate(change_rows)


def _versions(
    columns: KeyColumns,
    groups: Sequence[RowGroup],
    row_positions: RowPositions,
    change_rows: RowPositions,
    wanted: _Wanted,
) -> pa.ChunkedArray:
    """Return the versions at these positions, which are in order; null where they don't matter."""
    versions: list[pa.Array] = []
    for group in groups:
        low, high = np.searchsorted(row_positions, (group.rows.start, group.rows.stop))
        inside = row_positions[low:high] - group.rows.start
        if not len(inside):
            continue
        if not wanted.matters(group.highest_version, change_rows[low:high]):
            versions.append(pa.nulls(len(inside), pa.string()))
            continue
        for start, column in columns.column(group, VERSION):
            here = inside[(inside >= start) & (inside < start + len(column))] - start
            versions.append(column.take(pa.array(here)))
    return pa.chunked_array(versions, pa.string())
