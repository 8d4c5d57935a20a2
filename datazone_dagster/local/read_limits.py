"""Scripted read capacity: tables that allow a number of read units per second, and no more."""

from __future__ import annotations


class ReadLimits:
    """Token buckets by table number, each of one second's units.

    A read is let in if its units are left. One of more units than a second's is let in when the
    bucket is full, and its debt is paid before the next read. The server's lock makes calls one
    at a time.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, tuple[float, float]] = {}

    def spend(self, table: int, units_per_second: float, units: float, now: float) -> bool:
        """Take units for a read; return False, and take none, if the capacity is used up.

        Args:
            table: Number of the table.
            units_per_second: Capacity of the table.
            units: Units of the read.
            now: Time of the server, in seconds since 1970.
        """
        left, since = self._buckets.get(table, (units_per_second, now))
        left = min(units_per_second, left + max(0.0, now - since) * units_per_second)
        allowed = left >= min(units, units_per_second)
        self._buckets[table] = (left - units if allowed else left, now)
        return allowed

    def clear(self) -> None:
        """Fill every bucket."""
        self._buckets.clear()
