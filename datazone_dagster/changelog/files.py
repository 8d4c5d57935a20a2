"""Parquet files of the change log: how one is written, and what the Delta log is told of it.

They are written here and not by delta-rs, which spends twice the CPU on the same bytes. A
file belongs to one bucket and is sorted by batch.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from datazone_dagster.changelog.schema import REPEATING, WRITTEN_SCHEMA
from datazone_dagster.model.columns import Log

ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 16 << 20
"""Bounds of a row group, decoded: a reader holds one at a time, whatever an item weighs."""

_WITH_STATISTICS = (Log.BATCH, Log.EVENT_TIME)


@dataclass
class _Statistics:
    """What the Delta log tells of a file; images have no place in it."""

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


def write_file(
    store: pafs.FileSystem, bucket: int, parts: Iterable[pa.Table], *, data_change: bool = True
) -> AddAction | None:
    """Write one file of a bucket.

    Args:
        store: The table's folder.
        bucket: The partition that all rows are in.
        parts: Rows in `WRITTEN_SCHEMA`, by batch; no more than a row group is held at a time.
        data_change: Whether the rows are new to the table.

    Returns:
        What has to be committed for the file to count; None if there were no rows, and no file.
    """
    path = f"{folder_of(bucket)}/part-{uuid.uuid4()}.zstd.parquet"
    statistics = _Statistics()
    groups = _row_groups(parts)
    first = next(groups, None)
    if first is None:
        return None
    store.create_dir(path.rpartition("/")[0], recursive=True)
    try:
        with (
            store.open_output_stream(path) as sink,
            pq.ParquetWriter(
                sink,
                WRITTEN_SCHEMA,
                compression="zstd",
                compression_level=1,
                use_dictionary=list(REPEATING),
                write_statistics=list(_WITH_STATISTICS),
                store_schema=False,
            ) as writer,
        ):
            for rows in itertools.chain([first], groups):
                statistics.add(rows)
                writer.write_table(rows)
            writer.close()
            size_bytes = sink.tell()
    except BaseException:
        # Nothing refers to it, and no vacuum of ours would find it.
        with suppress(OSError):
            store.delete_file(path)
        raise
    return AddAction(
        path=path,
        size=size_bytes,
        partition_values={Log.BUCKET: str(bucket)},
        modification_time=time.time_ns() // 1_000_000,
        data_change=data_change,
        stats=statistics.to_json(),
    )


def folder_of(bucket: int) -> str:
    """Where the files of a bucket are."""
    return f"{Log.BUCKET}={bucket}"


def _row_groups(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of the size of a row group."""
    pending: list[pa.Table] = []
    pending_rows = pending_bytes = 0
    for part in parts:
        for piece in _pieces(part):
            full = pending_rows + len(piece) > ROW_GROUP_ROWS
            if pending and (full or pending_bytes + piece.nbytes > ROW_GROUP_BYTES):
                yield _joined(pending)
                pending, pending_rows, pending_bytes = [], 0, 0
            pending.append(piece)
            pending_rows += len(piece)
            pending_bytes += piece.nbytes
    if pending:
        yield _joined(pending)


def _pieces(part: pa.Table) -> Iterator[pa.Table]:
    """Halves of halves, until each fits a row group or is one row."""
    if len(part) <= 1 or (len(part) <= ROW_GROUP_ROWS and part.nbytes <= ROW_GROUP_BYTES):
        if len(part):
            yield part
        return
    half = len(part) // 2
    yield from _pieces(part.slice(0, half))
    yield from _pieces(part.slice(half))


def _joined(pieces: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(pieces).unify_dictionaries()
