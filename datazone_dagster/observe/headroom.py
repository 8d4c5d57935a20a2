"""The check `headroom`: time until DynamoDB may trim the oldest unread change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from datazone_dagster.model.service_limits import RETENTION
from datazone_dagster.observe.health import LOW_HEADROOM, StreamHealth
from datazone_dagster.observe.lag import in_words
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain

LEAST_HEADROOM = timedelta(hours=2)
"""Headroom below which the check is an error: a run of repairs may take that long."""


@dataclass(frozen=True, slots=True)
class HeadroomStatus:
    """Result of the `headroom` check of a change log."""

    level: Level
    reason: str
    headroom_seconds: float | None
    retention_seconds: float = RETENTION.total_seconds()


def headroom_status(health: StreamHealth) -> HeadroomStatus:
    """Return the status of a stream: a warning below 6 hours, an error below 2."""
    seconds = health.headroom_seconds
    if seconds is None:
        reason = "Not known yet: the stream was never read."
        return HeadroomStatus(Level.OK, reason, None)
    left, retention = timedelta(seconds=seconds), health.retention_seconds
    if seconds >= retention:
        return HeadroomStatus(Level.OK, "No unread change is known.", seconds, retention)
    level = Level.OK if left >= LOW_HEADROOM else Level.WARN
    if left < LEAST_HEADROOM:
        level = Level.ERROR
    reason = f"DynamoDB may trim the oldest unread change in {in_words(left)}."
    if not level.passed:
        reason += (
            " What is trimmed unread is lost for the datasets until a resync. Look at the failing "
            "shards and the errors of the drain; the sensor must run."
        )
    return HeadroomStatus(level, reason, seconds, retention)


def headroom_metadata(status: HeadroomStatus) -> dict[str, Plain]:
    """Return the metadata of the check."""
    if status.headroom_seconds is None:
        return {}
    share = status.headroom_seconds / status.retention_seconds
    return {
        "headroom_seconds": round(status.headroom_seconds, 3),
        "headroom_share": round(share, 4),
    }
