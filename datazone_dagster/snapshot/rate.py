"""Rate of a scan: a token bucket on the read units that its pages have consumed. Pure.

The price of a page is known only after it was read. So a page starts as soon as the bucket is not
empty, takes what the page before it cost, and pays the difference when it arrives: the bucket may
go below zero, and then the next page waits until it is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.model.table_scan import TableDescription

UNKNOWN_UNITS_PER_SECOND = 3000.0
"""Rate of a table that does not report its own: what one partition serves (DynamoDB, limits)."""

SHARE = 0.5
"""Share of the table's read units that a scan uses, unless `snapshot_rcu` says otherwise."""

_ROUNDED_UNITS = 1e-3
"""Units that may be missing by rounding; at a late time a float can't add less than that."""

_FIRST_PAGE_UNITS = 128.0
_BURST_SECONDS = 1.0
_LOWEST_FACTOR = 1 / 64
_RECOVERY = 1.05
_PAUSE_SECONDS = (1.0, 30.0)


def units_per_second(description: TableDescription, snapshot_rcu: float | None) -> float:
    """Return the limit of a scan, in read units per second.

    Args:
        description: The table.
        snapshot_rcu: Limit that the source asks for; None: half of what the table serves. The
            limit of an on-demand table holds in both cases.
    """
    most = description.max_read_units
    if snapshot_rcu is not None:
        return snapshot_rcu if most is None else min(snapshot_rcu, most)
    known = [one for one in (description.read_units_per_second, most) if one is not None]
    return SHARE * min(known, default=UNKNOWN_UNITS_PER_SECOND / SHARE)


@dataclass(slots=True)
class TokenBucket:
    """Read units that a scan may use now. Times are seconds on a clock that never goes back.

    Args:
        units_per_second: Limit.
        at: Current time.
        units: Units in the bucket; below zero while pages are not paid for.
    """

    units_per_second: float
    at: float
    units: float = 0.0
    _expected: float = _FIRST_PAGE_UNITS
    _factor: float = 1.0
    _paused_until: float = 0.0
    _pause: float = _PAUSE_SECONDS[0]

    @property
    def rate(self) -> float:
        """Units per second at present: below the limit after the service has throttled."""
        return self.units_per_second * self._factor

    def wait_seconds(self, now: float) -> float:
        """Return the time until the next page may start; 0: now."""
        self._fill(now)
        missing = -self.units / self.rate if self.units < -_ROUNDED_UNITS else 0.0
        return max(missing, self._paused_until - now, 0.0)

    def start(self, now: float) -> float:
        """Take what a page is expected to cost, and return it."""
        self._fill(now)
        self.units -= self._expected
        return self._expected

    def finish(self, taken: float, units: float, now: float) -> None:
        """Correct what `start` took for a page by what the page has cost."""
        self._fill(now)
        self.units += taken - units
        self._expected = units
        self._factor = min(1.0, self._factor * _RECOVERY)
        self._pause = _PAUSE_SECONDS[0]

    def throttled(self, taken: float, now: float) -> None:
        """Halve the rate and pause: the service refused a page, which cost nothing."""
        self._fill(now)
        self.units += taken
        self._factor = max(_LOWEST_FACTOR, self._factor / 2)
        self._paused_until = max(self._paused_until, now + self._pause)
        self._pause = min(_PAUSE_SECONDS[1], self._pause * 2)

    def _fill(self, now: float) -> None:
        most = self.units_per_second * _BURST_SECONDS
        self.units = min(most, self.units + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
