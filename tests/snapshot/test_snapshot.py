"""A snapshot from its wish to its handover, on real tables, with scripted traffic around it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dagster_glue.checks.dataset_checks import state_of
from datazone_dagster.errors import (
    AccessDeniedError,
    SnapshotError,
    StorageError,
    ThrottledError,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.observe.level import Level
from datazone_dagster.pipeline import (
    SnapshotSettings,
    cancel_snapshot,
    read_dataset,
    snapshot_status,
    want_snapshot,
)
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.snapshot.flow import SOURCE, World, flow, item, key, rows_of, small_flow
from tests.snapshot.positions import before_positions_are_read


def world_in(tmp_path: Path, *, before: int = 0, flow: object = small_flow) -> World:
    """Return a world with items that the stream never showed."""
    world = World(Layout(str(tmp_path)), flow)
    for number in range(before):
        world.table.put_unseen(item(number))
    return world


def test_a_table_older_than_its_stream_is_copied(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=7, flow=flow)
    world.stream.put(item(1, 5))
    world.drain()
    world.apply()
    report = world.hand_over()
    assert report.phase is Phase.DONE
    assert (report.rows, report.percent) == (7, 100.0)
    for dataset_id in ("current", "soft", "past"):
        assert rows_of(world.layout, dataset_id) == world.items()
    names = Counter(name for name, _ in world.events().elements())
    assert names == {"SNAPSHOT": 7, "MODIFY": 1}


def test_writes_and_deletes_during_the_scan_win_over_scanned_rows(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=12)
    world.drain()

    def meanwhile(operation: str, number: int) -> None:
        world.stream.put(item(number, 100 + number))
        if number % 2:
            world.stream.delete(key(number + 3))
        world.drain()
        world.apply()

    world.snapshot()
    world.wait()
    world.table.fault = meanwhile
    report = world.hand_over()
    world.drain()
    world.apply()
    assert report.phase is Phase.DONE
    assert world.rows() == world.items()


def test_the_scan_waits_for_the_drain_and_the_handover_for_the_datasets(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=3)
    world.drain()
    report = world.snapshot()
    assert (report.phase, report.epoch) == (Phase.ANNOUNCED, 2)
    assert "the drain to have read every change up to 2030-01-01 00:01:00 UTC" in report.waits_for
    assert not world.table.calls
    world.wait()
    report = world.snapshot()
    assert (report.phase, report.rows) == (Phase.SCANNED, 3)
    assert "the drain" in report.waits_for
    world.wait()
    report = world.snapshot()
    assert report.waits_for.startswith("current, events to have applied")
    world.apply()
    report = world.snapshot()
    assert report.phase is Phase.DONE
    assert report.consistent_since is not None


def test_the_handover_waits_for_what_lands_while_the_positions_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_in(tmp_path, before=3)
    world.drain()
    world.snapshot()
    world.wait()
    assert world.snapshot().phase is Phase.SCANNED
    world.apply()

    def land() -> None:
        world.stream.put(item(1, 5))
        world.wait()

    before_positions_are_read(monkeypatch, land)
    report = world.snapshot()
    assert report.waits_for.startswith("current, events to have applied")
    world.apply()
    assert world.snapshot().phase is Phase.DONE


def test_keys_deleted_while_nobody_listened_are_swept(tmp_path: Path) -> None:
    world = world_in(tmp_path, flow=flow)
    for number in range(6):
        world.stream.put(item(number))
    world.drain()
    world.apply()
    for number in (1, 4):
        world.table.delete_unseen(key(number))
    report = world.hand_over()
    assert (report.sweep.deleted, report.sweep.present) == (2, 0)
    for dataset_id in ("current", "soft", "past"):
        assert rows_of(world.layout, dataset_id) == world.items()
    for dataset_id in ("soft", "past"):
        causes = {
            row["id"]: row["_dz_delete_cause"]
            for row in read_dataset(world.layout, dataset_id).to_pylist()
            if row["_dz_deleted"]
        }
        assert causes == {"k1": "resync_absent", "k4": "resync_absent"}
    removed = [event for event in world.events() if event[0] == "REMOVE"]
    assert sorted(removed) == [("REMOVE", "k1"), ("REMOVE", "k4")]


def test_a_sweep_over_the_limit_stops_and_asks(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    for number in range(10):
        world.stream.put(item(number))
    world.drain()
    world.apply()
    for number in range(3):
        world.table.delete_unseen(key(number))
    for _ in range(2):
        world.snapshot()
        world.wait()
        world.apply()
    with pytest.raises(SnapshotError, match=r"up to 3 of 10 rows of dataset 'current'.*5%"):
        world.snapshot(settings=SnapshotSettings())
    assert len(world.rows()) == 10
    assert not world.table.calls["BatchGetItem"]
    assert world.snapshot(settings=SnapshotSettings(sweep_limit=0.3)).phase is Phase.DONE
    world.apply()
    assert world.rows() == world.items()


def test_a_key_that_comes_back_before_the_sweep_stays(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    for number in range(4):
        world.stream.put(item(number))
    world.drain()
    world.apply()
    world.table.delete_unseen(key(2))
    for _ in range(2):
        world.snapshot()
        world.wait()
        world.apply()
    world.stream.put(item(2, 9))  # the drain has not seen it when the sweep asks
    report = world.snapshot()
    assert (report.sweep.deleted, report.sweep.present) == (0, 1)
    world.drain()
    world.apply()
    assert world.rows() == world.items()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(
    "point", [one for one in crash_points.SNAPSHOT_POINTS if one != crash_points.AFTER_RENUMBERING]
)
def test_a_killed_snapshot_continues_after_its_last_commit(
    tmp_path: Path, point: str, nth: int
) -> None:
    world = world_in(tmp_path, before=9)
    world.stream.put(item(20))
    world.drain()
    world.apply()
    world.table.delete_unseen(key(20))
    died = 0
    for _ in range(8):
        try:
            with crash_at(point, nth):
                world.snapshot()
        except Crash:
            died += 1
        world.wait()
        world.apply()
    assert died
    assert world.hand_over().phase is Phase.DONE
    assert world.rows() == world.items()
    assert Counter(name for name, _ in world.events().elements()) == {
        "SNAPSHOT": 9,
        "INSERT": 1,
        "REMOVE": 1,
    }
    assert max(world.table.pages.values()) <= 1 + died, "at most one page per segment and kill"


def test_a_new_stream_during_the_scan_begins_the_snapshot_again(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=6)
    world.drain()
    world.snapshot()
    world.wait()
    world.table.fault = lambda operation, number: world.stream.replace() if number == 2 else None
    world.snapshot(settings=SnapshotSettings(workers=1))
    world.drain()
    world.stream.put(item(3, 7))
    world.table.delete_unseen(key(4))
    world.drain()
    reports: list[SnapshotReport] = []
    world.snapshot(on_progress=reports.append)
    assert any("the stream was replaced" in one.began_again for one in reports)
    report = world.hand_over()
    assert report.epoch == 4  # 2: announced, 3: the new stream, 4: announced again
    assert world.rows() == world.items()


def test_a_gap_during_the_scan_begins_the_snapshot_again(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=6)
    world.stream.put(item(1, 1))
    world.drain()
    world.snapshot()
    world.wait()
    assert world.snapshot().phase is Phase.SCANNED
    world.stream.delete(key(2))
    world.stream.trim()
    world.clock.advance(timedelta(hours=25))
    world.drain()
    assert world.snapshot().began_again.startswith("changes were lost after it was announced")
    world.hand_over()
    assert world.rows() == world.items()


def test_throttling_slows_the_scan_down_and_ends_nothing(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=8)
    world.drain()
    world.snapshot()
    world.wait()

    def throttled(operation: str, number: int) -> None:
        if number in (2, 3, 5):
            raise ThrottledError("throttled")

    world.table.fault = throttled
    report = world.snapshot()
    assert (report.phase, report.rows) == (Phase.SCANNED, 8)


def test_what_was_read_before_an_error_is_landed(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=8)
    world.drain()
    world.snapshot()
    world.wait()

    def denied(operation: str, number: int) -> None:
        if number == 3:
            raise AccessDeniedError("dynamodb:Scan")

    world.table.fault = denied
    with pytest.raises(AccessDeniedError):
        world.snapshot(settings=SnapshotSettings(workers=1))
    status = snapshot_status(SOURCE.name, world.layout)
    assert status is not None
    assert status.rows > 0
    assert world.snapshot().phase is Phase.SCANNED


def test_a_stopped_scan_lands_what_it_has_read(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=20)
    world.drain()
    world.snapshot()
    world.wait()
    report = world.snapshot(stop=lambda: world.table.calls["Scan"] >= 3)
    assert report.phase is Phase.SCANNING
    assert 0 < report.rows < 20
    assert not report.waits_for
    assert world.snapshot().rows == 20
    assert max(world.table.pages.values()) == 1


def test_progress_says_price_rate_and_time_before_and_while_it_scans(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=20)
    world.table.units_per_second = 4.0
    world.drain()
    reports: list[SnapshotReport] = []
    world.snapshot(on_progress=reports.append)
    first = reports[0]
    assert (first.phase, first.item_count, first.limit_units_per_second) == (Phase.WANTED, 20, 2.0)
    assert first.table_bytes is not None
    assert first.estimated_price == pytest.approx(first.table_bytes / 4096 * 0.125e-6)
    assert first.eta_seconds is not None
    world.wait()
    reports.clear()
    world.snapshot(on_progress=reports.append)
    shown = [one.percent for one in reports if one.percent is not None]
    assert shown == sorted(shown)
    assert shown[-1] == 100.0
    rates = [one.rate_units_per_second for one in reports if one.rate_units_per_second]
    assert rates[-1] == pytest.approx(2.0, rel=0.4)


def test_one_of_two_processes_takes_the_snapshot(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=9)
    world.drain()
    world.snapshot()
    world.wait()
    with at_point(crash_points.AFTER_PAGES_READ, world.snapshot):
        report = world.snapshot()
    assert report.waits_for == "the process that takes this snapshot already"
    world.hand_over()
    assert world.rows() == world.items()
    assert max(world.events().values()) == 1


def test_a_cancelled_snapshot_ends_and_a_new_one_can_be_asked_for(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=9)
    world.drain()
    world.snapshot()
    cancel_snapshot(SOURCE.name, world.layout)
    assert world.snapshot().phase is Phase.CANCELLED
    want_snapshot(SOURCE.name, world.layout, "resync")
    report = world.hand_over()
    assert (report.epoch, report.reason) == (3, "resync")
    assert world.rows() == world.items()


def test_the_drain_has_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="first drain"):
        world_in(tmp_path).snapshot()


def test_a_log_begun_without_a_snapshot_gets_none_by_surprise(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=3)
    ChangeLog(world.layout, SOURCE.name).open_or_create()
    world.drain()
    with pytest.raises(SnapshotError, match="begun without one"):
        world.snapshot()
    assert snapshot_status(SOURCE.name, world.layout) is None


def test_datasets_are_not_called_consistent_before_the_handover(tmp_path: Path) -> None:
    world = world_in(tmp_path, before=3)
    (dataset,) = [one for one in world.flow.outputs.values() if one.id == "current"]

    def found() -> tuple[Level, bool | None]:
        now = world.clock.now
        state = state_of(world.flow, dataset, world.layout, now=now, caught_up_at=now)
        return state.complete.level, state.complete.consistent

    world.drain()
    world.apply()
    assert found() == (Level.WARN, False)
    world.snapshot()
    world.wait()
    world.snapshot()
    world.apply()
    assert found() == (Level.WARN, False)
    assert world.rows() == world.items(), "but readable meanwhile"
    world.hand_over()
    assert found() == (Level.OK, True)
