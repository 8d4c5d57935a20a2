"""Clock that moves only when a test moves it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone


@dataclass
class FixedClock:
    """Clock that shows `now` until it is moved."""

    now: datetime = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        """Return the time that the clock shows."""
        return self.now

    def advance(self, step: timedelta) -> None:
        """Move the clock forward, or back by a negative step."""
        self.now += step
