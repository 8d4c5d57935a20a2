"""Index of the keys of one row group: hashes of the keys, and their rows.

Twelve bytes a row: a sorted 64-bit word of the first hash's highest bits above the row's position,
and 32 bits of the second hash in the order of the rows. For a million rows that is 76 bits of
hashes. A key matches a row of another key with a probability of 2^-76: among ten million rows, a
batch of ten thousand keys has a wrong match once in 10^11 batches. The rows can't be compared with
the keys themselves: keys scattered over a table are in nearly every page of the key column, and
decoding those is what the index saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

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
    """An index of a row group that is being read.

    Args:
        rows: Number of rows of the row group.
    """

    def __init__(self, rows: int) -> None:
        self._words: Words | None = np.empty(rows, np.uint64)
        self._checks: Checks = np.empty(rows, np.uint32)
        self._ones = _position_mask(rows)

    def add(self, start: int, keys: pa.StringArray) -> None:
        """Add the next rows, from the position `start` on."""
        if self._words is None or not can_hash(keys):
            self._words = None
            return
        rows = slice(start, start + len(keys))
        first, self._checks[rows] = hashes(keys)
        positions = np.arange(rows.start, rows.stop, dtype=np.uint64)
        self._words[rows] = (first & ~self._ones) | positions

    def built(self) -> KeyIndex | None:
        """Return the index; None if a key is null or too long for it."""
        if self._words is None:
            return None
        self._words.sort()
        return KeyIndex(self._words, self._checks)


def _position_mask(rows: int) -> Any:
    return np.uint64((1 << (rows - 1).bit_length()) - 1)
