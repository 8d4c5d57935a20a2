"""Which shards a drain asks for records, and in which order. Pure.

Each GetRecords call is billed, also one that finds nothing. A shard that was quiet for a
while is asked at every second or third tick; what is newly busy is still seen within 15
seconds, and from its first record on the shard is asked at every tick again.

Whoever waited longest is asked first: where a drain's budget ends before every shard had
its turn, the next drain begins with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from datazone_dagster.drain.plan import ShardRead
from datazone_dagster.drain.reader import ShardOutcome

QUIET_AFTER_SECONDS = 120.0
SILENT_AFTER_SECONDS = 600.0
QUIET_INTERVAL_SECONDS = 8.0
SILENT_INTERVAL_SECONDS = 13.0
"""Ticks come every 5 seconds, not to the millisecond: these are every second and third tick."""

SAME_TICK_SECONDS = 4.0
"""Within one tick a shard that is at its tip is not asked again for this long."""


@dataclass(frozen=True, slots=True)
class ShardActivity:
    """What a process remembers of one shard; on the drain's monotonic clock, in seconds."""

    busy_at: float
    polled_at: float
    at_latest: bool


Activities = dict[tuple[str, str], ShardActivity]
"""By stream ARN and shard id. A hint: a shard that is not in it is asked."""


@dataclass(frozen=True, slots=True)
class Poll:
    """What one drain asks.

    Args:
        reads: The plan's that are due, whoever waited longest first.
        left_out: How many were at their tip too recently to be asked.
        latest_age_seconds: How long ago the one of those asked longest ago was at its tip.
    """

    reads: tuple[ShardRead, ...]
    left_out: int
    latest_age_seconds: float


def due(
    reads: Sequence[ShardRead],
    activities: Mapping[tuple[str, str], ShardActivity],
    now: float,
    *,
    at_least_seconds: float = 0.0,
) -> Poll:
    """The reads that this drain makes. A shard with an end is always read to it.

    Args:
        reads: The plan's.
        activities: What this process remembers.
        now: On the same clock.
        at_least_seconds: No shard at its tip is asked again before this.
    """
    asked: list[tuple[float, ShardRead]] = []
    oldest_latest_at = now
    for read in reads:
        activity = activities.get(_place(read))
        if activity is None:
            asked.append((float("-inf"), read))
        elif _is_due(read, activity, now, at_least_seconds):
            asked.append((activity.polled_at, read))
        else:
            oldest_latest_at = min(oldest_latest_at, activity.polled_at)
    asked.sort(key=lambda one: one[0])
    return Poll(
        tuple(read for _, read in asked),
        left_out=len(reads) - len(asked),
        latest_age_seconds=now - oldest_latest_at,
    )


def _is_due(read: ShardRead, activity: ShardActivity, now: float, at_least_seconds: float) -> bool:
    if read.closed or not activity.at_latest:
        return True
    quiet_seconds = now - activity.busy_at
    interval = at_least_seconds
    if quiet_seconds >= SILENT_AFTER_SECONDS:
        interval = max(interval, SILENT_INTERVAL_SECONDS)
    elif quiet_seconds >= QUIET_AFTER_SECONDS:
        interval = max(interval, QUIET_INTERVAL_SECONDS)
    return now - activity.polled_at >= interval


def noted(activities: Activities, outcomes: Iterable[ShardOutcome], now: float) -> None:
    """Remember what a drain found, once that is committed.

    Args:
        activities: Changed in place.
        outcomes: Of every read; one that got no turn stays as it was.
        now: When the drain began to read, on the same clock.
    """
    for outcome in outcomes:
        place = (outcome.row.stream_arn, outcome.row.shard_id)
        if outcome.calls == 0:
            continue
        known = activities.get(place)
        busy = known is None or outcome.records > 0 or outcome.malformed > 0
        activities[place] = ShardActivity(
            busy_at=now if busy or known is None else known.busy_at,
            polled_at=now,
            at_latest=outcome.at_latest,
        )
    for place, activity in list(activities.items()):
        if now - activity.polled_at > SILENT_AFTER_SECONDS:
            del activities[place]


def _place(read: ShardRead) -> tuple[str, str]:
    return read.shard.stream_arn, read.shard.shard_id
