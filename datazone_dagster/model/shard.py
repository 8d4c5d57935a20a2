"""Shards and streams as DescribeStream returns them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard in a DescribeStream response. Open while it has no ending sequence number."""

    shard_id: str
    parent_shard_id: str | None = None
    starting_sequence_number: int | None = None
    ending_sequence_number: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether records can still be added."""
        return self.ending_sequence_number is None


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """All pages of a DescribeStream response, combined."""

    stream_arn: str
    view_type: str
    enabled: bool
    shards: tuple[Shard, ...]


class StartAt(enum.Enum):
    """Starting point of a shard iterator (GetShardIterator, `ShardIteratorType`)."""

    TRIM_HORIZON = "TRIM_HORIZON"
    AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"
    LATEST = "LATEST"


@dataclass(frozen=True, slots=True)
class IteratorStart:
    """A starting point in a shard."""

    at: StartAt
    sequence_number: int | None = None


TRIM_HORIZON = IteratorStart(StartAt.TRIM_HORIZON)


def after(sequence_number: int) -> IteratorStart:
    """Return the starting point right after the record with this sequence number."""
    return IteratorStart(StartAt.AFTER_SEQUENCE_NUMBER, sequence_number)
