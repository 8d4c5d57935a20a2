"""Gaps are recorded, reported and accepted, and survive crashes and lost tables."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import pytest

from datazone_dagster.changelog.checkpoints import CheckpointSnapshot, CheckpointTable
from datazone_dagster.changelog.gap_acceptance import accept_gaps, gap_notes
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.errors import DefinitionError, ServiceUnavailableError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport
from datazone_dagster.observe.completeness import completeness
from datazone_dagster.observe.health import StreamHealth, health_of_report
from datazone_dagster.observe.level import Level
from datazone_dagster.pipeline import drain_once, open_gaps
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, FixedClock, ScriptedStream, at_point, crash_at

SOURCE = DynamoDBSource("orders")
HOUR = timedelta(hours=1)


class Flow:
    """A stream, a clock and a lakehouse."""

    def __init__(self, path: Path) -> None:
        self.clock = FixedClock()
        self.stream = ScriptedStream(clock=self.clock)
        self.layout = Layout(str(path))

    def put(self, key: str) -> None:
        self.stream.put({"id": {"S": key}, "at": {"S": str(self.clock())}})

    def drain(self) -> DrainReport:
        while not (
            report := drain_once(SOURCE, self.stream, self.layout, clock=self.clock)
        ).caught_up:
            pass
        return report

    def health(self) -> StreamHealth:
        report = drain_once(SOURCE, self.stream, self.layout, clock=self.clock)
        return health_of_report(report, now=self.clock(), caught_up_at=self.clock())

    def accept(self, shard_ids: Collection[str] = ()) -> None:
        accept_gaps(
            SOURCE.name,
            self.layout,
            by="ann",
            why="test data",
            shard_ids=shard_ids,
            clock=self.clock,
        )

    def lose_the_checkpoint(self) -> None:
        shutil.rmtree(self.layout.checkpoint(SOURCE.name))

    def accepted(self) -> list[tuple[str | None, str | None]]:
        notes = gap_notes(SOURCE.name, self.layout)
        return [(note.accepted_by, note.accepted_why) for note in notes if not note.is_open]


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)


def trim_unread(flow: Flow) -> None:
    """Trim two hours of changes before they are read, and put one change after them."""
    flow.put("a")
    flow.drain()
    flow.clock.advance(26 * HOUR)
    flow.put("b")
    flow.stream.trim()
    flow.put("c")


@pytest.fixture
def trimmed(flow: Flow) -> Flow:
    trim_unread(flow)
    flow.drain()
    return flow


def test_trimmed_records_are_an_error_that_names_shard_time_and_ways_out(trimmed: Flow) -> None:
    health = trimmed.health()
    assert (health.level, health.state, health.gaps) == (Level.ERROR, "GAP", 1)
    assert health.missing_seconds == 26 * 3600
    (shard_id,) = trimmed.stream.shard_ids()
    ways_out = ("accept-gap orders", "datazone-dagster resync orders")
    for words in (shard_id, "from 20", "93,600 s", *ways_out):
        assert words in health.reason


def test_a_vanished_shard_and_a_new_arn_are_gaps(flow: Flow) -> None:
    flow.put("a")
    flow.drain()
    flow.put("b")
    (shard_id,) = flow.stream.shard_ids()
    flow.stream.roll()
    flow.clock.advance(25 * HOUR)
    flow.stream.trim()
    flow.drain()
    assert [gap.shard_id for gap in open_gaps(SOURCE.name, flow.layout)] == [shard_id]
    flow.put("c")
    flow.drain()
    flow.stream.replace()
    flow.put("d")
    flow.drain()
    reasons = [gap.reason for gap in open_gaps(SOURCE.name, flow.layout)]
    assert "vanished" in reasons[0]
    assert "disabled and enabled again" in reasons[1]
    assert flow.health().gaps == 2


def test_datasets_are_incomplete_until_it_is_accepted(trimmed: Flow) -> None:
    found = completeness(SOURCE.name, open_gaps(SOURCE.name, trimmed.layout))
    assert (found.level, found.gaps, found.missing_seconds) == (Level.ERROR, 1, 26 * 3600)
    trimmed.accept()
    assert completeness(SOURCE.name, open_gaps(SOURCE.name, trimmed.layout)).level is Level.OK
    assert trimmed.health().state == "OK"
    assert trimmed.accepted() == [("ann", "test data")]


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        (crash_points.AFTER_READ, 1),
        (crash_points.AFTER_CHECKPOINT_COMMIT, 1),
        (crash_points.AFTER_CHANGE_LOG_COMMIT, 1),
        (crash_points.AFTER_CHECKPOINT_COMMIT, 2),
    ],
)
def test_a_gap_survives_the_death_of_the_drain_that_finds_it(
    flow: Flow, point: str, nth: int
) -> None:
    """Rows landed after the gap move the position, so that no later drain would find the gap."""
    trim_unread(flow)
    with pytest.raises(Crash), crash_at(point, nth):
        flow.drain()
    flow.drain()
    (gap,) = open_gaps(SOURCE.name, flow.layout)
    assert "trimmed" in gap.reason
    assert flow.health().missing_seconds == 26 * 3600
    log = ChangeLog(flow.layout, SOURCE.name).open()
    assert log is not None
    assert sum(len(chunk.rows) for chunk in log.chunks(0, log.head, 1 << 20)) == 2


def test_an_open_gap_survives_a_lost_checkpoint(trimmed: Flow) -> None:
    before = open_gaps(SOURCE.name, trimmed.layout)
    trimmed.lose_the_checkpoint()
    assert open_gaps(SOURCE.name, trimmed.layout) == before
    assert trimmed.health().state == "GAP"
    assert open_gaps(SOURCE.name, trimmed.layout) == before


def test_an_open_gap_survives_an_old_copy_of_the_checkpoint(flow: Flow, tmp_path: Path) -> None:
    flow.put("a")
    flow.drain()
    checkpoint = Path(flow.layout.checkpoint(SOURCE.name))
    shutil.copytree(checkpoint, tmp_path / "copy")
    flow.put("b")
    flow.stream.trim()
    flow.put("c")
    flow.drain()
    before = open_gaps(SOURCE.name, flow.layout)
    assert len(before) == 1
    shutil.rmtree(checkpoint)
    shutil.copytree(tmp_path / "copy", checkpoint)
    assert open_gaps(SOURCE.name, flow.layout) == before
    assert flow.health().state == "GAP"
    flow.lose_the_checkpoint()
    assert flow.health().state == "GAP"


def test_an_acceptance_survives_a_lost_checkpoint(trimmed: Flow) -> None:
    trimmed.accept()
    trimmed.lose_the_checkpoint()
    assert open_gaps(SOURCE.name, trimmed.layout) == ()
    trimmed.put("d")
    trimmed.drain()
    assert trimmed.health().state == "OK"
    assert trimmed.accepted() == [("ann", "test data")]


def test_an_accepted_new_arn_is_not_recorded_again_after_a_lost_checkpoint(flow: Flow) -> None:
    flow.put("a")
    flow.drain()
    flow.stream.replace()
    flow.drain()
    flow.accept()
    flow.lose_the_checkpoint()
    flow.drain()
    assert open_gaps(SOURCE.name, flow.layout) == ()
    assert flow.accepted() == [("ann", "test data")]


def test_a_gap_can_be_accepted_while_the_checkpoint_is_lost(trimmed: Flow) -> None:
    trimmed.lose_the_checkpoint()
    trimmed.accept()
    trimmed.put("d")
    report = trimmed.drain()
    assert report.gaps == ()
    log = ChangeLog(trimmed.layout, SOURCE.name).open()
    assert log is not None
    assert sum(len(chunk.rows) for chunk in log.chunks(0, log.head, 1 << 20)) == 3


def test_an_acceptance_that_dies_half_way_is_completed_by_the_next_drain(trimmed: Flow) -> None:
    with pytest.raises(Crash), crash_at(crash_points.AFTER_CHECKPOINT_COMMIT):
        trimmed.accept()
    trimmed.drain()
    trimmed.lose_the_checkpoint()
    trimmed.drain()
    assert trimmed.accepted() == [("ann", "test data")]
    assert open_gaps(SOURCE.name, trimmed.layout) == ()


def test_the_next_gap_of_a_shard_does_not_erase_an_acceptance(trimmed: Flow) -> None:
    trimmed.accept()
    trimmed.clock.advance(30 * HOUR)
    trimmed.put("d")
    trimmed.stream.trim()
    trimmed.put("e")
    trimmed.drain()
    assert len(open_gaps(SOURCE.name, trimmed.layout)) == 1
    assert trimmed.accepted() == [("ann", "test data")]
    trimmed.accept()
    assert len(trimmed.accepted()) == 2


def test_a_drain_at_the_same_moment(trimmed: Flow) -> None:
    """The acceptance commits first: the drain loses the commit race, but no change is lost."""
    trimmed.put("d")
    with at_point(crash_points.AFTER_READ, trimmed.accept):
        report = drain_once(SOURCE, trimmed.stream, trimmed.layout, clock=trimmed.clock)
    assert report.lost_race
    report = trimmed.drain()
    assert report.gaps == ()
    assert trimmed.accepted() == [("ann", "test data")]
    log = ChangeLog(trimmed.layout, SOURCE.name).open()
    assert log is not None
    assert sum(len(chunk.rows) for chunk in log.chunks(0, log.head, 1 << 20)) == 3


def test_a_faster_drain_makes_the_acceptance_try_again(
    trimmed: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = CheckpointTable.open_or_create
    overtaken = 0

    def slow(self: CheckpointTable) -> CheckpointSnapshot:
        nonlocal overtaken
        snapshot = opened(self)
        if overtaken < 2:
            overtaken += 1
            monkeypatch.setattr(CheckpointTable, "open_or_create", opened)
            trimmed.put(f"x{overtaken}")
            trimmed.drain()
            monkeypatch.setattr(CheckpointTable, "open_or_create", slow)
        return snapshot

    monkeypatch.setattr(CheckpointTable, "open_or_create", slow)
    trimmed.accept()
    assert overtaken == 2
    assert open_gaps(SOURCE.name, trimmed.layout) == ()


def test_only_open_gaps_are_accepted(trimmed: Flow) -> None:
    with pytest.raises(
        DefinitionError, match=r"no open gap on shard s1\. .*Open gaps are on shard"
    ):
        trimmed.accept(shard_ids=["s1"])
    with pytest.raises(DefinitionError, match="for a reason"):
        accept_gaps(SOURCE.name, trimmed.layout, by="ann", why="  ")
    trimmed.accept(shard_ids=trimmed.stream.shard_ids())
    with pytest.raises(DefinitionError, match="has no open gap"):
        trimmed.accept()
    with pytest.raises(DefinitionError, match="has no open gap"):
        accept_gaps("customers", trimmed.layout, by="ann", why="test")


def test_headroom_is_the_rest_of_24_hours(flow: Flow) -> None:
    flow.put("a")
    flow.drain()
    assert flow.health().headroom_seconds == 24 * 3600
    flow.put("b")
    flow.clock.advance(17 * HOUR)
    down = ServiceUnavailableError("scripted")
    flow.stream.faults = lambda operation, *_: down if operation == "GetRecords" else None
    health = flow.health()
    assert health.headroom_seconds == 7 * 3600
    assert health.state == "FAILING"
    flow.clock.advance(2 * HOUR)
    health = flow.health()
    assert health.headroom_seconds == 5 * 3600
    assert "may be trimmed in 5 h" in health.reason
    flow.stream.faults = None
    flow.drain()
    assert flow.health().headroom_seconds == 24 * 3600
