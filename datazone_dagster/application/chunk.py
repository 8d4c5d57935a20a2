"""A chunk on its way into the datasets: how it is read, and what it covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.application.refused import keyed
from datazone_dagster.changelog.chunks import CHUNK_COLUMNS, Chunk
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.frame.session import Unread
from datazone_dagster.model.columns import EVENT_TIME, KEY, VERSION, Log

CHANGES_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in CHUNK_COLUMNS),
        pa.field(KEY, pa.string()),
        SCHEMA.field(Log.VERSION).with_name(VERSION),
        SCHEMA.field(Log.EVENT_TIME).with_name(EVENT_TIME),
    ]
)
"""What a function's frame is bound to: a chunk with its hidden columns."""


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """Which batches a chunk covers and what is in it, records included that do not count any more.

    `decoded_bytes` is the measure of its size: what all its columns take in memory.
    """

    first_batch: int
    last_batch: int
    records: int
    record_bytes: int
    decoded_bytes: int
    event_time_min: datetime | None
    event_time_max: datetime | None


class WholeChunk:
    """A chunk as the function may look at it: every change, read when it first asks for one."""

    def __init__(self, read: Callable[[], Chunk]) -> None:
        self._read = read
        self._chunk: Chunk | None = None
        self._keyed: tuple[pa.Table, pa.Table] | None = None

    def unread(self) -> Unread:
        """The changes as a table that is read when it is asked for."""
        return Unread(CHANGES_SCHEMA, lambda: self.changes)

    @property
    def chunk(self) -> Chunk:
        """The rows as they are in the change log."""
        if self._chunk is None:
            self._chunk = self._read()
        return self._chunk

    @property
    def place(self) -> str:
        """Where it stands in the change log, for errors."""
        return f"batches {self.chunk.first_batch} to {self.chunk.last_batch}"

    @property
    def changes(self) -> pa.Table:
        """The changes in `CHANGES_SCHEMA`, oldest first."""
        return self._split()[0]

    @property
    def refused(self) -> pa.Table:
        """Records without a usable key."""
        return self._split()[1]

    def facts(self) -> ChunkFacts:
        """What the chunk holds."""
        rows = self.chunk.rows
        span = pc.min_max(self.changes[EVENT_TIME]).as_py()
        return ChunkFacts(
            self.chunk.first_batch,
            self.chunk.last_batch,
            records=len(rows),
            record_bytes=pc.sum(rows[Log.SIZE_BYTES]).as_py() or 0,
            decoded_bytes=rows.nbytes,
            event_time_min=cast("datetime | None", span["min"]),
            event_time_max=cast("datetime | None", span["max"]),
        )

    def _split(self) -> tuple[pa.Table, pa.Table]:
        if self._keyed is None:
            self._keyed = keyed(self.chunk.rows)
        return self._keyed
