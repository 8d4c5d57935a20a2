"""What a drain sensor remembers between ticks: a hint, never the truth.

Positions are in the lakehouse. Without this cursor, with an old one or with garbage in it,
a sensor reports a check once too often, and nothing else happens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from datazone_dagster.observe.level import Level

MAX_BYTES = 1_000
FORMAT = 1

_CLOCK_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SensorCursor:
    """The hints of one drain sensor.

    Args:
        caught_up_at: When a drain last read every shard to its tip.
        evaluated_at: When the checks were last reported.
        levels: The checks that did not pass then, by name; the others passed. None if nobody
            knows.
    """

    caught_up_at: datetime | None = None
    evaluated_at: datetime | None = None
    levels: Mapping[str, Level] | None = field(default_factory=dict)

    def has_changed(self, check: str, level: Level) -> bool:
        """Whether a check had another level when it was last reported."""
        return self.levels is not None and self.levels.get(check, Level.OK) is not level

    def to_json(self) -> str:
        """The cursor as text, at most 1,000 bytes: levels are left out if they are too many."""
        failing = {
            check: level.value for check, level in (self.levels or {}).items() if not level.passed
        }
        for levels in (failing if self.levels is not None else None, None):
            text = json.dumps(
                {
                    "v": FORMAT,
                    "caught_up_at": _seconds(self.caught_up_at),
                    "evaluated_at": _seconds(self.evaluated_at),
                    "levels": levels,
                },
                separators=(",", ":"),
            )
            if len(text.encode()) <= MAX_BYTES:
                break
        return text

    @classmethod
    def parse(cls, text: str | None, *, now: datetime) -> SensorCursor:
        """What can be read of a cursor; anything else counts as not known."""
        try:
            found = json.loads(text or "{}")
        except ValueError:
            return cls()
        if not isinstance(found, dict) or found.get("v") != FORMAT:
            return cls()
        return cls(
            caught_up_at=_time(found.get("caught_up_at"), now),
            evaluated_at=_time(found.get("evaluated_at"), now),
            levels=_levels(found.get("levels")),
        )


def _levels(found: object) -> dict[str, Level] | None:
    if not isinstance(found, dict):
        return None
    known = {level.value: level for level in Level}
    return {check: known[text] for check, text in found.items() if text in tuple(known)}


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else round(time.timestamp(), 3)


def _time(seconds: object, now: datetime) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    # Compared as numbers first: a garbage number may be no date at all.
    if not 0 <= seconds <= (now + _CLOCK_SKEW).timestamp():
        return None
    return datetime.fromtimestamp(seconds, timezone.utc)
