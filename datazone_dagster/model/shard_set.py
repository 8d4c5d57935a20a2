"""Sets of shards: shares of a stream that are drained independently of one another.

The hash of a shard's id decides. So a set is known without a list, in every process, and a child
of a shard may well be in another set.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MOST_SETS = 32
"""Largest number of sets: each batch is a commit, and a process that begins reads the notes of the
last 64 commits."""

_NAME = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True, slots=True)
class ShardSet:
    """One of `of` sets, numbered from 1."""

    number: int
    of: int

    @property
    def name(self) -> str:
        """Name of the set, such as `03-of-16`; names sort by number."""
        return f"{self.number:0{len(str(self.of))}d}-of-{self.of}"

    def has(self, shard_id: str) -> bool:
        """Return whether a shard is in the set."""
        return set_number(shard_id, self.of) == self.number


def set_number(shard_id: str, count: int) -> int:
    """Return the number of the set that a shard is in, among this many."""
    digest = hashlib.blake2b(shard_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count + 1


def shard_sets(count: int) -> tuple[ShardSet, ...]:
    """Return all sets of a number of sets."""
    return tuple(ShardSet(number, count) for number in range(1, count + 1))


def shard_set_named(name: str) -> ShardSet | None:
    """Return the set of a name; None if no set has it."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    found = ShardSet(int(match[1]), int(match[2]))
    known = 1 <= found.number <= found.of <= MOST_SETS
    return found if known and found.name == name else None
