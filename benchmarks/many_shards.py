"""Simulated stream of many shards: each is open for about four hours, and listed for a day more.

It answers DescribeStream as the service does, a page of 100 at a time, and counts the calls. It
has no records: `read` is what a drain of a stream with steady traffic finds in a shard.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import ShardRead
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.service_limits import RETENTION, SHARDS_PER_PAGE
from datazone_dagster.model.shard import IteratorStart, Shard, ShardPage, StreamDescription

ARN = "arn:aws:dynamodb:us-west-2:000000000000:table/orders/stream/2029-12-01T00:00:00.000"
BEGAN_AT = datetime(2029, 12, 1, tzinfo=timezone.utc)
OPEN_SECONDS = 4 * 3600.0
"""Time for which a shard is open: observed, not promised."""
GENERATIONS = 6
"""Closed shards that are listed for each open one: those of a day."""

_NUMBERS_A_SECOND = 10**9


class ManyShards:
    """`StreamClient` and `ListsInParts` without records.

    Args:
        shards: Number of open shards.
        seed: Seed of the times at which shards end.
    """

    def __init__(self, shards: int, *, seed: int = 1) -> None:
        self.seconds = 0.0
        self.describe_calls = 0
        self._random = random.Random(seed)  # spread of the ends, nothing secret
        self._made = 0
        self._shards: dict[str, Shard] = {}
        self._closed_at: dict[str, float] = {}
        self._ids: list[str] = []
        self._children: dict[str, list[str]] = {}
        self._ends: list[tuple[float, str]] = []
        for _ in range(shards):
            self._open(None, -OPEN_SECONDS * (GENERATIONS + self._random.random()))
        self._advance(0.0)

    @property
    def now(self) -> datetime:
        """Time of the service."""
        return BEGAN_AT + timedelta(days=2, seconds=self.seconds)

    @property
    def listed(self) -> int:
        """Number of listed shards."""
        return len(self._ids)

    def advance(self, seconds: float) -> None:
        """Let time pass: shards end, and those that ended a day ago leave the listing."""
        self._advance(self.seconds + seconds)

    def end_all_within(self, seconds: float) -> None:
        """Let every open shard end within this time, as after a change of the table's capacity."""
        self._ends = [
            (self.seconds + seconds * self._random.random(), name) for _, name in self._ends
        ]
        heapq.heapify(self._ends)

    def is_closed(self, shard_id: str) -> bool:
        """Return whether a shard has ended."""
        return shard_id in self._closed_at

    def ended_at(self, shard_id: str) -> float:
        """Return the time at which a shard ended, in seconds."""
        return self._closed_at[shard_id]

    def stream_arns(self) -> tuple[str, ...]:
        """See `StreamClient`."""
        return (ARN,)

    def describe(self, stream_arn: str) -> StreamDescription:
        """See `StreamClient`; the calls of its pages are counted."""
        assert stream_arn == ARN
        self.describe_calls += -(-len(self._ids) // SHARDS_PER_PAGE)
        return self._described([self._shards[name] for name in self._ids])

    def describe_page(self, stream_arn: str, after: str | None) -> ShardPage:
        """See `ListsInParts`."""
        assert stream_arn == ARN
        self.describe_calls += 1
        first = 0 if after is None else bisect_right(self._ids, after)
        names = self._ids[first : first + SHARDS_PER_PAGE]
        last = names[-1] if first + len(names) < len(self._ids) else None
        return ShardPage(self._described([self._shards[name] for name in names]), last)

    def children(self, stream_arn: str, shard_id: str) -> tuple[Shard, ...] | None:
        """See `ListsInParts`."""
        assert stream_arn == ARN
        self.describe_calls += 1
        return tuple(self._shards[name] for name in self._children.get(shard_id, ()))

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """Not part of the simulation."""
        raise NotImplementedError

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """Not part of the simulation."""
        raise NotImplementedError

    def read(self, reads: Sequence[ShardRead]) -> list[ShardOutcome]:
        """Return what a drain finds that reads these shards to their latest position or end."""
        return [self._read(read) for read in reads]

    def _read(self, read: ShardRead) -> ShardOutcome:
        name, at = read.shard.shard_id, int(self.now.timestamp())
        if name not in self._shards:  # it expired since it was listed
            return ShardOutcome(read.shard, ended=True, vanished=True)
        return ShardOutcome(
            read.shard,
            records=500,
            sequence_number=self._last_number(name),
            event_time_seconds=at,
            created_from_seconds=at,
            created_to_seconds=at,
            ended=self.is_closed(name),
            at_latest=not self.is_closed(name),
            calls=2,
            body_bytes=900_000,
        )

    def _last_number(self, shard_id: str) -> int:
        shard = self._shards[shard_id]
        return (shard.ending_sequence_number or self._number(self.seconds)) - 1

    def _advance(self, until: float) -> None:
        while self._ends and self._ends[0][0] <= until:
            at, name = heapq.heappop(self._ends)
            self._closed_at[name] = at
            closed = self._shards[name]
            self._shards[name] = Shard(
                name,
                closed.parent_shard_id,
                closed.starting_sequence_number,
                self._number(at) + 1,
            )
            self._open(name, at)
        self.seconds = until
        kept = until - RETENTION.total_seconds()
        gone = [name for name, at in self._closed_at.items() if at < kept]
        for name in gone:
            del self._closed_at[name], self._shards[name]
            self._children.pop(name, None)
        if gone:
            self._ids = [name for name in self._ids if name in self._shards]

    def _open(self, parent: str | None, at: float) -> None:
        self._made += 1
        milliseconds = int((BEGAN_AT.timestamp() + 2 * 86_400 + at) * 1000)
        name = f"shardId-{milliseconds:020d}-{self._made:08x}"
        self._shards[name] = Shard(name, parent, self._number(at) + 2)
        index = bisect_right(self._ids, name)
        self._ids.insert(index, name)
        if parent is not None:
            self._children.setdefault(parent, []).append(name)
        open_seconds = OPEN_SECONDS * (0.9 + 0.2 * self._random.random())
        heapq.heappush(self._ends, (at + open_seconds, name))

    def _number(self, at: float) -> int:
        return 10**21 + int((2 * 86_400 + at) * _NUMBERS_A_SECOND)

    def _described(self, shards: Sequence[Shard]) -> StreamDescription:
        return StreamDescription(ARN, "NEW_AND_OLD_IMAGES", True, tuple(shards), served_at=self.now)
