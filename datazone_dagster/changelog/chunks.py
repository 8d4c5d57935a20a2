"""Rows of the change log, cut into what a dataset takes at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.model.columns import Log

CHUNK_COLUMNS = [name for name in SCHEMA.names if name != Log.BUCKET]


@dataclass(frozen=True)
class Chunk:
    """Whole batches of the change log, oldest first; the unit that a dataset takes at once."""

    first_batch: int
    last_batch: int
    rows: pa.Table


def cut_into_chunks(parts: Iterable[pa.Table], chunk_bytes: int) -> Iterator[Chunk]:
    """Whole batches each; a chunk ends with the batch in which it passes `chunk_bytes` (decoded).

    Memory holds one chunk and one part.

    Args:
        parts: Rows in the order of their batches; a batch may go over several.
        chunk_bytes: How much a chunk is.
    """
    pending: list[pa.Table] = []
    pending_bytes = 0
    for part in parts:
        for batch_rows in _by_batch(part):
            same_batch = pending and _batch_of(pending[-1]) == _batch_of(batch_rows)
            if pending_bytes >= chunk_bytes and not same_batch:
                yield _chunk(pending)
                pending, pending_bytes = [], 0
            pending.append(batch_rows)
            pending_bytes += batch_rows.nbytes
    if pending:
        yield _chunk(pending)


def _batch_of(rows: pa.Table) -> int:
    return int(rows[Log.BATCH][0].as_py())


def _by_batch(rows: pa.Table) -> Iterator[pa.Table]:
    """Consecutive runs of rows that share a batch."""
    runs = pc.run_end_encode(rows[Log.BATCH].combine_chunks())
    start = 0
    for end in runs.run_ends.to_pylist():
        yield rows.slice(start, end - start)
        start = end


def _chunk(parts: list[pa.Table]) -> Chunk:
    rows = pa.concat_tables(parts)
    return Chunk(_batch_of(rows), int(rows[Log.BATCH][-1].as_py()), rows)
