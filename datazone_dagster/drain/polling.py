"""Polling: the shards that a drain asks for records, and their order. Pure.

Each GetRecords call is billed, even one that finds nothing. A shard that was quiet for a while is
asked at every second or third tick. Its new records are still found within 15 seconds, and from
the first of them on the shard is asked at every tick again.

The shard that waited longest is asked first: if a drain's budget ends before every shard had its
turn, the next drain begins with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import ShardRead

QUIET_AFTER_SECONDS = 120.0
SILENT_AFTER_SECONDS = 600.0
QUIET_INTERVAL_SECONDS = 8.0
SILENT_INTERVAL_SECONDS = 13.0
"""Ticks come every 5 seconds, not to the millisecond: the two intervals are every second and every
third tick."""

Intervals = Sequence[tuple[float, float]]
"""Quiet time of a shard, and the interval between two reads from then on; both in seconds."""

POLLING: Intervals = (
    (QUIET_AFTER_SECONDS, QUIET_INTERVAL_SECONDS),
    (SILENT_AFTER_SECONDS, SILENT_INTERVAL_SECONDS),
)
"""Those of ticks: a busy shard is read at each of them."""

SAME_TICK: Intervals = ((0.0, 4.0), *POLLING)
"""Those of later batches of one tick."""

LISTENING_SECONDS = 1.0
BUSY_FOR_SECONDS = 10.0
LISTENING: Intervals = (
    (0.0, LISTENING_SECONDS),
    (BUSY_FOR_SECONDS, 4.5),
    (QUIET_AFTER_SECONDS, 9.5),
    (SILENT_AFTER_SECONDS, 14.5),
)
"""Those of a tick that listens.

Only a shard with recent records is asked more often than by ticks of 5 seconds, and no other one
takes more calls than by them.
"""


@dataclass(frozen=True, slots=True)
class ShardActivity:
    """Recent activity of one shard in this process; times on the drain's monotonic clock."""

    busy_at: float
    polled_at: float
    at_latest: bool


Activities = dict[tuple[str, str], ShardActivity]
"""Activity by stream ARN and shard id. A hint: a shard without an entry is asked."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Reads that one drain makes.

    Args:
        reads: Planned reads that are due, the shard that waited longest first.
        left_out: Number of shards that were at their latest position too recently to be asked.
        latest_age_seconds: Time since the oldest poll among the shards left out.
    """

    reads: tuple[ShardRead, ...]
    left_out: int
    latest_age_seconds: float


def due(
    reads: Sequence[ShardRead],
    activities: Mapping[tuple[str, str], ShardActivity],
    now: float,
    intervals: Intervals = POLLING,
) -> Poll:
    """Return the reads that are due. A closed shard always is, until its end is read.

    Args:
        reads: Reads of the plan.
        activities: Recent activity of the shards in this process.
        now: Time on the monotonic clock, in seconds.
        intervals: Intervals at which a shard at its latest position is asked again.
    """
    asked: list[tuple[float, ShardRead]] = []
    oldest_latest_at = now
    for read in reads:
        activity = activities.get((read.shard.stream_arn, read.shard.shard_id))
        if activity is None:
            asked.append((float("-inf"), read))
        elif read.closed or _seconds_to_wait(activity, now, intervals) <= 0:
            asked.append((activity.polled_at, read))
        else:
            oldest_latest_at = min(oldest_latest_at, activity.polled_at)
    asked.sort(key=lambda one: one[0])
    return Poll(
        tuple(read for _, read in asked),
        left_out=len(reads) - len(asked),
        latest_age_seconds=now - oldest_latest_at,
    )


def seconds_to_next(activities: Activities, now: float, longest_seconds: float) -> float:
    """Return the time until a tick that listens has a shard to ask, at most the longest one."""
    waits = (_seconds_to_wait(one, now, LISTENING) for one in activities.values())
    return max(0.0, min((longest_seconds, *waits)))


def _seconds_to_wait(activity: ShardActivity, now: float, intervals: Intervals) -> float:
    """Return the time until a shard is due; negative if it has been for a while."""
    if not activity.at_latest:
        return 0.0
    quiet_seconds = now - activity.busy_at
    interval = max((each for after, each in intervals if quiet_seconds >= after), default=0.0)
    return interval - (now - activity.polled_at)


def record_activity(activities: Activities, outcomes: Iterable[ShardOutcome], now: float) -> None:
    """Record the shards' activity in a drain, once the drain is committed.

    Args:
        activities: Activity of the shards, changed in place.
        outcomes: Outcome of every read; a shard that got no turn keeps its entry.
        now: Time at which the drain began to read, on the monotonic clock, in seconds.
    """
    for outcome in outcomes:
        shard = (outcome.row.stream_arn, outcome.row.shard_id)
        if outcome.calls == 0:
            continue
        if outcome.ended:
            activities.pop(shard, None)
            continue
        known = activities.get(shard)
        busy = known is None or outcome.records > 0 or outcome.malformed > 0
        activities[shard] = ShardActivity(
            busy_at=now if busy or known is None else known.busy_at,
            polled_at=now,
            at_latest=outcome.at_latest,
        )
    for shard, activity in list(activities.items()):
        if now - activity.polled_at > SILENT_AFTER_SECONDS:
            del activities[shard]
