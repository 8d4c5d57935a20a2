"""Shards and streams as DescribeStream returns them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from datazone_dagster.model.service_limits import RETENTION

_BOTH = "+"
"""Between the ids of two parents; no shard id has it."""


def joined_parents(first: str | None, second: str | None) -> str | None:
    """Return the parents of a shard as one text: a merged shard of Kinesis has two."""
    found = [one for one in (first, second) if one]
    return _BOTH.join(found) or None


def parents_in(text: str | None) -> tuple[str, ...]:
    """Return the ids of the parents in such a text."""
    if not text:
        return ()
    return tuple(text.split(_BOTH)) if _BOTH in text else (text,)


def parents_in_all(texts: Iterable[str | None]) -> set[str]:
    """Return the ids of the parents in many such texts."""
    found = {text for text in texts if text}
    merged = [text for text in found if _BOTH in text]
    return found.difference(merged).union(*map(parents_in, merged)) if merged else found


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard in a listing of a stream. Open while it has no ending sequence number.

    `parent_shard_id` has the ids of two parents where two shards were merged: see `parents_in`.
    """

    shard_id: str
    parent_shard_id: str | None = None
    starting_sequence_number: int | None = None
    ending_sequence_number: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether records can still be added."""
        return self.ending_sequence_number is None


@dataclass(frozen=True)
class StreamDescription:
    """All pages of a DescribeStream or ListShards response, combined.

    `served_at` is the time of the response by the service's own clock; None if it does not say.
    `retention` is the time that the stream keeps a record. `enabled` says whether changes of the
    table still reach the stream. `is_coarse` says whether their times have milliseconds only,
    where times order them. `listed_at` is the time at which the listing began that shows every
    shard; None: now. Shards that it lacks may be there since. `closed_late` are ids of the shards
    that a first listing shows as closed on a page after its first: some may have been open when it
    began.
    """

    stream_arn: str
    view_type: str
    enabled: bool
    shards: tuple[Shard, ...]
    served_at: datetime | None = None
    retention: timedelta = RETENTION
    is_coarse: bool = False
    listed_at: datetime | None = None
    closed_late: frozenset[str] = frozenset()

    @property
    def is_ordered(self) -> bool:
        """Whether a shard has each change of an item once, in order. Kinesis promises neither."""
        return not is_kinesis(self.stream_arn)

    @cached_property
    def by_id(self) -> Mapping[str, Shard]:
        """The shards by id."""
        return {shard.shard_id: shard for shard in self.shards}

    @cached_property
    def open_ids(self) -> frozenset[str]:
        """Ids of the shards that are listed as open."""
        return frozenset(
            [one.shard_id for one in self.shards if one.ending_sequence_number is None]
        )


@dataclass(frozen=True, slots=True)
class ShardPage:
    """One page of a listing.

    Args:
        stream: The stream with the shards of this page alone.
        last: Id of the shard after which the next page begins; None: this page is the last one.
    """

    stream: StreamDescription
    last: str | None


def is_kinesis(stream_arn: str) -> bool:
    """Return whether a stream is one of Kinesis, and not one of DynamoDB itself."""
    return stream_arn.startswith("arn:") and stream_arn.split(":")[2:3] == ["kinesis"]


def is_switch(old_arn: str, new_arn: str) -> bool:
    """Return whether a client of the new stream can't read the old one, though it may be there.

    A table's own streams follow one another, and one client reads them all.
    """
    return service_arn(old_arn) != service_arn(new_arn) and (
        is_kinesis(old_arn) or is_kinesis(new_arn)
    )


_RESTART = "#"


def service_arn(stream_arn: str) -> str:
    """Return the ARN under which the service knows a stream."""
    return stream_arn.partition(_RESTART)[0]


def restart_of(stream_arn: str) -> int:
    """Return the number of a stream among those that had its ARN; the first is 1."""
    number = stream_arn.partition(_RESTART)[2]
    return int(number) if number.isdecimal() else 1


def next_restart(stream_arn: str) -> str:
    """Return our name for a stream that was made again under its ARN: `<ARN>#2` for the second.

    Sequence numbers begin again, so it is another stream in our tables: with its own shards,
    positions and epoch.
    """
    return f"{service_arn(stream_arn)}{_RESTART}{restart_of(stream_arn) + 1}"


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
