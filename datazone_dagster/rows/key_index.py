"""Index of the keys of one row group: hashes of the keys, and their rows.

Twelve bytes a row: a sorted 64-bit word of the first hash's highest bits above the row's position,
and 32 bits of the second hash in the order of the rows. For a million rows that is 76 bits of
hashes. A key matches a row of another key with a probability of 2^-76: among ten million rows, a
batch of ten thousand keys has a wrong match once in 10^11 batches. The rows can't be compared with
the keys themselves: keys scattered over a table are in nearly every page of the key column, and
decoding those is what the index saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from datazone_dagster.model.column_names import KEY
from datazone_dagster.rows.key_filter import RowPositions
from datazone_dagster.rows.key_hashes import Checks, Words, can_hash, hashes

ROW_BYTES = 12
MOST_ROWS = 1 << 22
"""Largest row group that gets an index: with more rows, a word has fewer than 42 bits of a hash."""


class HashedKeys:
    """Keys to look up, hashed once for all indexes.

    Args:
        keys: The keys, none of them null. Those too long for an index are in no row group that
            has one.
    """

    def __init__(self, keys: pa.StringArray) -> None:
        numbers = np.arange(len(keys))
        if not can_hash(keys):
            numbers = np.array(
                [at for at, key in enumerate(keys) if can_hash(pa.array([key], pa.string()))],
                np.int64,
            )
            keys = keys.take(pa.array(numbers))
        first, second = hashes(keys)
        order = np.argsort(first)  # neighbours are then found in the same part of an index
        self.first: Words = first[order]
        self.second: Checks = second[order]
        self.numbers: RowPositions = numbers[order]
        """Index of each key among the keys given."""


@dataclass(frozen=True)
class KeyIndex:
    """Rows of a row group by their key.

    Args:
        words: Hash and position of each row, sorted.
        checks: Second hash of each row, by position.
    """

    words: Words
    checks: Checks

    def look_up(self, keys: HashedKeys) -> tuple[RowPositions, RowPositions]:
        """Return the positions of the rows that have one of the keys, and each row's key.

        Positions are in order and count from the start of the row group; keys are indexes among
        the keys given.
        """
        if not len(self.words):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        ones = _position_mask(len(self.words))
        least = keys.first & ~ones
        start = np.searchsorted(self.words, least)
        at = np.minimum(start, len(self.words) - 1)
        hits = np.flatnonzero((self.words[at] & ~ones) == least)
        start = start[hits]
        # A key may have several rows.
        count = np.searchsorted(self.words, least[hits] | ones, side="right") - start
        hits = np.repeat(hits, count)
        ends = np.cumsum(count)
        inside = np.arange(len(hits)) - np.repeat(ends - count, count)
        positions = (self.words[np.repeat(start, count) + inside] & ones).astype(np.int64)
        same = self.checks[positions] == keys.second[hits]
        positions, hits = positions[same], hits[same]
        order = np.argsort(positions)
        return positions[order], keys.numbers[hits[order]]


class KeyIndexBuilder:
    """Indexes of rows that are being read or written: those of a row group, or of a whole file.

    Args:
        rows: Number of the rows.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        """Number of the rows."""
        self._words: Words = np.empty(rows, np.uint64)
        self._checks: Checks = np.empty(rows, np.uint32)
        self._added = 0
        self._can_hash = True

    def add(self, keys: pa.StringArray) -> None:
        """Add the keys of the next rows."""
        start, self._added = self._added, self._added + len(keys)
        self._can_hash = self._can_hash and self._added <= self.rows and can_hash(keys)
        if self._can_hash:
            rows = slice(start, self._added)
            self._words[rows], self._checks[rows] = hashes(keys)

    def passing(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches, and add their keys."""
        for batch in batches:
            self.add(batch.column(KEY).cast(pa.string()))
            yield batch

    def built(self, rows: range | None = None) -> KeyIndex | None:
        """Return the index of a row group at these positions, once; None: of all rows.

        The memory of the rows becomes that of the index. None is returned if a key is null or too
        long for an index, if there are too many rows, or if others were added than expected.
        """
        rows = range(self.rows) if rows is None else rows
        if not self._can_hash or self._added != self.rows or len(rows) > MOST_ROWS:
            return None
        words = self._words[rows.start : rows.stop]
        words &= ~_position_mask(len(rows))
        words |= np.arange(len(rows), dtype=np.uint64)
        words.sort()
        return KeyIndex(words, self._checks[rows.start : rows.stop])


def _position_mask(rows: int) -> Any:
    return np.uint64((1 << (rows - 1).bit_length()) - 1)
