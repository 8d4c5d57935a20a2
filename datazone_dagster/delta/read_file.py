"""Rows of one logical file: all live ones, or those at given positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt
from pyroaring import BitMap64

from datazone_dagster.delta import rows_at_a_time
from datazone_dagster.delta.transaction_log import LiveFile, Snapshot


def live_batches(
    snapshot: Snapshot, file: LiveFile, schema: pa.Schema, gone: BitMap64
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file except those at `gone`, some thousand at a time.

    Args:
        snapshot: The table.
        file: File of the table.
        schema: Columns to read, with the types that the rows are to have.
        gone: Row positions to leave out; those in the file's own deletion vector must be
            included.
    """
    positions = _sorted(gone)
    for start, batch in _batches(snapshot, file, schema, None):
        in_batch = _between(positions, start, start + batch.num_rows)
        if len(in_batch) == batch.num_rows:
            continue
        if len(in_batch):
            live = np.ones(batch.num_rows, dtype=bool)
            live[in_batch - start] = False
            batch = batch.filter(pa.array(live))  # noqa: PLW2901  # the same rows, fewer
        yield batch


def all_rows(snapshot: Snapshot, schema: pa.Schema) -> pa.Table:
    """Return the live rows of a table in memory, in these columns.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    batches = (
        batch
        for file in snapshot.files
        for batch in live_batches(snapshot, file, schema, snapshot.deleted_in(file))
    )
    return pa.Table.from_batches(batches, schema)


def numbered_batches(
    snapshot: Snapshot, file: LiveFile, schema: pa.Schema
) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.int64]], pa.RecordBatch]]:
    """Yield the live rows of a file, some thousand at a time, with their positions in the file.

    Raises:
        OSError: The store failed.
        StorageError: The deletion vector is damaged.
    """
    gone = _sorted(snapshot.deleted_in(file))
    for start, batch in _batches(snapshot, file, schema, None):
        positions = np.arange(start, start + batch.num_rows, dtype=np.int64)
        in_batch = _between(gone, start, start + batch.num_rows)
        if len(in_batch):
            live = np.ones(batch.num_rows, dtype=bool)
            live[in_batch - start] = False
            batch, positions = batch.filter(pa.array(live)), positions[live]  # noqa: PLW2901
        yield positions, batch


def rows_at(snapshot: Snapshot, file: LiveFile, schema: pa.Schema, positions: BitMap64) -> pa.Table:
    """Return the rows of a file at these positions, in ascending order of position."""
    wanted = _sorted(positions)
    found = [
        batch.take(pa.array(in_batch - start))
        for start, batch in _batches(snapshot, file, schema, wanted)
        if len(in_batch := _between(wanted, start, start + batch.num_rows))
    ]
    return pa.Table.from_batches(found, schema)


def _sorted(bitmap: BitMap64) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(bitmap.to_array(), dtype=np.int64)


def _between(
    positions: np.ndarray[Any, np.dtype[np.int64]], start: int, end: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    low, high = np.searchsorted(positions, (start, end))
    return positions[low:high]


def _batches(
    snapshot: Snapshot,
    file: LiveFile,
    schema: pa.Schema,
    wanted: np.ndarray[Any, np.dtype[np.int64]] | None,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield each batch with the position of its first row; skip row groups without `wanted`."""
    with snapshot.store.open(file.path, file.size_bytes) as handle:
        parquet = pq.ParquetFile(handle, pre_buffer=not snapshot.store.is_local)
        existing = set(parquet.schema_arrow.names)
        columns = [name for name in schema.names if name in existing]
        start = 0
        for group in range(parquet.num_row_groups):
            metadata = parquet.metadata.row_group(group)
            end = start + metadata.num_rows
            if wanted is not None and not len(_between(wanted, start, end)):
                start = end
                continue
            size = rows_at_a_time(metadata)
            for batch in parquet.iter_batches(
                size, row_groups=[group], columns=columns, use_threads=not snapshot.store.is_local
            ):
                yield start, _as_table(batch, file, schema)
                start += batch.num_rows


def _as_table(batch: pa.RecordBatch, file: LiveFile, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch in `schema`, with partition values and nulls for columns added later."""
    names = set(batch.schema.names)
    return pa.RecordBatch.from_arrays(
        [
            batch.column(field.name).cast(field.type)
            if field.name in names
            else pa.repeat(
                partition_scalar(file.partition_values.get(field.name), field.type), batch.num_rows
            )
            for field in schema
        ],
        schema=schema,
    )


def partition_scalar(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """Parse a partition value as spelled in the log."""
    if not text:
        return pa.scalar(None, kind)
    if pt.is_timestamp(kind):
        naive = pa.scalar(text.removesuffix("Z")).cast(pa.timestamp("us"))
        return pc.assume_timezone(naive, kind.tz) if kind.tz else naive
    return pa.scalar(text).cast(kind)
