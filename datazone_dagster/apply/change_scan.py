"""The pass over a chunk's changes that ends at its bounds: all of them, or the latest of each key.

For changes whose images are read later, it reads keys and versions only, of as many batches as
memory and the chunk's size allow. The latest ones it collapses as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.chunk import ChunkFacts
from datazone_dagster.apply.image_views import ROW, ROW_GROUP
from datazone_dagster.changelog.row_groups import RowGroup, RowGroups
from datazone_dagster.dataset.latest import each_once, only_latest
from datazone_dagster.items.keys import key_column
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION, Log
from datazone_dagster.model.size_policy import NEARLY, ChunkBounds

CHANGE_COLUMNS = (
    Log.BATCH,
    Log.KEYS,
    Log.VERSION,
    Log.EVENT_NAME,
    Log.EVENT_TIME,
    Log.SIZE_BYTES,
    Log.USER_TYPE,
    Log.USER_PRINCIPAL,
    Log.REASON,
)
"""Columns that determine the latest change of a key and its effect."""

_COLLAPSE_BYTES = 32 << 20

_TRUSTED_SHARE = 1 / 2
"""Number of changes, as a share of the latest ones, among which new keys are expected to be as rare
as before. Were all of them new, their rows would still fit `ChunkBounds.most_bytes`."""


class FullChunkNeededError(Exception):
    """The batches up to `through_batch` have to be read in full; nothing was written."""

    def __init__(self, through_batch: int, reason: str) -> None:
        super().__init__(reason)
        self.through_batch = through_batch
        self.reason = reason


@dataclass
class ChangeScan:
    """The first batches of the row groups, up to the bounds.

    Args:
        bounds: Bounds of the chunk, which has at least one batch.
        more_columns: Columns to read besides `CHANGE_COLUMNS`, unless they are read later.
        sampled_row_bytes: Measures `ChunkBounds.row_bytes` by parsing some changes; None if it
            fails. Only changes whose columns are read later need it.
        latest_only: Whether to retain only the latest change of each key.
        reads_later: Whether the other columns are read later, by the location of each change.
    """

    bounds: ChunkBounds
    more_columns: Sequence[str]
    sampled_row_bytes: Callable[[], float | None]
    latest_only: bool
    reads_later: bool
    row_groups: list[RowGroup] = field(default_factory=list)
    records: int = 0
    record_bytes: int = 0
    decoded_bytes: int = 0
    first_batch: int = 0
    last_batch: int = 0
    _times: list[datetime] = field(default_factory=list)
    _latest: pa.Table | None = None
    _pending: list[pa.Table] = field(default_factory=list)
    _pending_bytes: int = 0
    _pending_rows: int = 0
    _new_share: float = 1.0

    def run(self, row_groups: RowGroups) -> None:
        """Read on until the bounds are reached and the last batch is complete.

        Raises:
            FullChunkNeededError: A record has no keys.
            OSError: The store failed.
        """
        for row_group in row_groups:
            for rows in self._read(row_groups, row_group):
                of_chunk = rows.slice(0, self._rows_of_chunk(row_group, rows))
                if len(of_chunk):
                    self._take(row_group, of_chunk)
                if len(of_chunk) < len(rows):
                    return

    def changes(self) -> pa.Table:
        """Return the changes with the hidden columns, and their location if `reads_later`.

        Raises:
            FullChunkNeededError: A key is invalid.
        """
        changes = self._collapsed() if self.latest_only else pa.concat_tables(self._pending)
        keys, failures = key_column(changes[Log.KEYS])
        if failures:
            raise FullChunkNeededError(self.last_batch, "they hold invalid keys.")
        changes = changes.append_column(KEY, keys)
        if self.latest_only:  # once more, since several texts may mean the same key
            changes = only_latest(changes, keys, changes[Log.VERSION])
        changes = changes.append_column(VERSION, changes[Log.VERSION])
        changes = changes.append_column(EVENT_TIME, changes[Log.EVENT_TIME])
        return changes if self.latest_only else each_once(changes)

    def facts(self) -> ChunkFacts:
        """Return the facts of the chunk, with all changes counted."""
        return ChunkFacts(
            self.first_batch,
            self.last_batch,
            self.records,
            self.record_bytes,
            self.decoded_bytes,
            min(self._times, default=None),
            max(self._times, default=None),
        )

    def _read(self, row_groups: RowGroups, row_group: RowGroup) -> Iterable[pa.Table]:
        if self.reads_later:
            return [row_groups.read(row_group, CHANGE_COLUMNS)]
        return row_groups.pieces(row_group, (*CHANGE_COLUMNS, *self.more_columns))

    def _rows_of_chunk(self, row_group: RowGroup, rows: pa.Table) -> int:
        """Return how many rows of the next row group belong to the chunk: complete batches."""
        if self._is_full(row_group):
            through_batch = self.last_batch
        else:
            rest_bytes = self.bounds.decoded_bytes - self.decoded_bytes
            rows_bytes = self._decoded_bytes(row_group, rows)
            if rows_bytes <= rest_bytes:
                return len(rows)
            # The batch that reaches the bound, if rows of a row group are of one size.
            reached = (len(rows) * rest_bytes - 1) // rows_bytes
            through_batch = int(rows[Log.BATCH][reached].as_py())
        return int(np.searchsorted(rows[Log.BATCH].to_numpy(), through_batch, side="right"))

    def _take(self, row_group: RowGroup, rows: pa.Table) -> None:
        batches = rows[Log.BATCH]
        self.first_batch = self.first_batch or int(batches[0].as_py())
        self.last_batch = int(batches[-1].as_py())
        if rows[Log.REASON].null_count < len(rows) or rows[Log.KEYS].null_count:
            raise FullChunkNeededError(self.last_batch, "they hold records without keys.")
        span = pc.min_max(rows[Log.EVENT_TIME]).as_py()
        self._times = [time for time in (*self._times, span["min"], span["max"]) if time]
        self._times = [min(self._times), max(self._times)] if self._times else []
        self.records += len(rows)
        self.record_bytes += cast("int | None", pc.sum(rows[Log.SIZE_BYTES]).as_py()) or 0
        self.decoded_bytes += self._decoded_bytes(row_group, rows)
        changes = rows.drop_columns([Log.REASON])
        if not self.reads_later:
            self._pending.append(changes)
            return
        number = pa.repeat(pa.scalar(len(self.row_groups), pa.int32()), len(rows))
        position = pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1), len(rows))), 1)
        self.row_groups.append(row_group)
        changes = changes.append_column(ROW_GROUP, number).append_column(ROW, position)
        self._pending.append(changes)
        self._pending_bytes += changes.nbytes
        self._pending_rows += len(changes)
        if self.latest_only and self._pending_bytes > max(_COLLAPSE_BYTES, self._latest_bytes()):
            self._collapsed()

    def _collapsed(self) -> pa.Table:
        """Collapse what was read; return the latest change of each key."""
        tables = [*([self._latest] if self._latest is not None else []), *self._pending]
        both = pa.concat_tables(tables)
        latest = only_latest(both, both[Log.KEYS], both[Log.VERSION])
        if self._pending_rows:
            self._new_share = (len(latest) - self._latest_rows) / self._pending_rows
        self._latest = latest
        self._pending, self._pending_bytes, self._pending_rows = [], 0, 0
        return latest

    def _decoded_bytes(self, row_group: RowGroup, rows: pa.Table) -> int:
        if self.reads_later:
            return row_group.decoded_bytes * len(rows) // row_group.rows
        return max(int(rows.nbytes), int(len(rows) * (self.bounds.row_bytes or 0.0)))

    def _is_full(self, row_group: RowGroup) -> bool:
        if not self.records:
            return False
        if self.decoded_bytes >= self.bounds.decoded_bytes:
            return True
        return self.bounds.retained_bytes is not None and self._fills_memory(
            self.bounds.retained_bytes, row_group.decoded_bytes / row_group.rows
        )

    def _fills_memory(self, most_bytes: int, change_bytes: float) -> bool:
        if self._retained_bytes(self.bounds.row_bytes or change_bytes) < most_bytes:
            return False
        if self.bounds.row_bytes is None:
            row_bytes = self.sampled_row_bytes()
            self.bounds = replace(self.bounds, row_bytes=row_bytes or change_bytes)
        if self.latest_only:
            self._collapsed()
        retained_bytes = self._retained_bytes(self.bounds.row_bytes or change_bytes)
        return retained_bytes >= NEARLY * most_bytes

    def _retained_bytes(self, row_bytes: float) -> int:
        """Return the estimated memory for the changes that will be left, and for their rows.

        A collapse would tell how many will, but takes as long as the changes of many row groups.
        So new keys are expected among some further changes as often as among those before.
        """
        is_trusted = self._pending_rows <= _TRUSTED_SHARE * self._latest_rows
        share = self._new_share if is_trusted else 1.0
        rows = self._latest_rows + share * self._pending_rows
        return self._latest_bytes() + int(share * self._pending_bytes + rows * row_bytes)

    @property
    def _latest_rows(self) -> int:
        return 0 if self._latest is None else len(self._latest)

    def _latest_bytes(self) -> int:
        return 0 if self._latest is None else int(self._latest.nbytes)
