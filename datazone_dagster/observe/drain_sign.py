"""Whether a drain works, by what it leaves in the lakehouse; Dagster is not asked."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from datazone_dagster.model.checkpoint import LATEST_RECORDED_EVERY
from datazone_dagster.model.service_limits import RETENTION
from datazone_dagster.observe.drain_watch import MISSED_TICKS
from datazone_dagster.observe.lag import in_words

TICK_GRACE = timedelta(minutes=2)
"""Time beyond the interval of records until which a drain is waited for: a tick takes up to one."""


class DrainState(enum.Enum):
    """State of a drain: it reads the stream, it has not for too long, or nothing is known."""

    READS = "reads"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DrainSign:
    """Last sign of a drain.

    Args:
        state: What it means.
        line: The same in one line.
        at: Time of the sign; None if there was none.
        age_seconds: Its age; None if there was none.
    """

    state: DrainState
    line: str
    at: datetime | None
    age_seconds: float | None


def drain_sign(
    sensor: str,
    drained_at: datetime | None,
    *,
    now: datetime,
    interval: timedelta,
    retention: timedelta | None = RETENTION,
) -> DrainSign:
    """Return what the last sign of a drain means.

    A drain that lands changes leaves a sign with each batch, one that finds none every ten minutes.

    Args:
        sensor: Name of the sensor that drains.
        drained_at: Time of the last sign.
        now: Present time.
        interval: Shortest time between two ticks of the sensor.
        retention: Time that the stream keeps changes; None if it is unknown, as with Kinesis.
    """
    if drained_at is None:
        line = "no drain has read the stream to its end yet"
        return DrainSign(DrainState.UNKNOWN, line, None, None)
    every = max(LATEST_RECORDED_EVERY, interval)
    noted = f"an idle drain leaves a note every {in_words(every)}"
    age = max(timedelta(0), now - drained_at)
    ago, seconds = f"{in_words(age)} ago", age.total_seconds()
    if age < every + max(TICK_GRACE, MISSED_TICKS * interval):
        line = f"stream last read {ago}, as the lakehouse shows; {noted}"
        return DrainSign(DrainState.READS, line, drained_at, seconds)
    line = (
        f"NOT DRAINED: stream last read {ago}, and {noted}; {_lost(age, retention)}. "
        f"Is sensor {sensor} on, and Dagster's daemon running?"
    )
    return DrainSign(DrainState.SILENT, line, drained_at, seconds)


def _lost(age: timedelta, retention: timedelta | None) -> str:
    if retention is None:
        return "changes are lost once the retention of the Kinesis stream has passed"
    left = retention - age
    return f"in {in_words(left)} changes are lost" if left > timedelta(0) else "changes are lost"
