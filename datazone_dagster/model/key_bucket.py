"""Buckets of keys: shares of a dataset that are applied independently of one another.

The hash of a key has one of 256 slots. A bucket is a range of slots, and the number of buckets is a
power of two, so that a bucket of a smaller number is the union of buckets of a larger one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SLOTS = 256
"""Slots of the hash of a key, and so the largest number of buckets."""

_NAME = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True, slots=True)
class KeyBucket:
    """One of `of` buckets, numbered from 1."""

    number: int = 1
    of: int = 1

    @property
    def name(self) -> str:
        """Name of the bucket, such as `03-of-16`; names sort by number."""
        return f"{self.number:0{len(str(self.of))}d}-of-{self.of}"

    @property
    def is_whole(self) -> bool:
        """Whether the bucket has every key."""
        return self.of == 1

    @property
    def first_slot(self) -> int:
        """Its first slot."""
        return (self.number - 1) * SLOTS // self.of

    @property
    def last_slot(self) -> int:
        """Its last slot."""
        return self.number * SLOTS // self.of - 1

    @property
    def slot_bits(self) -> int:
        """Its slots as bits."""
        return ((1 << (self.last_slot - self.first_slot + 1)) - 1) << self.first_slot

    def has_some_of(self, first_slot: int, last_slot: int) -> bool:
        """Return whether the bucket has a slot of a range."""
        return self.first_slot <= last_slot and first_slot <= self.last_slot

    def has_all_of(self, first_slot: int, last_slot: int) -> bool:
        """Return whether the bucket has every slot of a range."""
        return self.first_slot <= first_slot and last_slot <= self.last_slot

    def overlaps(self, other: KeyBucket) -> bool:
        """Return whether some key may be in both buckets."""
        return self.has_some_of(other.first_slot, other.last_slot)

    def halves(self) -> tuple[KeyBucket, KeyBucket]:
        """Return the two buckets of twice the number that make up this one."""
        return KeyBucket(2 * self.number - 1, 2 * self.of), KeyBucket(2 * self.number, 2 * self.of)

    def half_of(self) -> KeyBucket:
        """Return the bucket of half the number that has this one."""
        return KeyBucket((self.number + 1) // 2, self.of // 2)


Ahead = tuple[tuple[KeyBucket, int], ...]
"""Parts of a bucket of which more is applied than of the bucket, each with its last batch."""

WHOLE = KeyBucket()
"""The bucket of a dataset without buckets."""


def key_buckets(count: int) -> tuple[KeyBucket, ...]:
    """Return all buckets of a number of buckets."""
    return tuple(KeyBucket(number, count) for number in range(1, count + 1))


def is_bucket_count(count: int) -> bool:
    """Return whether a dataset can have so many buckets: a power of two, at most `SLOTS`."""
    return 1 <= count <= SLOTS and count & (count - 1) == 0


def bucket_named(name: str) -> KeyBucket | None:
    """Return the bucket of a name; None if no bucket has it."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    number, of = int(match[1]), int(match[2])
    found = KeyBucket(number, of)
    return found if is_bucket_count(of) and 1 <= number <= of and found.name == name else None


def applied_through(batches: Mapping[KeyBucket, int], bucket: KeyBucket) -> int:
    """Return the last batch through which all changes of a bucket are applied.

    What is applied of a bucket is applied of each part of it, and what is applied of both halves
    is applied of the bucket. So a dataset keeps its progress when its number of buckets changes.

    Args:
        batches: Last batch applied by bucket, of any number of buckets; absent: none.
        bucket: The bucket.
    """
    found, larger = _by_parts(batches, bucket), bucket
    while not larger.is_whole:
        larger = larger.half_of()
        found = max(found, batches.get(larger, 0))
    return found


def parts_ahead(batches: Mapping[KeyBucket, int], bucket: KeyBucket) -> Ahead:
    """Return the parts of a bucket of which more is applied than of the bucket.

    A dataset that gets a smaller number of buckets has some, until the new bucket has caught up.

    Args:
        batches: Last batch applied by bucket, of any number of buckets; absent: none.
        bucket: The bucket.
    """
    position = applied_through(batches, bucket)
    found = (one for one in batches if one.of > bucket.of and one.overlaps(bucket))
    ahead = ((one, batches[one]) for one in found if batches[one] > position)
    return tuple(sorted(ahead, key=lambda part: (part[0].of, part[0].number)))


def _by_parts(batches: Mapping[KeyBucket, int], bucket: KeyBucket) -> int:
    own = batches.get(bucket, 0)
    parts = [one for one in batches if one.of > bucket.of and one.overlaps(bucket)]
    if not parts:
        return own
    of_parts = {one: batches[one] for one in parts}
    return max(own, min(_by_parts(of_parts, half) for half in bucket.halves()))
