"""Metadata: plain numbers under fixed keys, unknown values left out."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.model.report import ApplyReport, Gap, MergeCounts
from datazone_dagster.model.set_state import SetState
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


def test_faults_of_a_drain_are_numbers_while_there_are_none_too() -> None:
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
    usual = {**dict.fromkeys(counts, 0), "shards_unfinished": REPORT.shards_unfinished}
    assert drain_metadata(REPORT, "/lake", now=NOW).items() >= usual.items()


def test_numbers_of_kinesis_come_with_kinesis_and_those_of_drain_runs_with_these() -> None:
    of_kinesis = {"records_repeated", "records_of_other_tables", "records_with_equal_times"}
    assert not drain_metadata(REPORT, "/lake", now=NOW).keys() & {
        *of_kinesis,
        "sets_without_worker",
    }
    arn = "arn:aws:kinesis:eu-west-1:1:stream/orders"
    found = drain_metadata(replace(REPORT, stream_arn=arn), "/lake", now=NOW)
    assert {found[key] for key in of_kinesis} == {0}
    running = SetState("1-of-1", 2, 0, has_run=True, read_at=None)
    found = drain_metadata(replace(REPORT, sets=(running,)), "/lake", now=NOW)
    assert (found["drain_workers"], found["sets_without_worker"]) == (1, 0)


def test_counts_of_what_should_not_be_are_numbers_while_they_are_0() -> None:
    """A check of bounds fails where it finds no number."""
    found = apply_metadata(ApplyReport("o", "o", "/lake/o", position=1, head=1), LAG, now=NOW)
    counts = (
        "records_quarantined",
        "values_in_sibling_columns",
        "values_of_another_type",
        "deletes_filtered",
        "ttl_deletes_ignored",
    )
    assert [found[key] for key in counts] == [0] * len(counts)


def test_hidden_rows_are_numbers_where_nothing_hides_rows_too() -> None:
    plain = ApplyReport("o", "o", "/lake/o", position=1, head=1, row_count=3)
    for report, expected in (
        (plain, (0, 0.0)),
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
