"""Ticks that listen: they drain on until something is to be told; only a part listens at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dagster_glue.sensors import listening, sensor
from datazone_dagster.dagster_glue.sensors.listening import Listeners, may_listen, most_listeners
from datazone_dagster.errors import AccessDeniedError, DefinitionError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport
from datazone_dagster.observe.lag import DRAIN_GRACE
from datazone_dagster.pipeline import DrainSettings, change_log_head, drain_once, drain_tick
from datazone_dagster.process import crash_points, shutdown
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import (
    Crash,
    ScriptedStream,
    at_point,
    crash_at,
)
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    SOURCE,
    MakeWorld,
    ScriptedResource,
    World,
)
from tests.faults.orders import landed_event_ids
from tests.new_process import NewProcess

THREADS = {"sensors": {"use_threads": True, "num_workers": 8}}
LONG = DrainSettings(listen_seconds=30)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy shard is asked twenty times a second; nothing has interrupted this process."""
    monkeypatch.setattr(shutdown, "_interrupted", threading.Event())
    intervals = ((0.0, 0.05), (10.0, 4.5))
    monkeypatch.setattr("datazone_dagster.drain.polling.LISTENING", intervals)
    monkeypatch.setattr("datazone_dagster.drain.tick.LISTENING", intervals)
    monkeypatch.setattr("datazone_dagster.drain.tick.LISTENING_SECONDS", 0.05)
    monkeypatch.setattr(listening, "LOOK_EVERY_SECONDS", 0.01)


@pytest.fixture
def listening_world(make_world: MakeWorld) -> Iterator[Callable[..., World]]:
    """Worlds on an instance whose daemon has threads, with a run that is going on."""
    with DagsterInstance.ephemeral(settings=THREADS) as instance:

        def make(*transforms: Transform, settings: DrainSettings = LONG) -> World:
            world = make_world(*transforms, drain_settings=settings)
            world.instance = instance
            world.put("first")
            for request in world.tick().requests:
                assert request.job_name is not None
                job = world.defs.resolve_job_def(request.job_name)
                instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
            return world

        yield make


def when_asked(world: World, act: Callable[[int], None]) -> None:
    """Call a function with the number of each GetRecords call from now on, before its answer."""
    calls = 0

    def count(operation: str, _shard: str, _call: int) -> None:
        nonlocal calls
        if operation == "GetRecords":
            calls += 1
            act(calls)

    world.stream.faults = count


def until_call(last: int, act: Callable[[int], None]) -> Callable[[int], None]:
    """Act at each call, and end the tick's waiting at the last one, as Ctrl-C does."""

    def act_and_end(call: int) -> None:
        act(call)
        if call == last:
            shutdown._interrupted.set()

    return act_and_end


def head(world: World) -> int:
    return change_log_head("orders", world.layout) or 0


def end_the_run(world: World) -> None:
    [record] = world.instance.get_run_records()
    world.instance.report_run_canceled(record.dagster_run)


def test_what_comes_while_a_tick_listens_lands_in_the_same_tick(
    listening_world: Callable[..., World],
) -> None:
    world = listening_world()
    assert head(world) == 1
    world.put("second")
    # A round finds its own call empty and the next round what came meanwhile.
    put = until_call(9, lambda call: world.put(f"more-{call}") if call in (4, 6) else None)
    when_asked(world, put)
    tick = world.tick()
    assert head(world) >= 3
    assert not tick.requests
    [told] = tick.materializations()
    assert told.metadata["records_landed"].value == 3
    assert tick.skip is not None
    assert tick.skip.startswith("Read 3 records in batches 2 to ")


def test_a_tick_ends_at_once_when_a_run_must_be_requested(
    listening_world: Callable[..., World],
) -> None:
    world = listening_world()
    world.put("second")

    def end(call: int) -> None:
        if call == 4:
            end_the_run(world)
            world.put("third")

    when_asked(world, end)
    started = time.monotonic()
    tick = world.tick()
    assert [one.job_name for one in tick.requests] == ["apply_orders"]
    assert head(world) == 3
    assert time.monotonic() - started < LONG.listen_seconds / 2


def test_a_tick_ends_at_once_when_a_check_changes(listening_world: Callable[..., World]) -> None:
    world = listening_world()
    world.put("second")

    def come_late(call: int) -> None:
        if call == 4:
            world.clock.advance(timedelta(minutes=2))
            world.put("third")

    when_asked(world, come_late)
    assert not world.tick().checks()["orders:lag"].passed


def test_a_tick_ends_at_once_when_its_process_must_end(
    listening_world: Callable[..., World],
) -> None:
    world = listening_world()
    world.put("second")
    when_asked(world, until_call(4, lambda _: None))
    assert world.tick().materializations()
    # A drain itself goes on after Ctrl-C: only waiting ends.
    world.stream.faults = None
    world.put("third")
    assert world.tick().materializations()


