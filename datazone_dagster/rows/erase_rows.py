"""Erasure of rows from a table's files, from its older versions and from its Delta log.

Rows that a deletion vector hides, and rows of older versions, are in the files as much as live
ones: all files of the folder are searched. The files that have a searched row are rewritten without
it in one commit; then the log is redacted; then the old files are deleted, in this order: a file
that still has a searched row shows the next attempt that the work is not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyroaring import BitMap64

from datazone_dagster.delta import guarded, open_table, rows_at_a_time, transactions
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.read_table import last_transaction, schema_of
from datazone_dagster.delta.redact_log import redact_log
from datazone_dagster.delta.removed_files import removals as removed_files
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.stored_files import StoredFile
from datazone_dagster.delta.transaction_log import LOG, Action, LiveFile, Snapshot, read_snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.process import crash_points
from datazone_dagster.rows.bucket_files import tag_in, tagged

ATTEMPTS = 8
"""Attempts at one commit while others write to the table."""

IN_FLIGHT = timedelta(hours=3)
"""Age up to which a file that no version has may belong to a writer that is about to commit it."""


@dataclass(frozen=True, slots=True)
class Search:
    """Rows to erase.

    Args:
        columns: Columns that decide; a file that has none of them has no such row.
        find: Function of a batch with these columns; it returns one value per row: a name of
            what was found, null for rows that stay.
    """

    columns: tuple[str, ...]
    find: Callable[[pa.RecordBatch], pa.Array]


WriteFile = Callable[[Snapshot, LiveFile, Iterator[pa.RecordBatch], pa.Schema], Action | None]
"""Writes the remaining rows of a file to a new one; returns its add action, None without rows."""


@dataclass(frozen=True, slots=True)
class ErasableTable:
    """A table to erase rows from.

    Args:
        uri: URI of the table.
        storage_options: Options of its store.
        kind: Kind of the table, as in `open_table`.
        search: The rows.
        mark: Application id whose version counts the erasures, for tables whose writers have to
            notice one; None for others.
        writers: Application ids of these writers. The commit repeats their versions, and so none of
            them can commit on top of it what it planned before.
        check: Called with the version to commit on; raises `ConcurrentWriterError` if it has to
            wait for another commit.
        lost: Called after each attempt that others were faster than, with the number of these and
            the seconds that this one took.
        done: Called once after the last attempt, whatever its end.
        left: Returns what the newest version still has beside its rows; None if it has nothing.
        properties: Table properties that may have a value of a row.
        write: Writes a file.
    """

    uri: str
    storage_options: Mapping[str, str]
    kind: str
    search: Search
    mark: str | None = None
    writers: tuple[str, ...] = ()
    check: Callable[[DeltaTable], None] = lambda table: None  # noqa: ARG005
    lost: Callable[[int, float], None] = lambda attempts, seconds: None  # noqa: ARG005
    done: Callable[[], None] = lambda: None
    left: Callable[[Snapshot], str | None] = lambda snapshot: None  # noqa: ARG005
    properties: tuple[str, ...] = ()
    write: WriteFile | None = None


@dataclass(frozen=True, slots=True)
class FilesWithRows:
    """Files of a table's folder that have a searched row.

    Args:
        live: Files of the newest version with the positions of the rows.
        old: Paths of files of older versions, and of files that no version will ever have.
        young: Paths of files that no version has yet; a writer may be about to commit them.
        rows: Number of rows in the live files, hidden ones included.
        size_bytes: Size of the live files.
        found: Names of what was found.
        others: Paths of all other files.
    """

    live: tuple[tuple[LiveFile, BitMap64], ...] = ()
    old: tuple[str, ...] = ()
    young: tuple[str, ...] = ()
    rows: int = 0
    size_bytes: int = 0
    found: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class RowsErased:
    """Result of an erasure in one table; `blocked` is the rule that forbids our commits to it."""

    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    old_files: int = 0
    young_files: int = 0
    log_files: int = 0
    found: frozenset[str] = field(default_factory=frozenset)
    blocked: str | None = None


def look(target: ErasableTable, now: datetime) -> RowsErased | None:
    """Return what `erase_rows` would do; None if there is no table. Nothing is written.

    Raises:
        StorageError: The table can't be read.
    """
    table = open_table(target.uri, target.storage_options, target.kind)
    if table is None:
        return None
    with guarded(target.uri, "Searching for rows to erase"):
        snapshot = read_snapshot(table, target.storage_options)
        found = _search(snapshot, target.search, now, {})
    return _summary(found, why_not(snapshot) if found.live else None)


def erase_rows(target: ErasableTable, now: datetime, *, marked: bool) -> RowsErased | None:
    """Erase rows; return what was done, None if there is no table.

    Interrupted at any point, the table has all its other rows, and a repetition does the rest.

    Args:
        target: The table and the rows.
        now: The current time, by which files of running writers are told from orphans.
        marked: Whether the table's mark is counted up although no row of it is erased.

    Raises:
        ConcurrentWriterError: Others committed first in every attempt, or have to.
        StorageError: The store failed.
    """
    table = open_table(target.uri, target.storage_options, target.kind)
    if table is None:
        return None
    with guarded(target.uri, "Erasing rows"):
        try:
            found = _erased(target, table, now, marked=marked)
        finally:
            target.done()
        if isinstance(found, RowsErased):
            return found
        return _clean(table, target, found)


def _erased(
    target: ErasableTable, table: DeltaTable, now: datetime, *, marked: bool
) -> FilesWithRows | RowsErased:
    """Commit the files without the rows; return what was found, or why our commits are refused.

    No file is searched twice: where others write all the time, an attempt that began with every
    file would lose to them each time.
    """
    searched = dict[str, _Searched]()
    attempt, began_seconds = 0, time.monotonic()
    while True:
        snapshot = read_snapshot(table, target.storage_options)
        found = _search(snapshot, target.search, now, searched)
        blocked = why_not(snapshot)
        if blocked is not None:
            return _summary(found, blocked)
        mark = target.mark if marked or found.live else None
        if not found.live and mark is None:
            return found
        target.check(table)
        try:
            _commit(target, table, snapshot, found, mark)
        except (LostRaceError, ConcurrentWriterError) as error:
            attempt += 1
            if attempt == ATTEMPTS:
                raise _overtaken(target.uri) from error
            target.lost(attempt, time.monotonic() - began_seconds)
            began_seconds = time.monotonic()
            table.update_incremental()
        else:
            crash_points.reach(crash_points.AFTER_ERASED_ROWS)
            return found


def _clean(table: DeltaTable, target: ErasableTable, found: FilesWithRows) -> RowsErased:
    """Redact the log, then delete the old files, the ones just replaced among them."""
    table.update_incremental()
    snapshot = read_snapshot(table, target.storage_options)
    live = {file.path for file in snapshot.files}
    old = {*found.old, *(file.path for file, _ in found.live)} - live
    done = _summary(found, None)
    done.log_files = redact_log(snapshot, [*found.others, *found.young], target.properties)
    done.blocked = target.left(snapshot)
    crash_points.reach(crash_points.AFTER_ERASED_LOG)
    snapshot.store.delete(sorted(old))
    for folder in {path.rpartition("/")[0] for path in old} - {""}:
        snapshot.store.delete_empty_folders(folder)
    done.old_files = len(old)
    return done


def has_rows(root: str, storage_options: Mapping[str, str], search: Search) -> bool:
    """Return whether any Parquet file below a folder, tables within it included, has such a row."""
    store = TableStore(root, storage_options)
    with guarded(root, "Searching for rows to erase"):
        return any(_positions(store, file, search)[0] for file in _stored(store))


def _summary(found: FilesWithRows, blocked: str | None) -> RowsErased:
    return RowsErased(
        files=len(found.live),
        rows=found.rows,
        size_bytes=found.size_bytes,
        old_files=len(found.old),
        young_files=len(found.young),
        found=found.found,
        blocked=blocked,
    )


def _commit(
    target: ErasableTable,
    table: DeltaTable,
    snapshot: Snapshot,
    found: FilesWithRows,
    mark: str | None,
) -> None:
    schema, write = schema_of(table), target.write or _written
    adds = []
    for file, positions in found.live:
        gone = positions | snapshot.deleted_in(file)
        add = write(snapshot, file, live_batches(snapshot, file, schema, gone), schema)
        if add is not None:
            adds.append(add)
    marks = {writer: last_transaction(table, writer) for writer in target.writers}
    if mark is not None:
        marks[mark] = last_transaction(table, mark) + 1
    commit_files(
        snapshot,
        FileActions(
            adds=adds,
            removes=[file for file, _ in found.live],
            written=[add["path"] for add in adds],
        ),
        operation="DELETE",
        parameters={},
        metrics={"numRemovedFiles": len(found.live), "numDeletedRows": found.rows},
        properties=transactions(marks),
    )


def _written(
    snapshot: Snapshot, file: LiveFile, rows: Iterator[pa.RecordBatch], schema: pa.Schema
) -> Action | None:
    add = write_data_file(
        snapshot.store, schema, file.partition_values, rows, plain_columns=(KEY, VERSION)
    )
    return None if add is None else tagged(add, tag_in(file))


_Searched = tuple[BitMap64, set[str]]
"""Positions of the searched rows in a file, and what was found there."""


def _search(
    snapshot: Snapshot, search: Search, now: datetime, searched: dict[str, _Searched]
) -> FilesWithRows:
    """Search all files but those in `searched`, which have their results; a file never changes."""
    live = {file.path: file for file in snapshot.files}
    known = {_path(action) for action in removed_files(snapshot)}
    in_live: list[tuple[LiveFile, BitMap64]] = []
    old: list[str] = []
    young: list[str] = []
    others: list[str] = []
    found: set[str] = set()
    for info in _stored(snapshot.store):
        try:
            if info.path not in searched:
                searched[info.path] = _positions(snapshot.store, info, search)
            positions, names = searched[info.path]
            has_rows = bool(positions)
        except (FileNotFoundError, pa.ArrowInvalid):
            if info.path in live:
                raise
            # Deleted meanwhile, or half written, and then it may have any row.
            positions, names, has_rows = BitMap64(), set(), True
        found |= names
        if not has_rows:
            others.append(info.path)
        elif info.path in live:
            in_live.append((live[info.path], positions))
        elif info.path in known or info.modified_at < now - IN_FLIGHT:
            old.append(info.path)
        else:
            young.append(info.path)
    return FilesWithRows(
        live=tuple(in_live),
        old=tuple(old),
        young=tuple(young),
        rows=sum(len(positions) for _, positions in in_live),
        size_bytes=sum(file.size_bytes for file, _ in in_live),
        found=frozenset(found),
        others=tuple(others),
    )


def _path(action: Action) -> str:
    return LiveFile(action, None).path


def _stored(store: TableStore) -> list[StoredFile]:
    """Return the Parquet files below a folder, except those of Delta logs."""
    return [
        file
        for file in store.files_below()
        if file.path.endswith(".parquet") and LOG not in file.path.split("/")
    ]


def _positions(store: TableStore, file: StoredFile, search: Search) -> _Searched:
    """Return the positions of the searched rows in a file, and what was found."""
    positions, start = BitMap64(), 0
    names: set[str] = set()
    with store.open(file.path, file.size_bytes) as handle:
        parquet = pq.ParquetFile(handle, pre_buffer=not store.is_local)
        existing = [name for name in search.columns if name in parquet.schema_arrow.names]
        if not existing:
            return positions, names
        for group in range(parquet.num_row_groups):
            size = rows_at_a_time(parquet.metadata.row_group(group))
            for batch in parquet.iter_batches(size, row_groups=[group], columns=existing):
                found = search.find(_texts(batch, search.columns))
                valid = pc.is_valid(found)
                if pc.any(valid).as_py():
                    at = np.flatnonzero(valid.to_numpy(zero_copy_only=False))
                    positions.update((at + start).tolist())
                    names |= set(pc.unique(found.filter(valid)).to_pylist())
                start += batch.num_rows
    return positions, names


def _texts(batch: pa.RecordBatch, columns: tuple[str, ...]) -> pa.RecordBatch:
    """Return the columns as strings; those that the file lacks are null."""
    return pa.RecordBatch.from_arrays(
        [
            batch.column(name).cast(pa.string())
            if name in batch.schema.names
            else pa.nulls(batch.num_rows, pa.string())
            for name in columns
        ],
        names=list(columns),
    )


def _overtaken(uri: str) -> ConcurrentWriterError:
    return ConcurrentWriterError(
        f"Erasing rows of {uri}: other writers committed first {ATTEMPTS} times in a row.",
        safe="Nothing of this attempt is in the table; rows erased before stay erased.",
        hint="Run the command again: it goes on where it stopped.",
    )
