"""Parquet files of the change log: writing one, and its statistics for the Delta log.

The files are written here and not by delta-rs, which spends twice the CPU on the same bytes. A
file belongs to one bucket and is sorted by batch.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from datazone_dagster.changelog.key_slots_note import slots_tag
from datazone_dagster.changelog.numbering import is_numbered, numbered
from datazone_dagster.changelog.schema import REPEATING, WRITTEN_SCHEMA, bucket_of
from datazone_dagster.changelog.slot_parts import (
    MOST_RANGES,
    SLOTS_NOTE,
    SlotParts,
    notes_to_json,
    ranges_of,
)
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import StoreUnavailableError
from datazone_dagster.model.column_names import Log

ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 16 << 20
"""Bounds of a row group, decoded: a reader has one in memory at a time, however large an item."""

_WITH_STATISTICS = (Log.BATCH, Log.EVENT_TIME)


@dataclass
class LogFile(AddAction):
    """File to commit; `slot_bits` has the slots of its keys, as bits: None if it may have any."""

    slot_bits: int | None = None


@dataclass
class _Statistics:
    """Statistics of a file in the Delta log; images have none."""

    rows: int = 0
    bounds: dict[str, list[object]] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_WITH_STATISTICS, 0))

    def add(self, rows: pa.Table) -> None:
        self.rows += len(rows)
        for name in _WITH_STATISTICS:
            self.nulls[name] += rows[name].null_count
            found = pc.min_max(rows[name]).as_py()
            if found["min"] is not None:
                low, high = self.bounds.get(name, [found["min"], found["max"]])
                self.bounds[name] = [min(low, found["min"]), max(high, found["max"])]

    def to_json(self) -> str:
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: _shown(low) for name, (low, _) in self.bounds.items()},
                "maxValues": {name: _shown(high) for name, (_, high) in self.bounds.items()},
                "nullCount": self.nulls,
            }
        )


def _shown(value: object) -> object:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


class FileWriter:
    """One file of a bucket, written a row group at a time as its rows arrive.

    A context manager: an unfinished file is deleted. At most one row group is in memory.

    Args:
        store: Folder of the table.
        bucket: Partition of all rows.
        data_change: Whether the rows are new to the table.
        by_slots: Number of ranges of slots by which the rows of a batch of several row groups are
            laid out: see `slot_parts`. 0: in the order given.
    """

    def __init__(
        self, store: TableStore, bucket: int, *, data_change: bool = True, by_slots: int = 0
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._parts = SlotParts(ROW_GROUP_ROWS, ROW_GROUP_BYTES, by_slots) if by_slots else None
        self._data_change = data_change
        self._path = f"{folder_of(bucket)}/part-{uuid.uuid4()}.zstd.parquet"
        self._statistics = _Statistics()
        self._group = _RowGroup()
        self._notes: list[tuple[int, int] | None] = []
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Add rows in `WRITTEN_SCHEMA`, sorted by batch.

        Raises:
            OSError: The store failed.
        """
        if self._parts is None:
            self._write_plain(rows)
        else:
            self._write_parts(self._parts.add(rows))

    def finish(self) -> LogFile | None:
        """Write the remaining rows, and close the file.

        Returns:
            Action to commit for the file to count; None, and no file, if there were no rows.

        Raises:
            OSError: The store failed.
        """
        if self._parts is not None:
            self._write_parts(self._parts.flush())
        self._write_group()
        if self._writer is None or self._sink is None:
            return None
        if any(note is not None for note in self._notes):
            self._writer.add_key_value_metadata({SLOTS_NOTE: notes_to_json(self._notes)})
        self._writer.close()
        size_bytes = self._sink.tell()
        self._sink.close()
        self._writer = self._sink = None
        return LogFile(
            path=self._path,
            size=size_bytes,
            partition_values={Log.BUCKET: str(self._bucket)},
            modification_time=time.time_ns() // 1_000_000,
            data_change=self._data_change,
            stats=self._statistics.to_json(),
            slot_bits=None if self._parts is None else self._parts.slot_bits,
        )

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sink is None or isinstance(error, StoreUnavailableError):
            return  # Maintenance finds the file, should it have arrived.
        # Nothing refers to the file, and no vacuum of ours would find it.
        with suppress(OSError):
            if self._writer is not None:
                self._writer.close()
        with suppress(OSError):
            self._sink.close()
        with suppress(OSError):
            self._store.delete([self._path])

    def _write_plain(self, rows: pa.Table) -> None:
        for piece in _pieces(rows):
            if not self._group.fits(piece):
                self._write_group()
            self._group.add(piece)

    def _write_parts(self, parts: Iterable[tuple[pa.Table, tuple[int, int] | None]]) -> None:
        for rows, slots in parts:
            if slots is None:
                self._write_plain(rows)
                continue
            self._write_group()
            for piece in _pieces(rows):
                self._group.add(piece)
                self._write_group(slots)

    def _write_group(self, slots: tuple[int, int] | None = None) -> None:
        """Write the buffered rows, if any, as a row group of keys of these slots; None: of all."""
        if not self._group.rows:
            return
        rows = self._group.take()
        self._statistics.add(rows)
        self._opened().write_table(rows)
        self._notes.append(slots)

    def _opened(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._sink = self._store.open_output(self._path)
            self._writer = pq.ParquetWriter(
                self._sink,
                WRITTEN_SCHEMA,
                compression="zstd",
                compression_level=1,
                use_dictionary=list(REPEATING),
                write_statistics=list(_WITH_STATISTICS),
                store_schema=False,
            )
        return self._writer


class _RowGroup:
    """Rows buffered until they fill a row group."""

    def __init__(self) -> None:
        self.rows = 0
        self._bytes = 0
        self._pieces: list[pa.Table] = []

    def fits(self, piece: pa.Table) -> bool:
        within_bytes = self._bytes + piece.nbytes <= ROW_GROUP_BYTES
        return not self.rows or (within_bytes and self.rows + len(piece) <= ROW_GROUP_ROWS)

    def add(self, piece: pa.Table) -> None:
        self._pieces.append(piece)
        self.rows += len(piece)
        self._bytes += piece.nbytes

    def take(self) -> pa.Table:
        rows = pa.concat_tables(self._pieces).unify_dictionaries()
        self._pieces = []
        self.rows = self._bytes = 0
        return rows


def write_file(
    store: TableStore,
    bucket: int,
    tables: Iterable[pa.Table],
    *,
    data_change: bool = True,
    by_slots: int = 0,
) -> LogFile | None:
    """Write the rows of `tables` into one file of a bucket: see `FileWriter`."""
    with FileWriter(store, bucket, data_change=data_change, by_slots=by_slots) as file:
        for rows in tables:
            file.write(rows)
        return file.finish()


def renumbered(store: TableStore, file: AddAction, batch: int) -> AddAction:
    """Write a file of one batch again, under another number.

    Args:
        store: Folder of the table.
        file: File whose rows all belong to one batch.
        batch: Number that the rows get.

    Raises:
        OSError: The store failed.
    """
    at = WRITTEN_SCHEMA.get_field_index(Log.BATCH)
    noted = isinstance(file, LogFile) and file.slot_bits is not None
    with store.open(file.path, file.size) as handle:
        parquet = pq.ParquetFile(handle)

        def groups() -> Iterator[pa.Table]:
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number).select(WRITTEN_SCHEMA.names)
                batches = pa.repeat(pa.scalar(batch, pa.int64()), len(rows))
                yield rows.set_column(at, WRITTEN_SCHEMA.field(at), batches).cast(WRITTEN_SCHEMA)

        written = write_file(
            store,
            bucket_of(batch),
            groups(),
            data_change=file.data_change,
            by_slots=ranges_of(parquet.metadata) or (MOST_RANGES if noted else 0),
        )
    assert written is not None, "a file of a batch has rows"
    return written


def add_action(file: AddAction, batch: int | None = None) -> dict[str, Any]:
    """Return the value of the add action of a file, as in a log entry.

    Args:
        file: The file.
        batch: Number of its only batch, if the rows do not have it.
    """
    tags = slots_tag(file.slot_bits) if isinstance(file, LogFile) else {}
    action = {
        "path": file.path,
        "partitionValues": dict(file.partition_values),
        "size": file.size,
        "modificationTime": file.modification_time,
        "dataChange": file.data_change,
        "stats": file.stats,
        **({"tags": tags} if tags else {}),
    }
    return action if batch is None or is_numbered(file) else numbered(action, batch)


def folder_of(bucket: int) -> str:
    """Return the folder of a bucket's files, relative to the table."""
    return f"{Log.BUCKET}={bucket}"


def _pieces(rows: pa.Table) -> Iterator[pa.Table]:
    """Halve the rows until each piece fits a row group or is one row."""
    if len(rows) <= 1 or (len(rows) <= ROW_GROUP_ROWS and rows.nbytes <= ROW_GROUP_BYTES):
        if len(rows):
            yield rows
        return
    half = len(rows) // 2
    yield from _pieces(rows.slice(0, half))
    yield from _pieces(rows.slice(half))