def test_what_landed_is_told_although_a_later_drain_fails(
    listening_world: Callable[..., World],
) -> None:
    world = listening_world()
    world.put("second")

    def deny(call: int) -> None:
        if call >= 4:
            raise AccessDeniedError("dynamodb:GetRecords is missing")

    when_asked(world, deny)
    tick = world.tick()
    assert [one.metadata["records_landed"].value for one in tick.materializations()] == [1]
    assert all(one.passed for one in tick.checks().values())
    with pytest.raises(AccessDeniedError):
        world.tick()


@pytest.mark.parametrize(
    ("nth", "landed"),
    [
        pytest.param(1, 2, id="the first batch of the tick"),
        pytest.param(2, 3, id="between two batches"),
    ],
)
def test_a_tick_that_dies_between_two_batches_has_landed_the_first(
    listening_world: Callable[..., World], nth: int, landed: int
) -> None:
    world = listening_world()
    world.put("second")
    when_asked(world, lambda call: world.put(f"more-{call}") if call in (4, 6, 8) else None)
    with pytest.raises(Crash), crash_at(crash_points.AFTER_CHANGE_LOG_COMMIT, nth):
        world.tick()
    assert head(world) == landed
    world.stream.faults = None
    assert_exactly_once(world)


@pytest.mark.parametrize("point", [crash_points.AFTER_READ, crash_points.AFTER_CHANGE_LOG_COMMIT])
def test_another_drain_while_a_tick_listens(
    listening_world: Callable[..., World], point: str
) -> None:
    """A tick that timed out goes on in the code server while the next one starts."""
    world = listening_world()
    world.put("second")

    def another() -> None:
        world.put("third")
        drain_once(SOURCE, NewProcess(world.stream), world.layout)

    put = until_call(12, lambda call: world.put("fourth") if call == 4 else None)
    when_asked(world, put)
    with at_point(point, another, nth=2):
        world.tick()
    world.stream.faults = None
    assert_exactly_once(world)


def test_ticks_that_overlap_both_listen_and_land_everything_once(
    listening_world: Callable[..., World],
) -> None:
    world = listening_world()
    numbers = iter(range(1000))
    put = until_call(30, lambda call: world.put(f"k{next(numbers)}") if call % 2 else None)
    when_asked(world, put)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(world.tick), pool.submit(world.tick)]:
            done.result()
    world.stream.faults = None
    assert_exactly_once(world)


def assert_exactly_once(world: World) -> None:
    """Another process drains the rest: every change is in the change log once."""
    drain_once(SOURCE, NewProcess(world.stream), world.layout)
    landed = landed_event_ids(world.layout)
    assert landed == Counter(change.event_id for change in world.stream.changes)


def source_named(name: str) -> DynamoDBSource:
    return DynamoDBSource(name, start="trim_horizon")


def transform_of(name: str) -> Transform:
    @transform(
        name=name,
        input_mapping={"changes": Input(Stream(source=source_named(name)))},
        output_mapping={"rows": Output(Dataset(name))},
    )
    def rows(changes):  # type: ignore[no-untyped-def]
        return changes.select(*ITEM_COLUMNS)

    return rows


