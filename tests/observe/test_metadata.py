"""Metadata: plain numbers under fixed keys, unknown values left out."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.model.report import ApplyReport, Gap, MergeCounts
from datazone_dagster.observe.lag import lag_status
from datazone_dagster.observe.metadata import apply_metadata, drain_metadata
from tests.observe.test_health import REPORT

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
LAG = lag_status(
    now=NOW,
    max_lag=timedelta(minutes=5),
    position=7,
    head_batch=7,
    oldest_unapplied_event_time=None,
    caught_up_at=NOW,
)


def test_a_drain_in_numbers() -> None:
    found = drain_metadata(REPORT, "/lake/_changelog/orders", now=NOW)
    assert found["records_landed"] == 3
    assert found["landing_lag_seconds"] == 3.0
    assert found["dagster/uri"] == "/lake/_changelog/orders"
    assert type(found["caught_up"]) is int  # Dagster plots no booleans


def test_faults_of_a_drain_are_numbers_while_there_are_any() -> None:
    gap = Gap("arn", "shard-1", "trimmed")
    one_closed = replace(
        REPORT,
        gaps=(gap,),
        malformed=2,
        undated=3,
        shard_errors=(("shard-1", "throttled"),),
        shards_unfinished=5,
    )
    counts = {
        "gaps": 1,
        "records_malformed": 2,
        "records_without_time": 3,
        "shards_failing": 1,
        "shards_unfinished": 5,
    }
    assert drain_metadata(one_closed, "/lake", now=NOW).items() >= counts.items()
    assert not drain_metadata(REPORT, "/lake", now=NOW).keys() & counts.keys()


def test_hidden_rows_are_numbers_where_something_hides_rows() -> None:
    plain = ApplyReport("o", "o", "/lake/o", position=1, head=1, row_count=3)
    assert not apply_metadata(plain, LAG, now=NOW).keys() & {"rows_hidden", "hidden_share"}
    for report, expected in (
        (replace(plain, deletion_vectors=True), (0, 0.0)),
        (replace(plain, rows_hidden=1), (1, 0.25)),
    ):
        found = apply_metadata(report, LAG, now=NOW)
        assert (found["rows_hidden"], found["hidden_share"]) == expected


def test_an_apply_in_numbers() -> None:
    report = ApplyReport(
        "orders",
        "orders",
        "/lake/orders",
        position=7,
        head=7,
        chunks=1,
        first_batch=6,
        last_batch=7,
        records=9,
        record_bytes=900,
        counts=MergeCounts(3, 2, 1),
        row_count=30,
        table_version=4,
        event_time_min=NOW - timedelta(seconds=8),
        event_time_max=NOW + timedelta(seconds=1),
    )
    found = apply_metadata(report, LAG, now=NOW)
    assert (found["rows_inserted"], found["rows_updated"], found["rows_deleted"]) == (3, 2, 1)
    assert (found["lag_seconds"], found["lag_seconds_newest"]) == (8.0, 0.0)
    assert found["dagster/row_count"] == 30
    assert "columns_added" not in found


def test_a_run_without_work_leaves_no_holes_in_the_counts() -> None:
    found = apply_metadata(ApplyReport("o", "o", "/lake/o", position=7, head=7), LAG, now=NOW)
    assert found["rows_inserted"] == found["records_read"] == found["dagster/row_count"] == 0
    assert "event_time_min" not in found
