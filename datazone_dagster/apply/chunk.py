"""A chunk on its way into the datasets: how it is read, and what it covers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.bad_records import keyed, refused_rows
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS, Chunk
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION, Log

CHANGES_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in CHUNK_COLUMNS),
        pa.field(KEY, pa.string()),
        SCHEMA.field(Log.VERSION).with_name(VERSION),
        SCHEMA.field(Log.EVENT_TIME).with_name(EVENT_TIME),
    ]
)
"""What a function's frame is bound to: a chunk with its hidden columns."""

NOTHING_REFUSED = refused_rows(CHANGES_SCHEMA.empty_table(), {})

_ASKED_FOR = frozenset(
    {
        Log.OLD_IMAGE,
        Log.NEW_IMAGE,
        Log.STREAM_ARN,
        Log.SHARD_ID,
        Log.PARENT_SHARD_ID,
        Log.RAW,
    }
)
"""Columns that are read where they are asked for: images by SQL, all of them by a quarantine."""


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """Which batches a chunk covers and what is in it, records included that do not count any more.

    `decoded_bytes` is the measure of its size: what the columns take in memory that may be read.
    """

    first_batch: int
    last_batch: int
    records: int
    record_bytes: int
    decoded_bytes: int
    event_time_min: datetime | None
    event_time_max: datetime | None


class FullChunk:
    """A chunk as the function may look at it: every change, and of it what is asked for.

    It is read when it is first asked for, and later only what was not read yet. Its size is that
    of all columns, so that all of them can be asked for.

    Args:
        log: The change log.
        after_batch: Where the range begins, exclusive. There are rows.
        through_batch: Where it ends, inclusive.
        chunk_bytes: How much a chunk is.
    """

    def __init__(
        self, log: ChangeLogSnapshot, after_batch: int, through_batch: int, chunk_bytes: int
    ) -> None:
        self._log = log
        self._range = (after_batch, through_batch)
        self._chunk_bytes = chunk_bytes
        self._chunk: Chunk | None = None
        self._changes = CHANGES_SCHEMA.empty_table()
        self._refused = NOTHING_REFUSED

    def unread(self) -> Unread:
        """The changes as a table that is read when it is asked for."""
        return Unread(CHANGES_SCHEMA, self.changes_with)

    def changes_with(self, columns: frozenset[str]) -> pa.Table:
        """The changes, oldest first, with at least these columns of `CHANGES_SCHEMA`.

        Raises:
            StorageError: The change log can't be read.
        """
        chunk = self._chunk or self._read(columns)
        missing = [name for name in sorted(columns) if name not in self._changes.column_names]
        if missing:
            self._changes = _beside(self._changes, self._log.columns_of(chunk, missing))
        return self._changes

    @property
    def changes(self) -> pa.Table:
        """The changes in `CHANGES_SCHEMA`, oldest first."""
        return self.changes_with(_ASKED_FOR)

    @property
    def refused(self) -> pa.Table:
        """Records without a usable key, with all columns."""
        self.changes_with(frozenset())
        return self._refused

    @property
    def place(self) -> str:
        """Where it stands in the change log, for errors."""
        chunk = self._chunk or self._read(frozenset())
        return f"batches {chunk.first_batch} to {chunk.last_batch}"

    def facts(self) -> ChunkFacts:
        """What the chunk holds."""
        return facts_of(self._chunk or self._read(frozenset()), self._changes)

    def _read(self, columns: frozenset[str]) -> Chunk:
        wanted = columns_with(columns)
        chunk = next(self._log.chunks(*self._range, self._chunk_bytes, columns=wanted))
        self._changes, refused = keyed(chunk.rows)
        if len(refused):
            others = [name for name in CHUNK_COLUMNS if name not in wanted]
            rows = (
                _beside(chunk.rows, self._log.columns_of(chunk, others)) if others else chunk.rows
            )
            self._changes, self._refused = keyed(rows)
        self._chunk = chunk
        return chunk


def columns_with(asked_for: Iterable[str]) -> list[str]:
    """The columns of the change log that are read of a chunk, if these are asked for."""
    asked_for = set(asked_for)
    return [name for name in CHUNK_COLUMNS if name not in _ASKED_FOR or name in asked_for]


def facts_of(chunk: Chunk, changes: pa.Table) -> ChunkFacts:
    """What a chunk holds, with the changes in it that have a key."""
    span = pc.min_max(changes[EVENT_TIME]).as_py()
    return ChunkFacts(
        chunk.first_batch,
        chunk.last_batch,
        records=len(chunk.rows),
        record_bytes=pc.sum(chunk.rows[Log.SIZE_BYTES]).as_py() or 0,
        decoded_bytes=chunk.decoded_bytes,
        event_time_min=cast("datetime | None", span["min"]),
        event_time_max=cast("datetime | None", span["max"]),
    )


def _beside(rows: pa.Table, more: pa.Table) -> pa.Table:
    """The same rows with more columns, in the order of `CHANGES_SCHEMA`."""
    for field in more.schema:
        rows = rows.append_column(field, more[field.name])
    return rows.select([name for name in CHANGES_SCHEMA.names if name in rows.column_names])
