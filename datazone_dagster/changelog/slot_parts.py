"""Rows of large batches by slots of their keys, so that a bucket reads its own row groups only.

A batch that fills more than one row group is split into ranges of slots, one for each bucket, but
at most 16. Each is written in row groups of its own; a note in the footer of the file has the range
of each row group. Fewer ranges have larger row groups, which cost less to write and to store.
Rows of one key stay in their order, and batches stay in theirs: readers of the full log see no
difference. A small batch is not split: its row group is read in full and filtered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import SLOTS

BY_SLOTS = "datazone.by_slots"
"""Table property of a change log whose batches are laid out by slots: the number of ranges; set by
the first run of a dataset with buckets, and by one of a dataset with more of them."""

SLOTS_NOTE = "datazone.slots"
"""Key of the note in a file's footer: the first and last slot of each row group, or null."""

MOST_RANGES = 16
_FORMER_VALUE = "true"
"""Value of the property in earlier versions, which had as many ranges as there can be."""

NOTED_ROWS = 1024
"""Largest batch whose slots are noted: a larger one has keys of nearly every bucket."""

WAITING_ROWS = 65_536
WAITING_BYTES = 32 << 20
"""Bounds of the rows that wait in memory, decoded: one row group of each range fills meanwhile."""

Part = tuple[pa.Table, tuple[int, int] | None]
"""Rows, and the range of slots that they are of; None: of any slots."""


def ranges_in(properties: Mapping[str, str]) -> int:
    """Return the number of ranges that the batches of a change log are laid out by; 0: by none."""
    value = properties.get(BY_SLOTS)
    if value is None:
        return 0
    return MOST_RANGES if value == _FORMER_VALUE else int(value)


def ranges_for(buckets: int) -> int:
    """Return the number of ranges for a number of buckets."""
    return min(buckets, MOST_RANGES)


@dataclass
class _Waiting:
    """Rows of a range that fill no row group yet, with their approximate size."""

    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    size_bytes: float = 0.0


@dataclass
class SlotParts:
    """Splits the rows of large batches.

    Args:
        unsplit_rows: Rows of a batch up to which it is not split; no row group has more.
        unsplit_bytes: The same, in bytes.
        ranges: Number of ranges.
        slot_bits: Slots of the keys of all rows so far, as bits; None: of any.
    """

    unsplit_rows: int
    unsplit_bytes: int
    ranges: int
    slot_bits: int | None = 0
    _batch: int | None = None
    _unsplit: list[pa.Table] = field(default_factory=list)
    _ranges: list[_Waiting] = field(default_factory=list)

    def add(self, rows: pa.Table) -> Iterator[Part]:
        """Add rows, sorted by batch, and yield the parts that are complete."""
        for of_batch in _by_batch(rows):
            batch: int | None = of_batch[Log.BATCH][0].as_py()
            if batch != self._batch:
                yield from self.flush()
                self._batch = batch
            if self._ranges:
                yield from self._split(of_batch)
                continue
            self._unsplit.append(of_batch)
            if self._is_large():
                self._ranges = [_Waiting() for _ in range(self.ranges)]
                for unsplit in self._unsplit:
                    yield from self._split(unsplit)
                self._unsplit = []

    def flush(self) -> Iterator[Part]:
        """Yield the rows that are in no part yet."""
        self._note()
        for rows in self._unsplit:
            yield rows, None
        for number, waiting in enumerate(self._ranges):
            if waiting.tables:
                yield self._part(number)
        self._unsplit, self._ranges, self._batch = [], [], None

    def _note(self) -> None:
        """Note the slots of the batch that ends."""
        if self._ranges or sum(map(len, self._unsplit)) > NOTED_ROWS:
            self.slot_bits = None
        if self.slot_bits is not None and self._unsplit:
            keys = pa.chunked_array(
                [chunk for rows in self._unsplit for chunk in rows[Log.KEYS].chunks]
            )
            for slot in np.unique(slots_of(keys)).tolist():
                self.slot_bits |= 1 << slot

    def _is_large(self) -> bool:
        rows, size_bytes = (sum(map(of, self._unsplit)) for of in (len, lambda one: one.nbytes))
        return rows > self.unsplit_rows or size_bytes > self.unsplit_bytes

    def _split(self, rows: pa.Table) -> Iterator[Part]:
        ranges = slots_of(rows[Log.KEYS]) // (SLOTS // self.ranges)
        order = np.argsort(ranges, kind="stable")
        bounds = np.searchsorted(ranges[order], np.arange(self.ranges + 1))
        ordered = rows.combine_chunks().take(pa.array(order))
        row_bytes = ordered.nbytes / max(len(ordered), 1)
        for number, waiting in enumerate(self._ranges):
            start, end = int(bounds[number]), int(bounds[number + 1])
            if start == end:
                continue
            waiting.tables.append(ordered.slice(start, end - start))
            waiting.rows += end - start
            waiting.size_bytes += (end - start) * row_bytes
            if self._is_full(waiting):
                yield self._part(number)

    def _is_full(self, waiting: _Waiting) -> bool:
        # Below the bounds of a row group: none is cut for the few rows that come on top.
        rows = min(self.unsplit_rows * 3 // 4, WAITING_ROWS // self.ranges)
        size_bytes = min(self.unsplit_bytes * 3 // 4, WAITING_BYTES // self.ranges)
        return waiting.rows >= rows or waiting.size_bytes >= size_bytes

    def _part(self, number: int) -> Part:
        """Return the rows of a range that wait; none of it wait then."""
        waiting, self._ranges[number] = self._ranges[number], _Waiting()
        width = SLOTS // self.ranges
        slots = number * width, (number + 1) * width - 1
        return pa.concat_tables(waiting.tables), slots


def notes_to_json(notes: Sequence[tuple[int, int] | None]) -> str:
    """Return the note of a file as JSON."""
    return json.dumps(notes)


def slots_in(metadata: pq.FileMetaData) -> list[tuple[int, int] | None]:
    """Return the range of slots of each row group of a file; None where it is not known."""
    text = (metadata.metadata or {}).get(SLOTS_NOTE.encode())
    if text is None:
        return [None] * metadata.num_row_groups
    return [None if one is None else (int(one[0]), int(one[1])) for one in json.loads(text)]


def ranges_of(metadata: pq.FileMetaData) -> int:
    """Return the number of ranges that a file is laid out by; 0: by none."""
    widths = {last - first + 1 for first, last in filter(None, slots_in(metadata))}
    return SLOTS // min(widths) if widths else 0


def _by_batch(rows: pa.Table) -> Iterator[pa.Table]:
    if rows[Log.BATCH].null_count:  # one batch, whose commit gives the number
        yield rows
        return
    batches = rows[Log.BATCH].to_numpy()
    bounds = np.flatnonzero(np.diff(batches, prepend=batches[:1] - 1, append=batches[-1:] + 1))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield rows.slice(start, end - start)
