"""Whether a dataset has every change of its DynamoDB table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datazone_dagster.model.report import Gap
from datazone_dagster.observe.health import describe_gaps, missing_seconds, ways_out
from datazone_dagster.observe.level import Level


@dataclass(frozen=True, slots=True)
class Completeness:
    """Result of the `complete` check of a dataset."""

    level: Level
    reason: str
    gaps: int = 0
    missing_seconds: float = 0.0


def completeness(source: str, gaps: Sequence[Gap]) -> Completeness:
    """Return an error while the source has gaps that nobody accepted or repaired."""
    if not gaps:
        return Completeness(Level.OK, "Its source has no open gap.")
    return Completeness(
        Level.ERROR,
        f"{describe_gaps(gaps)} {ways_out(source)}",
        len(gaps),
        missing_seconds(gaps),
    )
