"""Chunks: the rows of the change log that a dataset applies at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.model.column_names import Log

CHUNK_COLUMNS = [name for name in SCHEMA.names if name != Log.BUCKET]


@dataclass(frozen=True)
class Chunk:
    """Complete batches of the change log, oldest first: the unit that a dataset applies at once.

    `decoded_bytes` is the chunk's size as measured by `cut_into_chunks`.
    """

    first_batch: int
    last_batch: int
    rows: pa.Table
    decoded_bytes: int


def cut_into_chunks(tables: Iterable[tuple[pa.Table, float]], chunk_bytes: int) -> Iterator[Chunk]:
    """Yield chunks of complete batches; a chunk ends with the batch that reaches `chunk_bytes`.

    At most one chunk and one table are in memory.

    Args:
        tables: Rows in the order of their batches, each table with the bytes that a row counts
            in addition to its own. A batch may span several tables.
        chunk_bytes: Size of a chunk, decoded, in bytes.
    """
    pending: list[pa.Table] = []
    pending_bytes = 0
    for table, more_bytes in tables:
        for batch_rows in _by_batch(table):
            same_batch = pending and _batch_of(pending[-1]) == _batch_of(batch_rows)
            if pending_bytes >= chunk_bytes and not same_batch:
                yield _chunk(pending, pending_bytes)
                pending, pending_bytes = [], 0
            pending.append(batch_rows)
            pending_bytes += int(batch_rows.nbytes + len(batch_rows) * more_bytes)
    if pending:
        yield _chunk(pending, pending_bytes)


def _batch_of(rows: pa.Table) -> int:
    return int(rows[Log.BATCH][0].as_py())


def _by_batch(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield consecutive runs of rows that share a batch."""
    runs = pc.run_end_encode(rows[Log.BATCH].combine_chunks())
    start = 0
    for end in runs.run_ends.to_pylist():
        yield rows.slice(start, end - start)
        start = end


def _chunk(tables: list[pa.Table], decoded_bytes: int) -> Chunk:
    rows = pa.concat_tables(tables)
    return Chunk(_batch_of(rows), int(rows[Log.BATCH][-1].as_py()), rows, decoded_bytes)
