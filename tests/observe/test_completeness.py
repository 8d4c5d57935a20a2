"""The `complete` check: gaps first, then the snapshot of the source."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from datazone_dagster.model.report import Gap
from datazone_dagster.model.snapshot_report import SnapshotReport, report_of
from datazone_dagster.model.snapshot_state import Phase, wanted
from datazone_dagster.observe.completeness import completeness
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import completeness_metadata

AT = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def snapshot(phase: Phase) -> SnapshotReport:
    return replace(
        report_of("orders", wanted("start")),
        phase=phase,
        last_batch=7,
        rows=1200,
        scanned_at=AT,
        done_at=AT,
    )


def test_a_source_without_a_snapshot_says_nothing_about_one() -> None:
    found = completeness("orders", ())
    assert (found.level, found.consistent) == (Level.OK, None)
    assert "consistent" not in completeness_metadata(found)


@pytest.mark.parametrize("phase", [one for one in Phase if one is not Phase.DONE])
def test_until_the_handover_a_dataset_is_not_consistent(phase: Phase) -> None:
    found = completeness("orders", (), snapshot(phase), position=9)
    assert (found.level, found.consistent) == (Level.WARN, False)
    assert "1,200 rows so far" in found.reason
    assert completeness_metadata(found)["consistent"] == "false"


def test_a_dataset_is_consistent_once_it_has_applied_all_of_the_snapshot() -> None:
    behind = completeness("orders", (), snapshot(Phase.DONE), position=6)
    assert (behind.level, behind.consistent) == (Level.WARN, False)
    found = completeness("orders", (), snapshot(Phase.DONE), position=7)
    assert (found.level, found.consistent_since) == (Level.OK, AT)
    assert found.reason == "Consistent with the table since 2026-01-01 12:00:00 UTC."
    assert completeness_metadata(found)["consistent_since"] == AT


def test_windows_do_not_make_up_for_a_snapshot_that_was_given_up() -> None:
    windows = replace(snapshot(Phase.DONE), reads="windows", shows_table=False)
    assert completeness("orders", (), windows, position=7).level is Level.OK
    found = completeness("orders", (), replace(windows, given_up=True), position=7)
    assert (found.level, found.consistent) == (Level.WARN, False)
    assert "was cancelled" in found.reason
    assert "resync orders" in found.reason


def test_a_gap_is_an_error_whatever_the_snapshot_says() -> None:
    gap = Gap("arn", "shard-1", "trimmed")
    found = completeness("orders", (gap,), snapshot(Phase.SCANNING))
    assert (found.level, found.consistent) == (Level.ERROR, False)