def test_more_sources_than_places(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads remain for other ticks and the UI: a tick without a place returns at once."""
    names = [f"table{number}" for number in range(6)]
    monkeypatch.setattr(listening, "LISTENERS", Listeners())
    monkeypatch.setattr(sensor, "LISTENERS", listening.LISTENERS)
    monkeypatch.setattr("os.cpu_count", lambda: 2)  # six threads, so two places
    world = make_world(*map(transform_of, names), drain_settings=LONG)
    ScriptedResource.streams = {name: ScriptedStream(name, clock=world.clock) for name in names}
    with DagsterInstance.ephemeral(settings=THREADS) as world.instance:
        for name in names:
            world.tick(f"drain_{name}")
        ended = ticks_that_end(world, names)
    assert len(ended) == 4


def ticks_that_end(world: World, names: list[str]) -> list[str]:
    """Evaluate all sensors at once; return those that end before their process must end."""
    ended: list[str] = []
    with ThreadPoolExecutor(len(names)) as pool:
        ticks = {name: pool.submit(world.tick, f"drain_{name}") for name in names}
        for name in names:
            ticks[name].add_done_callback(lambda _: ended.append("ended"))
        wait(ticks.values(), timeout=2)  # the others would listen for half a minute
        by_themselves = list(ended)
        shutdown._interrupted.set()
        try:
            for tick in ticks.values():
                tick.result()
        finally:
            shutdown._interrupted.clear()
    return by_themselves


def test_an_idle_stream_makes_room_for_one_with_traffic() -> None:
    now = [0.0]
    listeners = Listeners(lambda: now[0])
    with listeners.place(1, busy=False) as idle:
        assert idle is not None
        assert not listeners.must_yield(idle)
        with listeners.place(1, busy=True) as refused:
            assert refused is None
        assert listeners.must_yield(idle)
        assert not listeners.must_yield(idle)
    with listeners.place(1, busy=False) as again:
        assert again is None  # the place is for the one with traffic
    with listeners.place(1, busy=True) as busy:
        assert busy is not None
        with listeners.place(1, busy=True):
            assert not listeners.must_yield(busy)
    with listeners.place(1, busy=False) as later:
        assert later is not None


def test_an_idle_stream_that_gets_traffic_stays() -> None:
    listeners = Listeners(lambda: 0.0)
    with listeners.place(1, busy=False) as place, listeners.place(1, busy=True):
        assert place is not None
        place.set_busy()
        assert not listeners.must_yield(place)


@pytest.mark.parametrize(
    ("sensors", "uri", "settings", "tick_seconds", "expected"),
    [
        ({"use_threads": True}, "/lake", LONG, 5, True),
        ({"use_threads": False}, "/lake", LONG, 5, False),
        ({}, "/lake", LONG, 5, False),
        ({"use_threads": True}, "s3://bucket/lake", LONG, 5, False),
        ({"use_threads": True}, "/lake", DrainSettings(listen_seconds=0), 5, False),
        ({"use_threads": True}, "/lake", LONG, 30, False),
    ],
)
def test_where_ticks_listen(
    sensors: dict[str, bool], uri: str, settings: DrainSettings, tick_seconds: int, expected: bool
) -> None:
    with DagsterInstance.ephemeral(settings={"sensors": sensors}) as instance:
        assert may_listen(instance, Layout(uri), settings, tick_seconds) is expected


@pytest.mark.parametrize(
    ("cpus", "workers", "places"), [(2, 8, 2), (2, 16, 2), (16, 8, 2), (16, 64, 6), (2, 1, 1)]
)
def test_places_are_a_part_of_the_threads_of_both_processes(
    monkeypatch: pytest.MonkeyPatch, cpus: int, workers: int, places: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    settings = {"sensors": {"use_threads": True, "num_workers": workers}}
    with DagsterInstance.ephemeral(settings=settings) as instance:
        assert most_listeners(instance) == places


@pytest.mark.parametrize("seconds", [-1.0, 31.0])
def test_a_tick_can_not_listen_for_long(seconds: float) -> None:
    with pytest.raises(DefinitionError, match="listen_seconds"):
        DrainSettings(listen_seconds=seconds)


def test_drains_of_a_tick_end_well_before_dagster_drops_it() -> None:
    settings = DrainSettings(budget_seconds=40, listen_seconds=30)
    ages = (0.0, 30.0, 40.0, 60.0)
    assert [settings.at_age(age).budget_seconds for age in ages] == [40.0, 15.0, 5.0, 0.0]


def test_a_drain_while_a_tick_listens_gets_what_is_left_of_the_tick(
    listening_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = listening_world()
    budgets: list[float] = []
    drain = drain_tick

    def counted(*given: Any, settings: DrainSettings, **more: Any) -> DrainReport:
        budgets.append(settings.budget_seconds)
        return drain(*given, settings=settings, **more)

    monkeypatch.setattr(sensor, "drain_tick", counted)
    monkeypatch.setattr("datazone_dagster.drain.settings.LATEST_SECONDS", 12.0)
    when_asked(world, until_call(6, lambda _: None))
    world.tick()
    assert budgets[0] == 20.0
    assert len(budgets) > 1
    assert all(5.0 < budget <= 12.0 for budget in budgets[1:])


@pytest.mark.parametrize(
    ("listen_seconds", "is_dev", "until"),
    [
        (18.0, "", listening.IDLE_UNTIL_SECONDS),
        (18.0, "1", 18.0),
        (30.0, "1", 30.0),
        (5.0, "", 5.0),
        (5.0, "1", 5.0),
    ],
)
def test_a_tick_of_an_idle_stream_does_not_hold_up_the_end_of_dagster_dev(
    monkeypatch: pytest.MonkeyPatch,
    listening_world: Callable[..., World],
    listen_seconds: float,
    is_dev: str,
    until: float,
) -> None:
    """The daemon waits for its ticks, and the code server gets no signal before that."""
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", is_dev)
    world = listening_world(settings=DrainSettings(listen_seconds=listen_seconds))
    monkeypatch.setattr(sensor, "BUSY_FOR_SECONDS", 0.0)
    asked: list[float] = []

    def waits(_place: listening.Place, _seconds: float, until_seconds: float) -> bool:
        asked.append(until_seconds - began)
        return False

    monkeypatch.setattr(listening.Place, "waits", waits)
    began = time.monotonic()
    world.tick()
    assert asked == [pytest.approx(until, abs=1.0)]


def test_a_tick_that_listens_for_long_makes_no_dataset_late() -> None:
    daemon_looks_every_seconds = 5
    between_ends_seconds = listening.IDLE_UNTIL_SECONDS + 2 * daemon_looks_every_seconds
    assert DRAIN_GRACE.total_seconds() > between_ends_seconds
