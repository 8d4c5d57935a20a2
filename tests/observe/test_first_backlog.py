"""A new dataset of an old source warns while its first backlog gets smaller."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from datazone_dagster.observe.first_backlog import PATIENCE, Progress, in_first_backlog
from datazone_dagster.observe.lag import LagStatus, lag_status
from datazone_dagster.observe.level import Level

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
MAX_LAG = timedelta(minutes=5)
MINUTE = timedelta(minutes=1)


def late(records: int, *, unlanded: timedelta = timedelta(0)) -> LagStatus:
    return lag_status(
        now=NOW,
        max_lag=MAX_LAG,
        position=1,
        head_batch=9,
        oldest_unapplied_event_time=NOW - timedelta(days=30),
        caught_up_at=NOW - unlanded,
        pending_records=records,
    )


def judged(progress: Progress, lag: LagStatus, now: datetime = NOW) -> LagStatus:
    return in_first_backlog(lag, progress, now=now, max_lag=MAX_LAG)


def test_it_warns_and_estimates_the_rest() -> None:
    progress = Progress.first(late(4_000), NOW)
    first = judged(progress, late(4_000))
    assert (first.level, first.is_first_backlog) == (Level.WARN, True)
    assert "new, and works off what was landed before it: 4,000 records are left." in first.reason
    assert "the oldest change is 30 d old" in first.reason
    later = NOW + 2 * MINUTE
    progress = progress.after(late(3_000), later)
    found = judged(progress, late(3_000), later)
    assert "3,000 records are left, about 6 min at the rate so far." in found.reason


def test_without_progress_it_is_an_error() -> None:
    """Also where changes arrive as fast as they are applied: that would never end."""
    progress = Progress.first(late(4_000), NOW)
    progress = progress.after(late(3_000), NOW + MINUTE).after(late(3_500), NOW + 2 * MINUTE)
    last = NOW + MINUTE + PATIENCE
    assert judged(progress, late(3_500), last - timedelta(seconds=1)).level is Level.WARN
    found = judged(progress, late(3_500), last)
    assert (found.level, found.is_first_backlog) == (Level.ERROR, False)
    assert "has not become smaller for 5 min" in found.reason


def test_a_drain_that_is_late_is_no_backlog_of_the_dataset() -> None:
    lag = late(4_000, unlanded=MAX_LAG)
    assert judged(Progress.first(lag, NOW), lag) == lag
