"""Clock of the server: real time plus an offset that an admin call can change."""

from __future__ import annotations

import time
from collections.abc import Callable

TimeSource = Callable[[], float]
"""Function that returns seconds since 1970."""


class ServerClock:
    """Clock of the server, in seconds since 1970.

    Iterators, trimming, TTL and record times use only this clock, so 24 hours pass in one call.

    Args:
        offset_seconds: Seconds that the clock is ahead of the time source.
        source: Time source.
    """

    def __init__(self, offset_seconds: float = 0.0, source: TimeSource = time.time) -> None:
        self.offset_seconds = offset_seconds
        self._source = source

    def now(self) -> float:
        """Return seconds since 1970."""
        return self._source() + self.offset_seconds
