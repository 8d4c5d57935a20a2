"""The tables of docs/monitoring.md list the numbers that are emitted: these, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster import Expect
from datazone_dagster.model.arrival import Arrival
from datazone_dagster.model.report import (
    ApplyReport,
    DeleteCounts,
    Gap,
    KeyReport,
    MergeCounts,
    PathMismatch,
    RuleCount,
)
from datazone_dagster.model.scan_facts import ScanFacts
from datazone_dagster.model.set_state import SetState
from datazone_dagster.observe.completeness import completeness
from datazone_dagster.observe.drain_watch import SensorFacts, drain_status, drain_status_metadata
from datazone_dagster.observe.expectation_status import expectation_metadata, expectation_status
from datazone_dagster.observe.headroom import headroom_metadata, headroom_status
from datazone_dagster.observe.health import health_of_report
from datazone_dagster.observe.lag import lag_status
from datazone_dagster.observe.metadata import (
    apply_metadata,
    completeness_metadata,
    drain_metadata,
    health_metadata,
    lag_metadata,
)
from datazone_dagster.observe.table_status import small_files_status, unique_keys_status
from tests.observe.test_health import REPORT

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
LAG = lag_status(
    now=NOW,
    max_lag=timedelta(minutes=5),
    position=7,
    head_batch=9,
    oldest_unapplied_event_time=NOW - timedelta(minutes=1),
    caught_up_at=NOW,
    pending_records=3,
)
GAP = Gap("arn", "shard-1", "trimmed", None, NOW - timedelta(hours=2), NOW - timedelta(hours=1))
COMPLETE = completeness("orders", [GAP], None, 7)
FULL = ApplyReport(
    "orders",
    "orders",
    "/lake/orders",
    position=7,
    head=9,
    chunks=1,
    first_batch=6,
    last_batch=7,
    records=9,
    record_bytes=900,
    quarantined=1,
    counts=MergeCounts(3, 2, 1),
    row_count=30,
    rows_hidden=1,
    table_version=4,
    event_time_min=NOW - timedelta(seconds=8),
    event_time_max=NOW - timedelta(seconds=1),
    sibling_values=(("total__s", 2),),
    mismatches=(PathMismatch("total.N", "total", "S", 1),),
    deletes=DeleteCounts(1, 0, 1),
    scan=ScanFacts("orders", "arn", NOW, NOW, 3, 300, 1.0),
)


FAULTS = replace(
    REPORT,
    stream_arn="arn:aws:kinesis:eu-west-1:1:stream/orders",
    malformed=1,
    undated=1,
    arrival=Arrival(repeated=1, others=1, tied=1),
    shards_unfinished=REPORT.shards_open + 1,
    shard_errors=(("shard-1", "throttled"),),
    gaps=(GAP,),
)
BY_RUNS = replace(REPORT, sets=(SetState("1-of-1", 2, 0, has_run=True, read_at=None),))


def table(heading: str) -> list[str]:
    """Return the keys of the table below a heading."""
    text = PAGE.read_text("utf-8").split(f"### {heading}\n")[1].split("\n#")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)


def numbers(*found: Mapping[str, object]) -> set[str]:
    return {
        key
        for one in found
        for key, value in one.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def of_checks() -> Iterable[Mapping[str, object]]:
    of_runs = replace(REPORT, sets=(SetState("1-of-1", 2, 7, has_run=True, read_at=NOW),))
    health = health_of_report(of_runs, now=NOW, caught_up_at=NOW)
    facts = SensorFacts(is_running=True, ticked_at=NOW)
    yield lag_metadata(LAG)
    yield health_metadata(health, NOW, polled_at=NOW, newest_at=NOW, now=NOW)
    yield headroom_metadata(headroom_status(health))
    yield drain_status_metadata(drain_status("s", facts, now=NOW, watched_since=NOW))
    yield completeness_metadata(COMPLETE)
    yield small_files_status(3, 300).plain
    yield unique_keys_status(KeyReport(3, 10, 3, 0, 0), NOW).plain
    yield expectation_metadata(expectation_status(Expect("x > 0"), RuleCount("rule", 3)))


WRITTEN_BY_GLUE = {
    "Materialization of a dataset": {"records_waiting", "rows_violating"},
    "Checks": {
        *("failures_in_a_row", "records_waiting", "columns_changed", "columns_kept_out"),
        *("batches_of_other_versions", "columns_lost"),
    },
}
"""Numbers that the Dagster side adds; tests/dagster_glue looks at a real run."""


@pytest.mark.parametrize(
    ("heading", "emitted"),
    [
        (
            "Materialization of a change log",
            numbers(*(drain_metadata(one, "/lake", now=NOW) for one in (FAULTS, BY_RUNS))),
        ),
        (
            "Materialization of a dataset",
            numbers(
                apply_metadata(FULL, LAG, now=NOW),
                apply_metadata(replace(FULL, scan=None), LAG, now=NOW),
                completeness_metadata(COMPLETE),
            ),
        ),
        ("Checks", numbers(*of_checks())),
    ],
)
def test_the_tables_list_what_is_emitted(heading: str, emitted: set[str]) -> None:
    listed = table(heading)
    assert len(listed) == len(set(listed))
    assert set(listed) == emitted | WRITTEN_BY_GLUE.get(heading, set())
