"""What is said of a stream that nobody reads: how long it keeps changes is known or not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from datazone_dagster import DynamoDBSource
from datazone_dagster.api.kinesis_source import known_retention
from datazone_dagster.observe.drain_sign import drain_sign
from datazone_dagster.observe.drain_watch import SensorFacts, drain_status
from datazone_dagster.sources import KinesisSource

NOW = datetime(2030, 1, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("source", "hours", "lost", "kept"),
    [
        (DynamoDBSource("orders"), 23, "in 1 h changes are lost", "for 24 hours"),
        (DynamoDBSource("orders"), 25, "; changes are lost.", "for 24 hours"),
        (KinesisSource("orders", "s"), 25, "lost once the retention of the Kinesis", "retention"),
    ],
)
def test_changes_are_lost_after_the_retention_of_the_source(
    source: DynamoDBSource, hours: int, lost: str, kept: str
) -> None:
    retention = known_retention(source)
    read_at, interval = NOW - timedelta(hours=hours), timedelta(seconds=5)
    line = drain_sign("s", read_at, now=NOW, interval=interval, retention=retention).line
    facts = SensorFacts(is_running=False)
    reason = drain_status("s", facts, now=NOW, watched_since=NOW, retention=retention).reason
    assert lost in line
    assert kept in reason
    if retention is None:
        assert "24" not in line + reason
