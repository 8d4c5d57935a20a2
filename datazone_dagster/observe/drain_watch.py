"""The check `drain`: whether the sensor that drains a stream runs, ticks and does not fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from datazone_dagster.model.service_limits import RETENTION
from datazone_dagster.observe.lag import in_words
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain
from datazone_dagster.text import shown

NO_TICK_FOR = timedelta(minutes=5)
"""Time without a tick after which a sensor that runs counts as not ticking."""

MISSED_TICKS = 3
"""Intervals of a sensor that must have passed as well: one that ticks rarely is waited for."""

FAILED_TICKS = 3
"""Failed ticks in a row from which on a sensor counts as failing."""


@dataclass(frozen=True, slots=True)
class SensorFacts:
    """State of a drain sensor, as Dagster stores it.

    Args:
        is_running: Whether it is switched on; None: Dagster has not seen it yet.
        ticked_at: Start of its last tick; None if it has not ticked yet.
        failed_ticks: Number of failed ticks since the last one that did not fail.
        error: Start of the error of the last tick; empty if it did not fail.
        interval: Shortest time between two ticks of it.
    """

    is_running: bool | None = None
    ticked_at: datetime | None = None
    failed_ticks: int = 0
    error: str = ""
    interval: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """Result of the `drain` check of a change log."""

    level: Level
    reason: str
    facts: SensorFacts
    tick_age_seconds: float | None


def drain_status(
    sensor: str,
    facts: SensorFacts,
    *,
    now: datetime,
    watched_since: datetime,
    retention: timedelta | None = RETENTION,
) -> DrainStatus:
    """Return the status of a drain sensor.

    Args:
        sensor: Name of the sensor.
        facts: Its state.
        now: The current time.
        watched_since: Time since when somebody watches; a sensor without a tick has until 5
            minutes later, or three of its intervals if that is more.
        retention: Time that the stream keeps changes; None if it is unknown, as with Kinesis.
    """
    age = None if facts.ticked_at is None else max(timedelta(0), now - facts.ticked_at)
    ago = "It has not ticked yet." if age is None else f"Its last tick began {in_words(age)} ago."
    level, reason = Level.OK, f"Sensor {sensor} ticks. {ago}"
    keeps = "Kinesis keeps changes for the retention of the stream"
    if retention is not None:
        keeps = f"DynamoDB keeps changes for {retention / timedelta(hours=1):g} hours"
    lost = f"{keeps}; what is not read by then is lost."
    if facts.is_running is False:
        level = Level.ERROR
        reason = f"Sensor {sensor} is stopped: nothing is read. {ago} {lost} Start it in the UI."
    elif (now - watched_since if age is None else age) >= max(
        NO_TICK_FOR, MISSED_TICKS * facts.interval
    ):
        level = Level.ERROR
        reason = (
            f"Sensor {sensor} runs but does not tick. {ago} {lost} Look at the daemon and at the "
            "code location: Deployment in the UI."
        )
    elif facts.failed_ticks:
        level = Level.ERROR if facts.failed_ticks >= FAILED_TICKS else Level.WARN
        ticks = "tick" if facts.failed_ticks == 1 else f"{facts.failed_ticks} ticks"
        reason = f"The last {ticks} of sensor {sensor} failed: {shown(facts.error)}"
    return DrainStatus(level, reason, facts, None if age is None else age.total_seconds())


def drain_status_metadata(status: DrainStatus) -> dict[str, Plain]:
    """Return the metadata of the check."""
    found: dict[str, Plain | None] = {
        "tick_age_seconds": None
        if status.tick_age_seconds is None
        else round(max(0.0, status.tick_age_seconds), 3),
        "failed_ticks": status.facts.failed_ticks,
        "ticked_at": status.facts.ticked_at,
    }
    return {name: value for name, value in found.items() if value is not None}
