"""A clock that only moves when it is told to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone


@dataclass
class FixedClock:
    """A clock that stands still until it is moved."""

    now: datetime = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        """The time it stands at."""
        return self.now

    def advance(self, step: timedelta) -> None:
        """Move it on, or back."""
        self.now += step
