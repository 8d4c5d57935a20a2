"""A gap is repaired by incremental exports of the lost window, on real tables and real files."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.errors import ExportError, SnapshotError
from datazone_dagster.model.report import Gap
from datazone_dagster.model.snapshot_state import EXPORT_SETTLE, Phase
from datazone_dagster.observe.completeness import completeness
from datazone_dagster.observe.level import Level
from datazone_dagster.pipeline import (
    cancel_snapshot,
    lost_window_start,
    open_gaps,
    read_dataset,
    want_exports,
)
from datazone_dagster.snapshot.export_fit import WINDOW_MAX, WINDOW_MIN, windows_for
from tests.examples import examples
from tests.snapshot.exporting import ExportingWorld
from tests.snapshot.flow import SOURCE, flow, rows_of
from tests.snapshot.test_export_scan import STEPS, take


class LosingWorld(ExportingWorld):
    """A world that loses changes, and heals the gap."""

    def announce(self) -> None:
        since = lost_window_start(open_gaps(SOURCE.name, self.layout))
        if self.status().phase is Phase.WANTED:
            cancel_snapshot(SOURCE.name, self.layout)
        want_exports(SOURCE.name, self.layout, lost_from=since)
        self.snapshot()
        assert self.status().phase is Phase.ANNOUNCED
        self.clock.advance(EXPORT_SETTLE + timedelta(seconds=1))

    def wanted_windows(self) -> list[tuple[datetime, datetime]]:
        status = self.status()
        assert status.lost_from is not None
        assert status.export_after is not None
        return windows_for(status.lost_from - EXPORT_SETTLE, status.export_after)


def test_writes_and_deletes_of_a_gap_come_back(tmp_path: Path) -> None:
    world = LosingWorld(tmp_path, flow)
    for number in range(6):
        world.put(number, 1)
    world.drain()
    world.apply()
    world.put(1, 2)
    world.delete(2)
    world.put(7, 1)
    world.delete(7)
    world.lose()
    world.put(3, 9)  # after the gap: the stream shows it
    world.delete(4)
    world.drain()
    world.apply()
    assert rows_of(world.layout, "current")["k1"] == "1", "lost"
    world.announce()
    world.put(5, 8)  # newer than every export
    exports = world.windows(*world.wanted_windows())
    assert len(exports) == 2, "25 hours"
    report = world.finish(exports)
    assert (report.phase, report.reads) == (Phase.DONE, "windows")
    assert report.consistent_since is None, "it never was"
    assert completeness(SOURCE.name, (), report, report.last_batch).level is Level.WARN
    for dataset_id in ("current", "soft", "past"):
        assert rows_of(world.layout, dataset_id) == world.items()
    soft = read_dataset(world.layout, "soft").to_pylist()
    causes = {row["id"]: row["_dz_delete_cause"] for row in soft if row["_dz_deleted"]}
    assert causes["k2"] == "resync_absent"


def test_an_item_that_no_window_shows_because_it_came_and_went_within_it(tmp_path: Path) -> None:
    """Inserted and drained before the gap, deleted in it: the export has neither."""
    world = LosingWorld(tmp_path)
    world.put(0, 1)
    world.drain()
    world.clock.advance(timedelta(hours=2))
    world.put(1, 1)
    world.drain()
    world.apply()
    world.delete(1)
    world.lose()
    world.drain()
    world.announce()
    exports = world.windows(*world.wanted_windows())
    report = world.finish(exports)
    assert report.rows == 0
    assert report.sweep.checked == 1, "only the key that changed since the first window began"
    assert world.rows() == world.items() == {"k0": "1"}


def test_windows_with_holes_overlaps_or_too_short_are_refused(tmp_path: Path) -> None:
    world = LosingWorld(tmp_path)
    world.put(0, 1)
    world.drain()
    world.apply()
    world.put(0, 2)
    world.lose()
    world.drain()
    world.announce()
    world.drain()
    (a, b), (_, c) = world.wanted_windows()
    minute = timedelta(minutes=1)
    for windows, words in (
        ([(a, b), (b + minute, c)], "No export covers"),
        ([(a + minute, b), (b, c)], "No export covers"),
        ([(a, b), (b, c - minute)], "after the last export"),
        ([(a, b), (b - minute, c)], "overlaps the incremental export"),
        ([(b, c), (a, b)], "No export covers"),
        ([], "at all"),
    ):
        exports = world.windows(*windows)
        if exports:
            with pytest.raises(ExportError, match=words):
                world.read(exports)
    with pytest.raises(ExportError, match="has no window"):
        world.read([world.full()])
    assert world.status().rows == 0
    world.finish(world.windows((a, b), (b, c)))
    assert world.rows() == {"k0": "2"}


def test_another_gap_meanwhile_needs_exports_up_to_its_end(tmp_path: Path) -> None:
    world = LosingWorld(tmp_path)
    world.put(0, 1)
    world.drain()
    world.apply()
    world.put(0, 2)
    world.lose()
    world.drain()
    world.announce()
    first = world.windows(*world.wanted_windows())
    world.put(0, 3)
    world.lose()
    world.drain()
    assert "changes were lost" in world.read(first).began_again
    world.wait()
    with pytest.raises(ExportError, match="after the last export"):
        world.read(first)
    world.clock.advance(EXPORT_SETTLE)
    world.finish(world.windows(*world.wanted_windows()))
    assert world.rows() == {"k0": "3"}


def test_a_source_that_was_consistent_is_so_again(tmp_path: Path) -> None:
    world = LosingWorld(tmp_path)
    world.put(0, 1, unseen=True)
    world.put(1, 1)
    world.drain()
    world.hand_over()
    world.put(1, 2)
    world.lose()
    world.drain()
    world.announce()
    with pytest.raises(SnapshotError, match="incremental exports of a lost window"):
        want_exports(SOURCE.name, world.layout)
    report = world.finish(world.windows(*world.wanted_windows()))
    assert report.consistent_since == report.scanned_at
    assert completeness(SOURCE.name, (), report, report.last_batch).level is Level.OK
    assert world.rows() == {"k0": "1", "k1": "2"}


def test_the_start_of_the_lost_window() -> None:
    early, late = datetime(2030, 1, 1), datetime(2030, 1, 2)
    gaps = [Gap("arn", "a", "lost", since=late), Gap("arn", "b", "lost", since=early)]
    assert lost_window_start(gaps) == early
    with pytest.raises(ExportError, match="no open gap"):
        lost_window_start([])
    with pytest.raises(ExportError, match="unknown when"):
        lost_window_start([*gaps, Gap("arn", "c", "lost")])


@given(seconds=st.integers(0, 35 * 86_400), micros=st.integers(0, 999_999))
def test_windows_cover_a_span_as_the_service_takes_them(seconds: int, micros: int) -> None:
    start = datetime(2030, 1, 1, microsecond=micros)
    end = start + timedelta(seconds=seconds, microseconds=micros)
    windows = windows_for(start, end)
    assert windows[0][0] <= start
    assert windows[-1][1] >= end
    for (_, before), (after, _) in pairwise(windows):
        assert before == after
    for begin, finish in windows:
        assert WINDOW_MIN <= finish - begin <= WINDOW_MAX


@settings(max_examples=examples(8), deadline=None, suppress_health_check=list(HealthCheck))
@given(before=STEPS, lost=STEPS, after=STEPS, during=STEPS)
def test_any_writes_around_a_gap_end_with_the_items_of_the_table(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[str, int, int]],
    lost: list[tuple[str, int, int]],
    after: list[tuple[str, int, int]],
    during: list[tuple[str, int, int]],
) -> None:
    world = LosingWorld(tmp_path_factory.mktemp("world"))
    world.put(0, 1)
    world.drain()
    take(world, before)
    world.put(9, 1)
    world.drain()
    world.apply()
    world.put(9, 2)
    take(world, [step for step in lost if step[0] not in ("drain", "apply")])
    world.lose()
    take(world, after)
    world.drain()
    world.announce()
    exports = world.windows(*world.wanted_windows())
    take(world, during)
    world.finish(exports)
    assert world.rows() == world.items()
