"""Slot of a canonical key: a hash that never changes, by which a key belongs to a bucket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from datazone_dagster.model.key_bucket import SLOTS, KeyBucket

Slots = np.ndarray[Any, np.dtype[np.uint8]]
Taken = np.ndarray[Any, np.dtype[np.bool_]]
_Sums = np.ndarray[Any, np.dtype[np.uint64]]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_HALF, _TOP = np.uint64(33), np.uint64(64 - (SLOTS - 1).bit_length())

_KEYS_AT_ONCE = 1 << 14
"""Keys that are hashed at once: the sums take some forty times the bytes of their keys."""


def are_of(bucket: KeyBucket, slots: Slots) -> Taken:
    """Return per slot whether it is of a bucket."""
    taken: Taken = (slots >= bucket.first_slot) & (slots <= bucket.last_slot)
    return taken


def slots_of_keys(keys: pa.StringArray) -> Slots:
    """Return the slot of each canonical key; null is in slot 0.

    The hash of the bytes b[0..n) is the sum of (b[i] + 1) * m^(i+1) modulo 2^64, mixed so that the
    highest bits depend on every byte. Tables are laid out by it: it must never change.
    """
    starts = range(0, len(keys), _KEYS_AT_ONCE)
    some = [_slots_of_some(keys.slice(start, _KEYS_AT_ONCE)) for start in starts]
    return np.concatenate([np.zeros(0, np.uint8), *some])


def _slots_of_some(keys: pa.StringArray) -> Slots:
    _, offsets, data = keys.buffers()
    bounds = np.frombuffer(offsets, np.int32)[keys.offset : keys.offset + len(keys) + 1]
    bounds = bounds.astype(np.int64)
    lengths = np.diff(bounds)
    text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    text = text[bounds[0] : bounds[-1]]
    sums = np.zeros(len(keys), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        starts = (bounds[:-1] - bounds[0])[filled]
        at = np.arange(len(text)) - np.repeat(starts, lengths[filled])
        powers = _powers(int(lengths.max()))
        sums[filled] = np.add.reduceat((text.astype(np.uint64) + np.uint64(1)) * powers[at], starts)
    slots: Slots = (_mixed(sums) >> _TOP).astype(np.uint8)
    if keys.null_count:
        slots[~keys.is_valid().to_numpy(zero_copy_only=False)] = 0
    return slots


def _powers(count: int) -> _Sums:
    return np.cumprod(np.full(count, _MULTIPLIER, np.uint64), dtype=np.uint64)


def _mixed(sums: _Sums) -> _Sums:
    """Mix the bits as the last step of MurmurHash3 does."""
    for mixer in _MIXERS:
        sums = (sums ^ (sums >> _HALF)) * mixer
    mixed: _Sums = sums ^ (sums >> _HALF)
    return mixed
