"""Cursor of a drain sensor: hints for its next tick, never the source of truth.

Positions are in the lakehouse. With a missing, outdated or malformed cursor, a sensor only
reports a check once too often. Dagster stores the text with every tick, so it is short: what is
not set is left out, and times are whole seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from datazone_dagster.observe.level import Level

MAX_BYTES = 1_000
FORMAT = 2

_TIMES = ("caught_up_at", "evaluated_at", "hourly_at", "polled_at", "newest_at")

_CLOCK_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SensorCursor:
    """Hints of one drain sensor.

    Args:
        caught_up_at: Time when a drain last read every shard to its latest position.
        never_read: Whether no drain did so yet; `caught_up_at` is the first attempt then.
        evaluated_at: Time when the checks were last reported.
        hourly_at: Time when the checks were last reported that are reported once an hour.
        idle: Whether there was no traffic then, and nothing that failed.
        polled_at: Time of the last drain that succeeded.
        newest_at: Event time of the newest change that was landed.
        levels: Levels of the checks that did not pass then, by name; the others passed. None if
            the levels are not known.
    """

    caught_up_at: datetime | None = None
    evaluated_at: datetime | None = None
    levels: Mapping[str, Level] | None = field(default_factory=dict)
    never_read: bool = False
    hourly_at: datetime | None = None
    idle: bool = False
    polled_at: datetime | None = None
    newest_at: datetime | None = None

    def has_changed(self, check: str, level: Level) -> bool:
        """Return whether a check had another level when it was last reported."""
        return self.levels is not None and self.levels.get(check, Level.OK) is not level

    def to_json(self) -> str:
        """Return the cursor as text of at most 1,000 bytes; too many levels are left out."""
        failing = {
            check: level.value for check, level in (self.levels or {}).items() if not level.passed
        }
        flags = {name: True for name in ("never_read", "idle") if getattr(self, name)}
        times = {
            name.removesuffix("_at"): int(time.timestamp())
            for name in _TIMES
            if (time := getattr(self, name)) is not None
        }
        for levels in (failing if self.levels is not None else None, None):
            shown = {} if levels == {} else {"levels": levels}
            text = json.dumps({"v": FORMAT, **times, **shown, **flags}, separators=(",", ":"))
            if len(text.encode()) <= MAX_BYTES:
                break
        return text

    @classmethod
    def parse(cls, text: str | None, *, now: datetime) -> SensorCursor:
        """Return the hints that can be read from a cursor; the others count as unknown."""
        try:
            found = json.loads(text or "{}")
        except ValueError:
            return cls()
        if not isinstance(found, dict) or found.get("v") != FORMAT:
            return cls()
        times = {name: _time(found.get(name.removesuffix("_at")), now) for name in _TIMES}
        return cls(
            levels=_levels(found.get("levels", {})),
            never_read=found.get("never_read") is True,
            idle=found.get("idle") is True,
            **times,
        )


def _levels(found: object) -> dict[str, Level] | None:
    if not isinstance(found, dict):
        return None
    known = {level.value: level for level in Level}
    return {check: known[text] for check, text in found.items() if text in tuple(known)}


def _time(seconds: object, now: datetime) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    # Compare as numbers first: a malformed number may not be a date at all.
    if not 0 <= seconds <= (now + _CLOCK_SKEW).timestamp():
        return None
    return datetime.fromtimestamp(seconds, timezone.utc)
