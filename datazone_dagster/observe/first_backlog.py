"""The first backlog of a dataset: what its source had landed before the dataset was declared. Pure.

A new dataset of an old source is late by days at once, and nobody can do anything about it. So as
long as the backlog gets smaller, that is a warning, with what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from datazone_dagster.observe.lag import LagStatus, in_words
from datazone_dagster.observe.level import Level

PATIENCE = timedelta(minutes=5)
"""Shortest time without progress after which a new dataset is late like any other."""

ESTIMATED_AFTER = timedelta(seconds=30)
"""Time of watching after which the rest is estimated."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A backlog as a process has seen it: at its first look, and at its smallest, in records."""

    began_at: datetime
    began_records: int
    least_at: datetime
    least_records: int

    @classmethod
    def first(cls, lag: LagStatus, now: datetime) -> Progress:
        """Return what the first look shows."""
        return cls(now, lag.pending_records, now, lag.pending_records)

    def after(self, lag: LagStatus, now: datetime) -> Progress:
        """Return what is known after another look."""
        if lag.pending_records >= self.least_records:
            return self
        return replace(self, least_at=now, least_records=lag.pending_records)

    def left(self, now: datetime) -> timedelta | None:
        """Return the time for the rest at the rate so far, new changes included; None: unknown."""
        elapsed, done = now - self.began_at, self.began_records - self.least_records
        if elapsed < ESTIMATED_AFTER or done <= 0:
            return None
        return elapsed * (self.least_records / done)


def in_first_backlog(
    lag: LagStatus, progress: Progress, *, now: datetime, max_lag: timedelta
) -> LagStatus:
    """Return the lag of a dataset that has never caught up: a warning while it gets closer.

    Args:
        lag: Lag with the level `ERROR`.
        progress: What was seen of the backlog, this look included.
        now: The current time.
        max_lag: Lag from which the level is `ERROR`. A drain that lags by it is nobody's backlog.
    """
    if lag.unlanded_seconds >= max_lag.total_seconds():
        return lag
    records = f"{lag.pending_records:,} records"
    stands = now - progress.least_at
    if stands >= max(max_lag, PATIENCE):
        text = (
            f"The dataset is new, and its first backlog, {records}, has not become smaller for "
            f"{in_words(stands)}."
        )
        return replace(lag, reason=f"{lag.reason} {text}")
    left = progress.left(now)
    rest = "" if left is None else f", about {in_words(left)} at the rate so far"
    text = f"The dataset is new, and works off what was landed before it: {records} are left{rest}."
    return replace(lag, level=Level.WARN, reason=f"{lag.reason} {text}", is_first_backlog=True)
