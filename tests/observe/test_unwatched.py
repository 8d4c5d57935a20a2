"""Time in which a destination of Kinesis may have been off and on without a trace."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from datazone_dagster.observe.unwatched import UNWATCHED, unwatched

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)


def test_a_long_time_without_a_drain_is_told_with_its_bounds() -> None:
    text = unwatched(NOW - UNWATCHED, NOW)
    assert "from 2026-03-01 11:50:00 to 2026-03-01 12:00:00 UTC" in text
    assert "start a resync" in text


def test_drains_one_after_another_are_not_told() -> None:
    assert unwatched(NOW - UNWATCHED + timedelta(seconds=1), NOW) == ""
    assert unwatched(None, NOW) == ""
