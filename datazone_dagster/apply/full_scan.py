"""The full scan: every change of a chunk, with the columns that are requested while it is used.

It serves functions that read their chunk themselves, and the quarantine. A function that reads some
columns gets those; the quarantine requests all of them, because it stores changes complete.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk import CHANGES_SCHEMA, NOTHING_REFUSED, ChunkFacts
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS, Chunk
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.dataset.latest import each_once
from datazone_dagster.frame.query_session import Unread
from datazone_dagster.model.column_names import EVENT_TIME, Log

ON_DEMAND = frozenset(
    {
        Log.OLD_IMAGE,
        Log.NEW_IMAGE,
        Log.STREAM_ARN,
        Log.SHARD_ID,
        Log.PARENT_SHARD_ID,
        Log.RAW,
    }
)
"""Columns that are read on demand: images for SQL, all of them for the quarantine."""


class FullChunk:
    """A chunk with every change, but only the columns that were requested.

    The first request reads the chunk; later ones add the missing columns. The size of the chunk
    counts all columns, so that all of them may be requested.

    Args:
        log: The change log.
        after_batch: Start of the range, exclusive. The range has rows.
        through_batch: End of the range, inclusive.
        chunk_bytes: Size of a chunk, decoded.
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
        """Return the changes as a table that is read on first use."""
        return Unread(CHANGES_SCHEMA, self.changes_with)

    def changes_with(self, columns: frozenset[str]) -> pa.Table:
        """Return the changes, oldest first, with at least these columns of `CHANGES_SCHEMA`.

        Raises:
            StorageError: The change log can't be read.
        """
        chunk = self._chunk or self._read(columns)
        missing = [name for name in sorted(columns) if name not in self._changes.column_names]
        if missing:
            self._changes = _with_columns(self._changes, self._log.columns_of(chunk, missing))
        return self._changes

    @property
    def images_read(self) -> frozenset[str]:
        """Columns of images that were requested."""
        return frozenset({Log.OLD_IMAGE, Log.NEW_IMAGE} & set(self._changes.column_names))

    @property
    def changes(self) -> pa.Table:
        """The changes with all columns of `CHANGES_SCHEMA`, oldest first."""
        return self.changes_with(ON_DEMAND)

    @property
    def refused(self) -> pa.Table:
        """Records without a usable key, with all columns of the change log."""
        self.changes_with(frozenset())
        return self._refused

    @property
    def location(self) -> str:
        """Range of batches in the change log, for errors."""
        chunk = self._chunk or self._read(frozenset())
        return f"batches {chunk.first_batch} to {chunk.last_batch}"

    def facts(self) -> ChunkFacts:
        """Return the range and contents of the chunk."""
        chunk = self._chunk or self._read(frozenset())
        span = pc.min_max(self._changes[EVENT_TIME]).as_py()
        return ChunkFacts(
            chunk.first_batch,
            chunk.last_batch,
            records=len(chunk.rows),
            record_bytes=pc.sum(chunk.rows[Log.SIZE_BYTES]).as_py() or 0,
            decoded_bytes=chunk.decoded_bytes,
            event_time_min=cast("datetime | None", span["min"]),
            event_time_max=cast("datetime | None", span["max"]),
        )

    def _read(self, columns: frozenset[str]) -> Chunk:
        wanted = [name for name in CHUNK_COLUMNS if name not in ON_DEMAND or name in columns]
        chunk = next(self._log.chunks(*self._range, self._chunk_bytes, columns=wanted))
        self._changes = each_once(keyed(chunk.rows)[0])
        if len(self._changes) < len(chunk.rows):  # columns that are read later would not fit
            others = [name for name in CHUNK_COLUMNS if name not in wanted]
            rows = chunk.rows
            if others:
                rows = _with_columns(rows, self._log.columns_of(chunk, others))
            changes, self._refused = keyed(rows)
            self._changes = each_once(changes)
        self._chunk = chunk
        return chunk


def _with_columns(rows: pa.Table, more: pa.Table) -> pa.Table:
    """Return the rows with more columns, in the order of `CHANGES_SCHEMA`."""
    for field in more.schema:
        rows = rows.append_column(field, more[field.name])
    return rows.select([name for name in CHANGES_SCHEMA.names if name in rows.column_names])
