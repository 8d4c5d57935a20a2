"""Hashes of keys under a secret of the process, to look keys up by equality of their hashes.

Multilinear hashing (Lemire and Kaser, 2014): each 32-bit word of a text is multiplied by a random
64-bit coefficient of its own, modulo 2^64. The highest 32 bits of the sum are strongly universal:
two texts, whatever they are, have equal ones with a probability of 2^-32, and nobody who does not
know the coefficients can make two texts that do. They never leave the process.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa

Words = np.ndarray[Any, np.dtype[np.uint64]]
Checks = np.ndarray[Any, np.dtype[np.uint32]]
_Lengths = np.ndarray[Any, np.dtype[np.int64]]

MOST_BYTES = 4096
"""Longest text that is hashed; a DynamoDB key has 3 KiB at most."""

_WORDS = MOST_BYTES // 4
_COEFFICIENTS: Words = np.frombuffer(os.urandom(2 * (_WORDS + 1) * 8), np.uint64).reshape(
    2, _WORDS + 1
)
"""The first coefficient of each hash is for the length of the text, the others for its words."""

_WORDS_AT_A_TIME = 1 << 14
"""Words that are multiplied together: they stay in the processor's cache."""

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_LEFT: Words = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)
"""Masks for the last word of a text, by the number of its bytes."""


def can_hash(texts: pa.StringArray) -> bool:
    """Return whether `hashes` takes these texts: none is null or too long."""
    return texts.null_count == 0 and int(_lengths(texts).max(initial=0)) <= MOST_BYTES


def hashes(texts: pa.StringArray) -> tuple[Words, Checks]:
    """Return two independent hashes per text; of the first one, the highest bits are the best.

    About 0.04 CPU seconds per million texts of 45 bytes.

    Args:
        texts: Texts, all of them as in `can_hash`.
    """
    lengths = _lengths(texts)
    sums: Words = lengths.astype(np.uint64) * _COEFFICIENTS[:, :1]
    longest = int(lengths.max(initial=0))
    if longest and longest == int(lengths.min()):
        _add_equally_long(sums, _content(texts).reshape(len(lengths), longest))
    elif longest:
        _add_others(sums, _content(texts), lengths, longest)
    return sums[0], (sums[1] >> _HALF).astype(np.uint32)


def _add_equally_long(sums: Words, texts: Any) -> None:
    count = -(-texts.shape[1] // 4)
    coefficients = _COEFFICIENTS[:, 1 : 1 + count]
    step = max(_WORDS_AT_A_TIME // count, 1)
    for start in range(0, len(texts), step):
        some = texts[start : start + step]
        padded = np.zeros((len(some), count * 4), np.uint8)
        padded[:, : some.shape[1]] = some
        sums[:, start : start + step] += coefficients @ padded.view("<u4").T.astype(np.uint64)


def _add_others(sums: Words, content: Any, lengths: _Lengths, longest: int) -> None:
    padded = np.concatenate([content, np.zeros(8, np.uint8)])
    # A view with a word at every byte: unaligned, overlapping, not copied.
    every_word = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    starts = np.cumsum(lengths) - lengths
    rows: Any = slice(None)
    left = lengths
    for at in range(0, longest, 8):
        if int(left.min()) < 8:  # a text ends
            rows = np.flatnonzero(lengths > at)
        left = lengths[rows] - at
        words = every_word[starts[rows] + at] & _LEFT[np.minimum(left, 8)]
        first, second = _COEFFICIENTS[:, at // 4 + 1], _COEFFICIENTS[:, at // 4 + 2]
        for total, low, high in zip(sums, first, second, strict=True):
            total[rows] += (words & _LOW) * low + (words >> _HALF) * high


def _lengths(texts: pa.StringArray) -> _Lengths:
    lengths: _Lengths = np.diff(_ends(texts)).astype(np.int64)
    return lengths


def _content(texts: pa.StringArray) -> Any:
    ends = _ends(texts)
    return np.frombuffer(texts.buffers()[2], np.uint8)[ends[0] : ends[-1]]


def _ends(texts: pa.StringArray) -> Any:
    _, offsets, _ = texts.buffers()
    if offsets is None or not len(texts):
        return np.zeros(1, np.int32)
    return np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
