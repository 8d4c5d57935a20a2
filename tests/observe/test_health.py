"""Stream health: gaps are errors, blips are warnings, lasting trouble is an error."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from datazone_dagster.errors import AccessDeniedError, DatazoneError, ThrottledError
from datazone_dagster.model.report import DrainReport, Gap
from datazone_dagster.observe.health import health_of_error, health_of_report
from datazone_dagster.observe.level import Level

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
RECENT, LONG_AGO = NOW - timedelta(seconds=10), NOW - timedelta(minutes=2)

REPORT = DrainReport(
    source="orders",
    stream_arn="arn:aws:dynamodb:us-west-2:1:table/orders/stream/2026",
    batch=7,
    head_batch=7,
    records=3,
    record_bytes=300,
    malformed=0,
    get_records_calls=4,
    shards_open=4,
    shards_unfinished=4,
    caught_up=True,
    lost_race=False,
    event_time_min=NOW - timedelta(seconds=3),
    event_time_max=NOW,
    log_version=8,
    duration_seconds=0.5,
)


def test_a_quiet_drain_is_healthy_and_says_how_many_shards_are_open() -> None:
    health = health_of_report(REPORT, now=NOW, caught_up_at=NOW)
    assert health.level is Level.OK
    assert "4 open shards" in health.reason


def test_a_gap_is_an_error_that_names_what_was_lost_and_the_way_out() -> None:
    gap = Gap("arn", "shardId-1", "trimmed", after_sequence_number=17, since=LONG_AGO)
    health = health_of_report(replace(REPORT, gaps=(gap,)), now=NOW, caught_up_at=NOW)
    assert health.level is Level.ERROR
    for words in ("shardId-1", "trimmed", "17", "2026-03-01 11:58:00", "accept-gap"):
        assert words in health.reason


@pytest.mark.parametrize(("caught_up_at", "level"), [(RECENT, Level.WARN), (LONG_AGO, Level.ERROR)])
def test_failing_shards_warn_until_it_lasts(caught_up_at: datetime, level: Level) -> None:
    report = replace(REPORT, shard_errors=(("shardId-9", "throttled"),))
    health = health_of_report(report, now=NOW, caught_up_at=caught_up_at)
    assert health.level is level
    assert "shardId-9: throttled" in health.reason
    assert health.failing_shards == 1


@pytest.mark.parametrize(
    ("error", "caught_up_at", "level"),
    [
        (ThrottledError("slow down"), RECENT, Level.WARN),
        (ThrottledError("slow down"), None, Level.WARN),
        (ThrottledError("slow down"), LONG_AGO, Level.ERROR),
        (AccessDeniedError("dynamodb:GetRecords is missing"), RECENT, Level.ERROR),
    ],
)
def test_only_what_passes_by_itself_warns(
    error: DatazoneError, caught_up_at: datetime | None, level: Level
) -> None:
    health = health_of_error(error, now=NOW, caught_up_at=caught_up_at)
    assert health.level is level
    assert error.what in health.reason


def test_the_text_stays_short_with_many_gaps() -> None:
    gaps = tuple(Gap("arn", f"shardId-{number}", "vanished" * 100) for number in range(500))
    health = health_of_report(replace(REPORT, gaps=gaps), now=NOW, caught_up_at=NOW)
    assert len(health.reason) <= 2_000
    assert health.gaps == 500
