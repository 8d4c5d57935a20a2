"""What is lost is decided by the clock of the service: that of this machine may be hours off."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.drain import DrainSettings, drain_tick
from datazone_dagster.drain.service_now import told_now
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.drain_part import SetPart, StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.shard import IteratorStart
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.observe.health import headroom_seconds
from datazone_dagster.pipeline import drain_once, open_gaps
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.new_process import NewProcess

SOURCE = DynamoDBSource("orders", start="trim_horizon")
BY_RUNS = replace(SOURCE, drain="runs", drain_workers=1)
HOUR = timedelta(hours=1)
TRIMMED = "records were trimmed before they were read"
NOT_READ = "the shard was not read for 24 hours"


class Remembers(NewProcess):
    """A client that is told the time by its last answer only, as one on the wire is."""

    def __init__(self, stream: ScriptedStream) -> None:
        super().__init__(stream)
        self._stream = stream
        self.told: tuple[datetime, float] | None = None
        self.told_time = lambda: self.told
        for name in ("stream_arns", "describe_page", "shard_iterator", "get_records"):
            setattr(self, name, self._remembering(getattr(stream, name)))

    def _remembering(self, call: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            try:
                return call(*arguments)
            finally:
                self.told = self._stream.told_time()

        return called


class World:
    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        self.service = FixedClock()
        self.stream = ScriptedStream("orders", page_records=1, clock=self.service)

    def drain(self, ahead: timedelta = timedelta(0), client: StreamClient | None = None) -> None:
        """Drain on a machine whose clock is this much ahead of that of the service."""
        here = self.service() + ahead
        drain_once(SOURCE, client or NewProcess(self.stream), self.layout, clock=lambda: here)

    def silent(self) -> NewProcess:
        """Return a client of a service that does not say what time it is."""
        found = NewProcess(self.stream)
        found.told_time = lambda: None
        return found

    def rows(self) -> list[ShardCheckpoint]:
        saved = CheckpointTable(self.layout, SOURCE.name).open()
        assert saved is not None
        return list(saved.checkpoint.shards.values())

    def put(self, key: str) -> None:
        self.stream.put({"id": {"S": key}})

    def gaps(self) -> list[str]:
        return [gap.reason for gap in open_gaps("orders", self.layout)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_outage_of_a_day_is_a_gap_on_a_machine_whose_clock_went_back(world: World) -> None:
    world.put("a")
    world.drain()
    world.service.advance(3 * HOUR)
    world.drain()
    world.service.advance(HOUR / 2)
    world.put("lost")
    world.service.advance(24.5 * HOUR)
    world.stream.trim()
    world.drain(-2 * HOUR)
    assert world.gaps() == [TRIMMED]


@pytest.mark.parametrize("ahead", [-2 * HOUR, 0 * HOUR, 48 * HOUR])
def test_an_idle_shard_is_no_gap_whatever_the_clock_of_this_machine_shows(
    world: World, ahead: timedelta
) -> None:
    world.put("a")
    world.drain()
    world.service.advance(30 * HOUR)
    world.drain()
    world.stream.trim()
    world.service.advance(HOUR)
    world.drain(ahead)
    assert world.gaps() == []


def test_a_shard_without_records_is_a_gap_after_a_day_of_the_service(world: World) -> None:
    world.drain()
    world.service.advance(HOUR)
    world.drain(48 * HOUR)
    assert world.gaps() == []
    world.service.advance(25 * HOUR)
    world.drain(-3 * HOUR)
    assert set(world.gaps()) == {NOT_READ}


@pytest.mark.parametrize("ahead", [-5 * HOUR, 48 * HOUR])
def test_every_time_in_the_checkpoint_is_of_the_service(world: World, ahead: timedelta) -> None:
    world.drain(ahead)
    world.put("a")
    world.stream.split()
    world.service.advance(HOUR)
    for _ in range(3):
        world.drain(ahead)
    assert {row.unread_from for row in world.rows()} == {world.service.now - HOUR}
    assert {row.tip_at for row in world.rows() if not row.is_done} == {world.service.now}
    assert {row.tip_at for row in world.rows() if row.is_done} == {world.service.now - HOUR}


@pytest.mark.parametrize(("hours", "gaps"), [(23, []), (25, [NOT_READ])])
def test_without_the_time_of_the_service_the_clock_of_this_machine_decides(
    world: World, hours: int, gaps: list[str]
) -> None:
    world.drain(client=world.silent())
    world.service.advance(hours * HOUR)
    world.drain(client=world.silent())
    assert world.gaps() == gaps


@pytest.mark.parametrize("was_behind", [False, True])
def test_a_checkpoint_of_a_former_version_has_the_time_of_a_machine(
    world: World, was_behind: bool
) -> None:
    """If it was right, there is no gap. If it was behind, there is one rather than silence."""
    world.put("a")
    former = world.service() + timedelta(seconds=0.7) - was_behind * 3 * HOUR
    drain_once(SOURCE, world.silent(), world.layout, clock=lambda: former)
    world.service.advance(2 * HOUR)
    drain_once(SOURCE, world.silent(), world.layout, clock=lambda: former + 2 * HOUR)
    world.service.advance(23 * HOUR)
    world.stream.trim()
    world.drain()
    assert world.gaps() == ([TRIMMED] if was_behind else [])


def test_a_machine_that_sleeps_for_a_day_between_listing_and_reading(world: World) -> None:
    """The answer that says what is trimmed says when, too."""
    world.put("a")
    world.drain()
    world.service.advance(30 * HOUR)
    world.drain()

    world.put("lost")
    client = NewProcess(world.stream)
    ask = client.shard_iterator

    def after_a_sleep(*arguments: object) -> str:
        if world.service.now < woken:
            world.service.now = woken
            world.stream.trim()
        return ask(*arguments)  # type: ignore[arg-type]

    woken = world.service.now + 25 * HOUR
    client.shard_iterator = after_a_sleep  # type: ignore[assignment]
    world.drain(client=client)
    assert world.gaps() == [TRIMMED]


def test_a_machine_that_sleeps_for_a_day_between_two_drains(world: World) -> None:
    """Its monotonic clock stood still, so what it has listed looks recent."""
    client = Remembers(world.stream)

    def drain() -> None:
        drain_tick(SOURCE, client, world.layout, clock=world.service, listening=True)

    drain()
    listed = world.stream.calls["DescribeStream"]
    drain()
    assert world.stream.calls["DescribeStream"] == listed, "a listing of the last seconds will do"
    world.service.advance(25 * HOUR)
    drain()
    assert set(world.gaps()) == {NOT_READ}


@pytest.mark.parametrize("ahead", [-2 * HOUR, 48 * HOUR])
@pytest.mark.parametrize(("outage", "gaps"), [(20 * HOUR, []), (25 * HOUR, [TRIMMED])])
def test_runs_on_hosts_whose_clocks_differ(
    world: World, ahead: timedelta, outage: timedelta, gaps: list[str]
) -> None:
    (one,) = shard_sets(1)

    def work(ahead: timedelta) -> None:
        for part, skew in ((StreamPart(1), timedelta(0)), (SetPart(one), ahead)):
            here = world.service() + skew
            client = NewProcess(world.stream)
            drain_tick(BY_RUNS, client, world.layout, clock=lambda at=here: at, part=part)  # type: ignore[misc]

    world.put("a")
    work(timedelta(0))
    world.service.advance(10 * HOUR)
    work(ahead)
    world.service.advance(outage)
    world.stream.trim()
    work(-ahead)
    assert world.gaps() == gaps


@pytest.mark.parametrize("ahead", [-20 * HOUR, 48 * HOUR])
def test_the_time_that_is_left_is_told_by_the_service(world: World, ahead: timedelta) -> None:
    world.drain()
    for key in ("a", "b"):
        world.put(key)
    world.service.advance(10 * HOUR)
    here = world.service() + ahead
    report = drain_once(
        SOURCE,
        NewProcess(world.stream),
        world.layout,
        settings=DrainSettings(budget_bytes=1, max_workers=1),
        clock=lambda: here,
    )
    assert report.records == 1
    assert headroom_seconds(report, here) == 14 * 3600


def test_the_time_of_the_service_is_never_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ScriptedStream()
    client = Remembers(stream)
    assert told_now(client) is None
    client.stream_arns()
    assert client.told is not None
    at, arrived_seconds = client.told
    monkeypatch.setattr(time, "monotonic", lambda: arrived_seconds + 7.9)
    assert told_now(client) == at + timedelta(seconds=7)


def test_a_run_that_reads_before_the_sensor_after_a_day_hides_no_gap(world: World) -> None:
    """It went on through the outage; a shard that had no record yet starts at the trim horizon."""
    (one,) = shard_sets(1)
    run = NewProcess(world.stream)

    def work(part: StreamPart | SetPart, client: StreamClient) -> None:
        drain_tick(BY_RUNS, client, world.layout, clock=world.service, part=part)

    work(StreamPart(1), NewProcess(world.stream))
    work(SetPart(one), run)
    world.put("lost")
    world.service.advance(25 * HOUR)
    world.stream.trim()
    world.put("kept")
    work(SetPart(one), run)
    work(StreamPart(1), NewProcess(world.stream))
    assert world.gaps() == [NOT_READ]


def test_what_others_read_while_a_run_slept_is_no_gap(world: World) -> None:
    (one,) = shard_sets(1)
    slept: list[str] = []

    def work(part: StreamPart | SetPart, client: StreamClient) -> bool:
        return drain_tick(BY_RUNS, client, world.layout, clock=world.service, part=part).lost_race

    def after_a_sleep(stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        if not slept:
            slept.append(shard_id)
            world.service.advance(20 * HOUR)
            work(SetPart(one), NewProcess(world.stream))
            world.service.advance(5 * HOUR)
        return world.stream.shard_iterator(stream_arn, shard_id, start)

    work(StreamPart(1), NewProcess(world.stream))
    work(SetPart(one), NewProcess(world.stream))
    client = NewProcess(world.stream)
    client.shard_iterator = after_a_sleep
    assert work(SetPart(one), client)
    work(SetPart(one), client)
    work(StreamPart(1), NewProcess(world.stream))
    assert world.gaps() == []
