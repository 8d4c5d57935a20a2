"""The sign of a drain in the lakehouse: what it read or landed, not what others save."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from datazone_dagster.changelog.gap_acceptance import accept_gaps
from datazone_dagster.changelog.source_status import source_status
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, drain_once, utc_now
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream

SOURCE = DynamoDBSource("orders", start="trim_horizon")
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)


def drained_at(layout: Layout) -> datetime | None:
    found = source_status("orders", layout, utc_now())
    assert found is not None
    return found.drained_at


def test_a_drain_that_never_reaches_the_end_gives_a_sign_with_each_batch(tmp_path: Path) -> None:
    stream, layout = ScriptedStream(), Layout(str(tmp_path))
    for number in range(2_500):
        stream.put({"id": {"S": str(number)}})
    before = utc_now() - timedelta(milliseconds=1)
    report = drain_once(
        SOURCE, stream, layout, clock=FixedClock(LONG_AGO), settings=DrainSettings(budget_bytes=1)
    )
    assert report.batch == 1
    assert not report.caught_up
    found = drained_at(layout)
    assert found is not None
    assert before <= found <= utc_now()


def test_a_gap_that_someone_accepts_is_no_sign(tmp_path: Path) -> None:
    clock, layout = FixedClock(LONG_AGO), Layout(str(tmp_path))
    stream = ScriptedStream(clock=clock)
    stream.put({"id": {"S": "a"}})
    drain_once(SOURCE, stream, layout, clock=clock)
    clock.advance(timedelta(hours=26))
    stream.put({"id": {"S": "b"}})
    stream.trim()
    drain_once(SOURCE, stream, layout, clock=clock)
    before = drained_at(layout)
    accept_gaps("orders", layout, by="me", why="fixed")
    assert drained_at(layout) == before
