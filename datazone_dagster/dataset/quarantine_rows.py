"""Rows of the quarantine: their columns, identity and marks. The table is quarantine.py's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import Log
from datazone_dagster.model.snapshot_state import SCAN_SHARD_ID
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.streamed_rows import PART_BYTES

Flags: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Sizes: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

RECORD_ID = "record_id"
FIRST_SEEN_AT = "first_seen_at"
LAST_SEEN_AT = "last_seen_at"
REDRIVE = "redrive"
"""Number of the redrive that took the record, or is about to; null while the record waits."""
REDRIVEN_AT = "redriven_at"
"""Time at which the record was committed to the dataset."""

_OURS = frozenset({RECORD_ID, FIRST_SEEN_AT, LAST_SEEN_AT, REDRIVE, REDRIVEN_AT})
"""Columns that a record does not have in the change log."""

MARKS = (LAST_SEEN_AT, Log.REASON, REDRIVE, REDRIVEN_AT)
"""Columns that change after a record was stored."""

_TIME = pa.timestamp("us", tz="UTC")
_TEXT_COLUMNS = (
    Log.STREAM_ARN,
    Log.SHARD_ID,
    Log.PARENT_SHARD_ID,
    Log.VERSION,
    Log.EVENT_ID,
    Log.EVENT_NAME,
    Log.KEYS,
    Log.OLD_IMAGE,
    Log.NEW_IMAGE,
    Log.USER_TYPE,
    Log.USER_PRINCIPAL,
    Log.REGION,
    Log.VIEW_TYPE,
    Log.RAW,
    Log.REASON,
)
SCHEMA = pa.schema(
    [
        pa.field(RECORD_ID, pa.string(), nullable=False),
        pa.field(Log.BATCH, pa.int64(), nullable=False),
        *(pa.field(name, pa.string()) for name in _TEXT_COLUMNS),
        pa.field(Log.EVENT_TIME, _TIME),
        pa.field(Log.SIZE_BYTES, pa.int64()),
        pa.field(FIRST_SEEN_AT, _TIME, nullable=False),
        pa.field(LAST_SEEN_AT, _TIME, nullable=False),
        pa.field(REDRIVE, pa.int64()),
        pa.field(REDRIVEN_AT, _TIME),
    ]
)


def redriven_by_now(rows: pa.Table, finished_redrive: int) -> pa.ChunkedArray:
    """Return which rows are of redrives up to this one."""
    return pc.fill_null(pc.less_equal(rows[REDRIVE], finished_redrive), False)


def still_waiting(rows: pa.Table, finished_redrive: int) -> pa.Table:
    """Return the rows that no redrive up to this one has taken to the dataset."""
    done = pc.or_(pc.is_valid(rows[REDRIVEN_AT]), redriven_by_now(rows, finished_redrive))
    return rows.filter(pc.invert(done))


def redriven_times(rows: pa.Table, arrived: pa.ChunkedArray, now: datetime) -> pa.ChunkedArray:
    """Return `redriven_at`: unchanged where it is set, `now` where a record has arrived."""
    fresh = pc.and_(arrived, pc.is_null(rows[REDRIVEN_AT]))
    return pc.if_else(fresh, pa.scalar(now, _TIME), rows[REDRIVEN_AT])


def seen_again(
    rows: pa.Table, ids: pa.Array, reasons: pa.ChunkedArray, now: datetime
) -> dict[str, pa.ChunkedArray]:
    """Return the marks of all stored rows, in which those with these ids wait from now on."""
    at = pc.index_in(rows[RECORD_ID], ids)
    again = pc.is_valid(at)
    return {
        LAST_SEEN_AT: pc.if_else(again, pa.scalar(now, _TIME), rows[LAST_SEEN_AT]),
        Log.REASON: pc.if_else(again, reasons.take(at), rows[Log.REASON]),
        REDRIVE: pc.if_else(again, pa.scalar(None, pa.int64()), rows[REDRIVE]),
        REDRIVEN_AT: pc.if_else(again, pa.scalar(None, _TIME), rows[REDRIVEN_AT]),
    }


def new_rows(
    changes: pa.Table, ids: pa.Array, new: Flags, now: datetime
) -> Iterator[pa.RecordBatch]:
    """Yield the quarantine's rows for the changes that are new, `PART_BYTES` at a time."""
    time = pa.scalar(now, _TIME)
    names = [name for name in SCHEMA.names if name not in _OURS]
    for start, end in parts(_text_bytes(changes), PART_BYTES):
        flags = pa.array(new[start:end])
        # A filter copies its part only; `take` would join all chunks first.
        records = changes.select(names).slice(start, end - start).filter(flags)
        ours = {
            RECORD_ID: ids.slice(start, end - start).filter(flags),
            FIRST_SEEN_AT: time,
            LAST_SEEN_AT: time,
            # A record that is not a stream record has no size: that of its text.
            Log.SIZE_BYTES: pc.coalesce(
                pc.cast(pc.binary_length(records[Log.RAW]), pa.int64()), records[Log.SIZE_BYTES]
            ),
        }
        yield from aligned(records, SCHEMA, ours).to_batches()


def _text_bytes(changes: pa.Table) -> Sizes:
    sizes = np.full(len(changes), 1024, np.int64)
    for name in (Log.OLD_IMAGE, Log.NEW_IMAGE, Log.RAW):
        sizes += np.asarray(pc.fill_null(pc.binary_length(changes[name]), 0).to_numpy(), np.int64)
    return sizes


def parts(sizes: Sizes, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of consecutive rows with about `most_bytes` in all."""
    numbers = np.cumsum(sizes) // most_bytes
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(sizes)]
    yield from pairwise(bounds)


def record_ids(changes: pa.Table) -> pa.Array:
    """Return the identity of each change log row: see `dataset.quarantine`."""
    columns = (Log.STREAM_ARN, Log.SHARD_ID, Log.VERSION, Log.KEYS)
    # Texts are as large as images: one at a time.
    raws = (raw.as_py() for raw in changes[Log.RAW])
    identities = zip(*(changes[name].to_pylist() for name in columns), raws, strict=True)
    return pa.array([_record_id(*identity) for identity in identities], pa.string())


def _record_id(arn: str, shard: str, version: str | None, keys: str | None, raw: str | None) -> str:
    # A record that is not a stream record may have any number: its text identifies it.
    parts = [arn, shard, raw or version or ""]
    if shard == SCAN_SHARD_ID and not raw:
        parts.append(keys or "")  # all items of a scan have the same version
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def first_of_each(ids: pa.Array, known: set[str]) -> Flags:
    """Return which ids are neither known nor repeated: a chunk may have a record twice."""
    found = set(known)
    flags = np.zeros(len(ids), bool)
    for at, record in enumerate(ids.to_pylist()):
        flags[at] = record not in found
        found.add(record)
    return flags
