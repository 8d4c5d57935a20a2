"""Cheap pre-filter: rejects most rows before the exact key lookup.

Most rows of a large table do not have one of a batch's keys. One word of each text is hashed
into a bit table that fits the processor's cache, where a hash table of many long keys does not.
A text that passes may be a key; a text that does not pass is not one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

RowPositions = np.ndarray[Any, np.dtype[np.int64]]

WORD_BYTES = 8
DISTANCES = range(WORD_BYTES, 9 * WORD_BYTES, WORD_BYTES)
"""Candidates for the start of the word, in bytes from the end of a text; the one at which keys
differ most is chosen."""

SAMPLE_KEYS = 4096
SLOTS_PER_KEY = 8
_LEAST_BITS = 12

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""Multiplicative hashing (Fibonacci): its highest bits depend on every bit of a word."""


class KeyFilter:
    """Selects from many texts those that may be among some keys; every key passes.

    Args:
        keys: Texts, none of them null.
    """

    def __init__(self, keys: pa.StringArray) -> None:
        bits = max(_LEAST_BITS, (SLOTS_PER_KEY * len(keys)).bit_length())
        self._shift = np.uint64(64 - bits)
        sample = keys.take(pa.array(np.linspace(0, len(keys) - 1, SAMPLE_KEYS).astype(np.int64)))
        self._distance = max(DISTANCES, key=lambda distance: _distinct_words(sample, distance))
        self._taken = np.zeros(1 << bits, dtype=bool)
        long, slots = self._slots(keys)
        self._taken[slots[long]] = True

    def passing(self, texts: pa.StringArray) -> RowPositions:
        """Return the positions of the texts that may be keys, in order."""
        long, slots = self._slots(texts)
        return np.flatnonzero(self._taken[slots] | ~long)

    def _slots(self, texts: pa.StringArray) -> tuple[Any, Any]:
        """Return per text whether it is long enough to have the word, and the word's slot."""
        long, words = _words(texts, self._distance)
        return long, (words * _ODD) >> self._shift


def _distinct_words(texts: pa.StringArray, distance: int) -> int:
    long, words = _words(texts, distance)
    return len(np.unique(words[long]))


def _words(texts: pa.StringArray, distance: int) -> tuple[Any, Any]:
    """Return per text whether it has `distance` bytes, and if so the eight that begin there."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None or data.size < WORD_BYTES:
        return np.zeros(len(texts), dtype=bool), np.zeros(len(texts), np.uint64)
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    starts = ends[1:].astype(np.int64) - distance
    # A view with a word at every byte: unaligned, overlapping, not copied.
    every_word = np.ndarray((data.size - WORD_BYTES + 1,), "<u8", data, strides=(1,))
    return starts >= ends[:-1], every_word[np.maximum(starts, 0)]


class IntegerFilter:
    """Selects from many integers those that may be among some keys; every key passes.

    Args:
        keys: Integers of one type, none of them null.
    """

    def __init__(self, keys: pa.Array) -> None:
        bits = max(_LEAST_BITS, (SLOTS_PER_KEY * len(keys)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._taken = np.zeros(1 << bits, dtype=bool)
        self._taken[self._slots(keys)] = True

    def passing(self, numbers: pa.Array) -> RowPositions:
        """Return the positions of the integers that may be keys, in order."""
        return np.flatnonzero(self._taken[self._slots(numbers)])

    def _slots(self, numbers: pa.Array) -> Any:
        words = numbers.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        return (words.view(np.uint64) * _ODD) >> self._shift
