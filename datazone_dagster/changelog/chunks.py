"""Rows of the change log, cut into what a dataset takes at once. Pure."""

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
    """Whole batches of the change log, oldest first; the unit that a dataset takes at once.

    `decoded_bytes` is its size as `cut_into_chunks` measured it.
    """

    first_batch: int
    last_batch: int
    rows: pa.Table
    decoded_bytes: int


def cut_into_chunks(
    parts: Iterable[tuple[pa.Table, float]], chunk_bytes: int, row_bytes: float = 0.0
) -> Iterator[Chunk]:
    """Whole batches each; a chunk ends with the batch in which it passes `chunk_bytes` (decoded).

    Memory holds one chunk and one part.

    Args:
        parts: Rows in the order of their batches; a batch may go over several. With each what a
            row counts beside its own bytes.
        chunk_bytes: How much a chunk is.
        row_bytes: What a row counts at least.
    """
    pending: list[pa.Table] = []
    pending_bytes = 0
    for part, more_bytes in parts:
        for batch_rows in _by_batch(part):
            same_batch = pending and _batch_of(pending[-1]) == _batch_of(batch_rows)
            if pending_bytes >= chunk_bytes and not same_batch:
                yield _chunk(pending, pending_bytes)
                pending, pending_bytes = [], 0
            pending.append(batch_rows)
            rows = len(batch_rows)
            pending_bytes += int(max(batch_rows.nbytes + rows * more_bytes, rows * row_bytes))
    if pending:
        yield _chunk(pending, pending_bytes)


def _batch_of(rows: pa.Table) -> int:
    return int(rows[Log.BATCH][0].as_py())


def _by_batch(rows: pa.Table) -> Iterator[pa.Table]:
    """Consecutive runs of rows that share a batch."""
    runs = pc.run_end_encode(rows[Log.BATCH].combine_chunks())
    start = 0
    for end in runs.run_ends.to_pylist():
        yield rows.slice(start, end - start)
        start = end


def _chunk(parts: list[pa.Table], decoded_bytes: int) -> Chunk:
    rows = pa.concat_tables(parts)
    return Chunk(_batch_of(rows), int(rows[Log.BATCH][-1].as_py()), rows, decoded_bytes)
