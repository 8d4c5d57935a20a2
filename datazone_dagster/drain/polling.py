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

POLLING = (
    (QUIET_AFTER_SECONDS, QUIET_INTERVAL_SECONDS),
    (SILENT_AFTER_SECONDS, SILENT_INTERVAL_SECONDS),
)
"""Quiet time of a shard, and the interval between two reads from then on; both in seconds."""

SAME_TICK_SECONDS = 4.0
"""Interval within one tick at which a shard at its latest position is asked again."""


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
    *,
    at_least_seconds: float = 0.0,
) -> Poll:
    """Return the reads that are due. A closed shard always is, until its end is read.

    Args:
        reads: Reads of the plan.
        activities: Recent activity of the shards in this process.
        now: Time on the monotonic clock, in seconds.
        at_least_seconds: Shortest interval at which a shard at its latest position is asked again.
    """
    asked: list[tuple[float, ShardRead]] = []
    oldest_latest_at = now
    for read in reads:
        activity = activities.get((read.shard.stream_arn, read.shard.shard_id))
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
