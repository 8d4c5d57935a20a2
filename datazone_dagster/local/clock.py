"""The server's clock: real time plus an offset that an admin call can move."""

from __future__ import annotations

import time
from collections.abc import Callable

TimeSource = Callable[[], float]
"""Returns seconds since 1970."""


class ServerClock:
    """Seconds since 1970 as the server sees them.

    Iterators, trimming, TTL and record times use nothing else, so 24 hours pass in one call.

    Args:
        offset_seconds: Where the clock stands ahead of the time source.
        source: The time source.
    """

    def __init__(self, offset_seconds: float = 0.0, source: TimeSource = time.time) -> None:
        self.offset_seconds = offset_seconds
        self._source = source

    def now(self) -> float:
        """Seconds since 1970."""
        return self._source() + self.offset_seconds
