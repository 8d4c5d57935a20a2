"""The announcement next to real drains: what landed before it is older than every scanned row."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.drain import drain_once
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import SETTLE, SnapshotState, announced, wanted
from datazone_dagster.model.version import split_version
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot.announce import announce
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream, at_point
from tests.new_process import NewProcess

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")


def raised(state: SnapshotState | None, checkpoint: Checkpoint) -> SnapshotState:
    return announced(
        state or wanted("resync"),
        epoch=checkpoint.epoch + 1,
        at=datetime(2030, 1, 1, tzinfo=timezone.utc),
        consistent_reads=True,
        table_id="",
    )


def announce_now(layout: Layout) -> SnapshotState:
    return announce(SOURCE, layout, datetime(2030, 1, 1, tzinfo=timezone.utc), raised)


def epochs(layout: Layout) -> list[int]:
    """Return the epoch of each landed row, in the order of the change log."""
    log = ChangeLog(layout, SOURCE).open()
    assert log is not None
    rows = [
        row
        for chunk in log.chunks(0, log.head, 1 << 30)
        for row in chunk.rows[Log.VERSION].to_pylist()
    ]
    return [split_version(version)[0] for version in rows]


def test_what_is_drained_after_the_announcement_has_its_epoch(tmp_path: Path) -> None:
    stream, layout = ScriptedStream(), Layout(str(tmp_path))
    stream.put({"id": {"S": "1"}})
    drain_once(SOURCE, NewProcess(stream), layout)
    assert announce_now(layout).epoch == 2
    stream.put({"id": {"S": "2"}})
    drain_once(SOURCE, NewProcess(stream), layout)
    assert epochs(layout) == [1, 2]
    assert announce_now(layout).epoch == 3, "also above an epoch that only the state has"


def test_a_drain_overlapped_by_an_announcement_lands_with_the_new_epoch(tmp_path: Path) -> None:
    stream, layout = ScriptedStream(), Layout(str(tmp_path))
    drain_once(SOURCE, NewProcess(stream), layout)
    stream.put({"id": {"S": "1"}})
    with at_point(crash_points.AFTER_READ, lambda: announce_now(layout)):
        report = drain_once(SOURCE, NewProcess(stream), layout)
    assert (report.lost_race, report.records) == (True, 0)
    drain_once(SOURCE, NewProcess(stream), layout)
    assert epochs(layout) == [2]


def test_a_drain_that_commits_before_the_announcement_makes_it_look_again(tmp_path: Path) -> None:
    """Its batch may have a higher epoch than the one that the announcement was going to use."""
    stream, layout = ScriptedStream(), Layout(str(tmp_path))
    drain_once(SOURCE, NewProcess(stream), layout)
    seen: list[int] = []

    def to(state: SnapshotState | None, checkpoint: Checkpoint) -> SnapshotState:
        seen.append(checkpoint.epoch)
        if len(seen) == 1:
            stream.put({"id": {"S": "1"}})
            stream.replace()
            stream.put({"id": {"S": "2"}})
            for _ in range(3):
                drain_once(SOURCE, NewProcess(stream), layout)
        return raised(state, checkpoint)

    state = announce(SOURCE, layout, datetime(2030, 1, 1, tzinfo=timezone.utc), to)
    assert seen == [1, 2]
    assert state.epoch == 3


def test_the_epoch_survives_the_loss_of_the_checkpoint(tmp_path: Path) -> None:
    stream, layout = ScriptedStream(), Layout(str(tmp_path))
    drain_once(SOURCE, NewProcess(stream), layout)
    announce_now(layout)
    CheckpointTable(layout, SOURCE.name).open_or_create().save(Checkpoint())
    stream.put({"id": {"S": "1"}})
    drain_once(SOURCE, NewProcess(stream), layout)
    assert epochs(layout) == [2]


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=5), timedelta(hours=-5)])
def test_an_idle_drain_saves_that_it_has_passed_what_a_snapshot_waits_for(
    tmp_path: Path, ahead: timedelta
) -> None:
    """By the time of the service, however wrong the clock of the drain is."""
    clock = FixedClock()
    stream, layout = ScriptedStream(clock=clock), Layout(str(tmp_path))
    own = FixedClock(clock.now + ahead)
    drain_once(SOURCE, NewProcess(stream), layout, clock=own)
    announce_now(layout)

    def passed() -> bool:
        drain_once(SOURCE, NewProcess(stream), layout, clock=own)
        saved = CheckpointTable(layout, SOURCE.name).open()
        state = ScanLog(ChangeLog(layout, SOURCE)).state
        assert saved is not None
        assert state is not None
        assert state.drain_must_pass is not None
        return saved.checkpoint.has_passed(state.drain_must_pass)

    assert not passed()
    for one in (clock, own):
        one.advance(SETTLE)
    assert not passed()
    for one in (clock, own):
        one.advance(timedelta(seconds=1))
    assert passed()


def test_a_shard_whose_children_are_not_listed_yet_counts_until_its_end(tmp_path: Path) -> None:
    clock = FixedClock()
    stream, layout = ScriptedStream(clock=clock), Layout(str(tmp_path))
    stream.put({"id": {"S": "1"}})
    drain_once(SOURCE, NewProcess(stream), layout, clock=clock)
    announced_at = clock.now
    clock.advance(timedelta(seconds=5))
    stream.split()
    drain_once(SOURCE, NewProcess(stream), layout, clock=clock)  # reads the parent to its end

    def has_passed() -> bool:
        saved = CheckpointTable(layout, SOURCE.name).open()
        assert saved is not None
        return saved.checkpoint.has_passed(announced_at)

    assert not has_passed(), "its children were not read yet"
    drain_once(SOURCE, NewProcess(stream), layout, clock=clock)
    assert has_passed()
