"""Which shards this drain asks for records. Pure.

Each GetRecords call is billed, also one that finds nothing. A shard that was quiet for a
while is asked at every second or third tick; what is newly busy is still seen within 15
seconds, and from its first record on the shard is asked at every tick again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datazone_dagster.drain.plan import ShardRead

QUIET_AFTER_SECONDS = 120.0
SILENT_AFTER_SECONDS = 600.0
QUIET_INTERVAL_SECONDS = 8.0
SILENT_INTERVAL_SECONDS = 13.0
"""Ticks come every 5 seconds, not to the millisecond: these are every second and third tick."""


@dataclass(frozen=True, slots=True)
class ShardActivity:
    """What a process remembers of one shard; on the drain's monotonic clock, in seconds."""

    busy_at: float
    polled_at: float


Activities = dict[tuple[str, str], ShardActivity]
"""By stream ARN and shard id. A hint: a shard that is not in it is asked."""


def due(
    reads: Sequence[ShardRead], activities: Mapping[tuple[str, str], ShardActivity], now: float
) -> list[ShardRead]:
    """The reads that this drain makes. A shard with an end is always read to it.

    Args:
        reads: The plan's.
        activities: What this process remembers.
        now: On the same clock.
    """
    return [read for read in reads if read.closed or _is_due(activities.get(_place(read)), now)]


def _is_due(activity: ShardActivity | None, now: float) -> bool:
    if activity is None:
        return True
    quiet_seconds = now - activity.busy_at
    if quiet_seconds < QUIET_AFTER_SECONDS:
        return True
    interval = (
        QUIET_INTERVAL_SECONDS if quiet_seconds < SILENT_AFTER_SECONDS else SILENT_INTERVAL_SECONDS
    )
    return now - activity.polled_at >= interval


def noted(
    activities: Activities,
    polled: Mapping[tuple[str, str], bool],
    now: float,
) -> None:
    """Remember what a drain found.

    Args:
        activities: Changed in place.
        polled: Shards that were read to their tip, and whether they had records. Others
            are left out: they are asked again.
        now: On the same clock.
    """
    for place, had_records in polled.items():
        known = activities.get(place)
        busy_at = now if had_records or known is None else known.busy_at
        activities[place] = ShardActivity(busy_at, now)
    for place in activities.keys() - polled.keys():
        if now - activities[place].polled_at > SILENT_AFTER_SECONDS:
            del activities[place]


def _place(read: ShardRead) -> tuple[str, str]:
    return read.shard.stream_arn, read.shard.shard_id
