"""Rows of large batches by slots of their keys, so that a bucket reads its own row groups only.

A batch that fills more than one row group is split into 16 ranges of slots, each of which is
written in row groups of its own; a note in the footer of the file has the range of each row group.
Rows of one key stay in their order, and batches stay in theirs: readers of the full log see no
difference. A small batch is not split: its row group is read in full and filtered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import SLOTS

BY_SLOTS = "datazone.by_slots"
"""Table property of a change log whose batches are laid out by slots; set by the first run of a
dataset with buckets."""

SLOTS_NOTE = "datazone.slots"
"""Key of the note in a file's footer: the first and last slot of each row group, or null."""

RANGES = 16
RANGE_SLOTS = SLOTS // RANGES

NOTED_ROWS = 1024
"""Largest batch whose slots are noted: a larger one has keys of nearly every bucket."""

PART_ROWS = 4096
PART_BYTES = 2 << 20
"""Bounds of a row group of a range, decoded: one of each range is in memory while they fill."""

Part = tuple[pa.Table, tuple[int, int] | None]
"""Rows, and the range of slots that they are of; None: of any slots."""


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
        unsplit_rows: Rows of a batch up to which it is not split.
        unsplit_bytes: The same, in bytes.
        slot_bits: Slots of the keys of all rows so far, as bits; None: of any.
    """

    unsplit_rows: int
    unsplit_bytes: int
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
                self._ranges = [_Waiting() for _ in range(RANGES)]
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
                yield pa.concat_tables(waiting.tables), _slots_of_range(number)
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
        ranges = slots_of(rows[Log.KEYS]) // RANGE_SLOTS
        order = np.argsort(ranges, kind="stable")
        bounds = np.searchsorted(ranges[order], np.arange(RANGES + 1))
        ordered = rows.combine_chunks().take(pa.array(order))
        row_bytes = ordered.nbytes / max(len(ordered), 1)
        for number, waiting in enumerate(self._ranges):
            start, end = int(bounds[number]), int(bounds[number + 1])
            if start == end:
                continue
            waiting.tables.append(ordered.slice(start, end - start))
            waiting.rows += end - start
            waiting.size_bytes += (end - start) * row_bytes
            if waiting.rows >= PART_ROWS or waiting.size_bytes >= PART_BYTES:
                yield pa.concat_tables(waiting.tables), _slots_of_range(number)
                self._ranges[number] = _Waiting()


def notes_to_json(notes: Sequence[tuple[int, int] | None]) -> str:
    """Return the note of a file as JSON."""
    return json.dumps(notes)


def slots_in(metadata: pq.FileMetaData) -> list[tuple[int, int] | None]:
    """Return the range of slots of each row group of a file; None where it is not known."""
    text = (metadata.metadata or {}).get(SLOTS_NOTE.encode())
    if text is None:
        return [None] * metadata.num_row_groups
    return [None if one is None else (int(one[0]), int(one[1])) for one in json.loads(text)]


def _slots_of_range(number: int) -> tuple[int, int]:
    return number * RANGE_SLOTS, (number + 1) * RANGE_SLOTS - 1


def _by_batch(rows: pa.Table) -> Iterator[pa.Table]:
    if rows[Log.BATCH].null_count:  # one batch, whose commit gives the number
        yield rows
        return
    batches = rows[Log.BATCH].to_numpy()
    bounds = np.flatnonzero(np.diff(batches, prepend=batches[:1] - 1, append=batches[-1:] + 1))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield rows.slice(start, end - start)
