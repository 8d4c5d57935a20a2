"""Drain runs: the sensor starts one for each set of shards, and replaces it when it dies."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunRequest,
    build_op_context,
)
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.dagster_glue.jobs import drain_jobs
from datazone_dagster.dagster_glue.jobs.seldom_log import seldom
from datazone_dagster.dagster_glue.names import (
    ALIVE_TAG,
    END_TAG,
    FAILING_TAG,
    FAILURE_TAG,
    READ_TAG,
)
from datazone_dagster.dagster_glue.runs.heartbeat import SILENCE_SECONDS
from datazone_dagster.dagster_glue.sensors import drain_runs
from datazone_dagster.drain.process_state import load_state
from datazone_dagster.errors import (
    DefinitionError,
    LakehouseMismatchError,
    SourceMismatchError,
    ThrottledError,
)
from datazone_dagster.model.drain_part import SetPart
from datazone_dagster.model.set_state import SetState
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.set_health import sets_behind
from datazone_dagster.pipeline import DrainSettings, drain_tick
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Fault, FaultKind, FaultPlan, ScriptedStream
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    SOURCE,
    MakeWorld,
    ScriptedResource,
    Tick,
    World,
    orders_transform,
)

JOB = "drain_shards_orders"
SENSOR = "drain_orders"
HEALTH = "dynamodb/orders:stream_health"


def orders_of(workers: int) -> Transform:
    source = DynamoDBSource("orders", start="trim_horizon", drain="runs", drain_workers=workers)

    @transform(
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset("orders"))},
        version="1",
    )
    def orders(changes: Any) -> object:
        return changes.select(*ITEM_COLUMNS)

    return orders


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Four shards, two workers."""
    made = make_world(orders_of(2))
    for _ in range(3):
        made.stream.split(0)
    for number in range(20):
        made.put(str(number))
    return made


def drain_requests(tick: Tick) -> list[RunRequest]:
    return [one for one in tick.requests if one.job_name == JOB]


def started(world: World, request: RunRequest, **tags: str) -> DagsterRun:
    """Create the run of a request, as a process that drains has it."""
    return world.instance.create_run_for_job(
        world.defs.resolve_job_def(JOB),
        status=DagsterRunStatus.STARTED,
        tags={
            **request.tags,
            "dagster/partition": request.partition_key or "",
            ALIVE_TAG: world.clock.now.isoformat(),
            READ_TAG: world.clock.now.isoformat(),
            **tags,
        },
    )


def status_of(world: World, run: DagsterRun) -> DagsterRunStatus:
    found = world.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def run_set(world: World, request: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a requested run drain once, then tell it to end."""
    asked = count()
    monkeypatch.setattr(drain_jobs, "told_to_end", lambda *_: lambda: next(asked) > 0)
    assert world.run(JOB, tags=request.tags, partition=request.partition_key).success


def test_each_set_gets_a_run_and_no_second_one(world: World) -> None:
    tick = world.tick()
    requests = drain_requests(tick)
    assert [one.partition_key for one in requests] == ["1-of-2", "2-of-2"]
    assert "GetRecords" not in world.stream.calls
    for one in requests:
        started(world, one)
    tick = world.tick()
    assert drain_requests(tick) == []
    health = tick.checks().get(HEALTH)
    assert health is None or health.passed


def test_runs_drain_and_the_sensor_reports_and_applies_what_they_land(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for request in 3 * drain_requests(world.tick()):  # children wait for parents in other sets
        run_set(world, request, monkeypatch)
    tick = world.tick()
    [landed] = tick.materializations()
    assert landed.metadata["records_landed"].value == 20
    assert landed.metadata["drain_workers"].value == 0
    [apply] = [one for one in tick.requests if one.job_name == "apply_orders"]
    assert apply.tags
    world.run("apply_orders")  # without its tags it does not stay
    assert len(world.rows()) == 20
    assert world.tick().materializations() == []


def test_a_run_that_ends_as_planned_is_replaced_without_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = drain_requests(world.tick())
    started(world, second)
    run_set(world, first, monkeypatch)
    tick = world.tick()
    assert [one.partition_key for one in drain_requests(tick)] == ["1-of-2"]
    assert tick.checks()[HEALTH].passed
    world.clock.advance(timedelta(minutes=3))  # and nobody starts it
    health = world.tick().checks()[HEALTH]
    assert "No run reads" in str(health.description)


def test_a_silent_run_is_replaced_within_a_minute(world: World) -> None:
    first, second = (started(world, one) for one in drain_requests(world.tick()))
    world.watch(timedelta(seconds=SILENCE_SECONDS - 1))
    assert drain_requests(world.tick()) == []
    world.instance.add_run_tags(second.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    world.clock.advance(timedelta(seconds=1))
    tick = world.tick()
    assert [one.partition_key for one in drain_requests(tick)] == ["1-of-2"]
    assert status_of(world, first) is DagsterRunStatus.FAILURE
    assert status_of(world, second) is DagsterRunStatus.STARTED
    health = tick.checks()[HEALTH]
    assert health.severity.value == "WARN"
    assert "No run reads 1 of 2 sets: 1-of-2" in str(health.description)


def test_a_run_that_was_terminated_after_its_process_died_is_replaced(world: World) -> None:
    first, second = (started(world, one) for one in drain_requests(world.tick()))
    world.instance.report_run_canceling(first)
    world.watch(timedelta(seconds=SILENCE_SECONDS - 1))
    assert status_of(world, first) is DagsterRunStatus.CANCELING
    world.instance.add_run_tags(second.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    world.clock.advance(timedelta(seconds=1))
    assert [one.partition_key for one in drain_requests(world.tick())] == ["1-of-2"]
    assert status_of(world, first) is DagsterRunStatus.CANCELED


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=5)])
def test_a_run_whose_clock_is_ahead_does_not_hide_that_it_is_behind(
    world: World, ahead: timedelta
) -> None:
    """Both times in its tags are of its own clock."""
    for one in drain_requests(world.tick()):
        started(world, one)
    world.clock.advance(timedelta(seconds=31))
    alive = world.clock.now + ahead
    for run in world.instance.get_runs():
        read = alive - timedelta(minutes=3)
        tags = {ALIVE_TAG: alive.isoformat(), READ_TAG: read.isoformat()}
        world.instance.add_run_tags(run.run_id, tags)
    health = world.tick().checks()[HEALTH]
    assert "Behind the latest position: 1-of-2 by 3 min" in str(health.description)


def test_a_shard_that_a_run_can_not_read_fails_the_check_of_the_stream(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = drain_requests(world.tick())
    names = world.stream.shard_ids()
    fault = Fault("GetRecords", FaultKind.INTERNAL_ERROR, times=None, shard=0)
    world.stream.faults = FaultPlan([fault])
    for one in requests:
        run_set(world, one, monkeypatch)
    ended = world.instance.get_runs()
    (told,) = {one.tags[FAILING_TAG] for one in ended if FAILING_TAG in one.tags}
    for one in requests:
        started(world, one, **{FAILING_TAG: told})
    world.clock.advance(timedelta(minutes=2))
    for run in world.instance.get_runs():
        world.instance.add_run_tags(run.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    health = world.tick().checks()[HEALTH]
    assert (health.severity.value, health.metadata["state"].value) == ("ERROR", "FAILING")
    assert health.metadata["shards_failing"].value == 1
    assert f"1 shards can't be read. {names[0]}: " in str(health.description)


def test_a_message_that_comes_again_and_again_is_a_row_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "run")
    seconds = [0.0]
    log = seldom(logging.getLogger("run"), 300.0, lambda: seconds[0])
    for at in (0.0, 1.0, 299.0, 300.0):
        seconds[0] = at
        log.warning("Shard %s failed: %s", "a", at)
        log.warning("Shard %s failed: %s", "b", at)
        log.info("Nothing else.")
    texts = ["Shard a failed: {}", "Shard b failed: {}", "Nothing else."]
    assert caplog.messages == [one.format(at) for at in (0.0, 300.0) for one in texts]


def test_a_run_that_was_replaced_ends_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_jobs, "ASK_EVERY_SECONDS", 0.0)
    run = started(world, drain_requests(world.tick())[0])
    told = drain_jobs.told_to_end(world.instance, run.run_id, world.clock, SENSOR)
    assert not told()
    world.instance.report_run_failed(run, "silent")
    assert told()


def test_a_run_ends_after_hours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_jobs, "ASK_EVERY_SECONDS", 0.0)
    run = started(world, drain_requests(world.tick())[0])
    told = drain_jobs.told_to_end(world.instance, run.run_id, world.clock, SENSOR)
    world.clock.advance(drain_jobs.LONGEST - timedelta(seconds=1))
    assert not told()
    world.clock.advance(timedelta(seconds=1))
    assert told()


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_run_ends_soon_after_its_sensor_was_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_hand: bool
) -> None:
    monkeypatch.setattr(drain_jobs, "ASK_EVERY_SECONDS", 0.0)
    request = drain_requests(world.tick())[0]
    home = tmp_path / "home"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        location = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(python_file="definitions.py"), location_name="shop"
        )
        repository = RemoteRepositoryOrigin(location, "__repository__")
        code = CodePointer.from_python_file("definitions.py", "defs", None)
        run = instance.create_run_for_job(
            world.defs.resolve_job_def(JOB),
            status=DagsterRunStatus.STARTED,
            tags={} if by_hand else request.tags,
            remote_job_origin=repository.get_job_origin(JOB),
            job_code_origin=JobPythonOrigin(JOB, RepositoryPythonOrigin("python", code)),
        )
        seconds = [0.0]
        told = drain_jobs.told_to_end(instance, run.run_id, world.clock, SENSOR, lambda: seconds[0])
        state = InstigatorState(
            repository.get_instigator_origin(SENSOR),
            InstigatorType.SENSOR,
            InstigatorStatus.RUNNING,
            SensorInstigatorData(min_interval=5),
        )
        instance.add_instigator_state(state)
        seconds[0] = 31.0
        assert not told()
        instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
        seconds[0] = 60.0
        assert not told(), "it asks every 30 seconds"
        seconds[0] = 62.0
        assert told() is not by_hand


def test_runs_that_fail_in_a_row_wait(world: World) -> None:
    request = drain_requests(world.tick())[0]
    for _ in range(3):
        run = started(world, request, **{FAILURE_TAG: "AccessDeniedError: no"})
        world.instance.report_run_failed(run)
    world.clock.advance(timedelta(seconds=35))
    tick = world.tick()
    assert [one.partition_key for one in drain_requests(tick)] == ["2-of-2"]
    assert "The last run of set 1-of-2 failed: AccessDeniedError: no" in str(
        tick.checks()[HEALTH].description
    )
    world.clock.advance(timedelta(seconds=31))
    assert len(drain_requests(world.tick())) == 2


def test_a_set_whose_runs_never_begin_stays_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster replaces each (`start_timeout_seconds`); the check passed while the next is new."""
    created: dict[str, datetime] = {}
    monkeypatch.setattr(
        drain_runs, "_created_at", lambda record: created[record.dagster_run.run_id]
    )
    first, second = drain_requests(world.tick())
    alive = started(world, first)
    stuck = never_begun(world, second)
    created |= dict.fromkeys((alive.run_id, stuck.run_id), world.clock.now)

    def later(seconds: int) -> Tick:
        world.clock.advance(timedelta(seconds=seconds))
        now = world.clock.now.isoformat()
        world.instance.add_run_tags(alive.run_id, {ALIVE_TAG: now, READ_TAG: now})
        return world.tick()

    health = later(180).checks()[HEALTH]
    assert "2-of-2 (its run was requested 3 min ago" in str(health.description)
    world.instance.report_run_failed(stuck, "start timeout")
    [again] = drain_requests(later(31))
    stuck = never_begun(world, again)
    created[stuck.run_id] = world.clock.now
    health = later(31).checks()[HEALTH]
    assert "2-of-2 (its run was requested" in str(health.description)
    assert not health.passed
    now = world.clock.now.isoformat()
    world.instance.add_run_tags(stuck.run_id, {ALIVE_TAG: now, READ_TAG: now})
    assert later(1).checks()[HEALTH].passed


def never_begun(world: World, request: RunRequest) -> DagsterRun:
    """Create the run of a request, as a launcher leaves it that lost its worker."""
    return world.instance.create_run_for_job(
        world.defs.resolve_job_def(JOB),
        status=DagsterRunStatus.STARTING,
        tags={**request.tags, "dagster/partition": request.partition_key or ""},
    )


def test_another_number_of_workers_ends_the_runs_of_the_former(
    world: World, make_world: MakeWorld
) -> None:
    runs = [started(world, one) for one in drain_requests(world.tick())]
    changed = taken_over(world, make_world, orders_of(3))
    requests = drain_requests(changed.tick())
    assert {one.partition_key for one in requests} <= {"1-of-3", "2-of-3", "3-of-3"}
    assert requests
    for run in runs:
        found = world.instance.get_run_by_id(run.run_id)
        assert found is not None
        assert END_TAG in found.tags


def taken_over(world: World, make_world: MakeWorld, transform: Transform) -> World:
    """Return the same stream, lakehouse and instance after a deployment."""
    stream, changed = world.stream, make_world(transform)
    changed.stream = stream
    ScriptedResource.streams = {"orders": stream}
    return changed


def test_back_to_ticks_the_runs_are_told_to_end_and_ticks_wait_for_them(
    world: World, make_world: MakeWorld
) -> None:
    runs = [started(world, one) for one in drain_requests(world.tick())]
    ticks = taken_over(world, make_world, orders_transform(source=SOURCE))
    world.stream.roll(0)
    child = world.stream.shard_ids()[-1]
    tick = ticks.tick()
    assert drain_requests(tick) == []
    assert all(END_TAG in one.tags for one in world.instance.get_runs())
    assert "GetRecords" not in world.stream.calls
    saved = CheckpointTable(world.layout, "orders").open()
    assert saved is not None
    assert child in {one.shard_id for one in saved.checkpoint.shards.values()}
    for run in runs:
        world.instance.report_run_failed(run, "ended")
    ticks.run_until_idle()
    assert len(ticks.rows()) == 20


def test_back_to_ticks_a_run_that_begins_late_is_told_to_end(
    world: World, make_world: MakeWorld
) -> None:
    """As where a tick of the former code, under way at the deployment, requests it."""
    requests = drain_requests(world.tick())
    runs = [started(world, one) for one in requests]
    ticks = taken_over(world, make_world, orders_transform(source=SOURCE))
    for run in runs:
        world.instance.report_run_failed(run, "ended")
    ticks.tick()
    late = started(world, requests[0])
    for _ in range(2):
        ticks.clock.advance(timedelta(seconds=31))
        ticks.tick()
    found = world.instance.get_run_by_id(late.run_id)
    assert found is not None
    assert END_TAG in found.tags


def test_back_to_ticks_a_dead_run_holds_nobody_up(world: World, make_world: MakeWorld) -> None:
    (run, *_) = [started(world, one) for one in drain_requests(world.tick())]
    ticks = taken_over(world, make_world, orders_transform(source=SOURCE))
    ticks.watch(timedelta(seconds=SILENCE_SECONDS))
    ticks.run_until_idle()
    assert len(ticks.rows()) == 20
    assert status_of(world, run) is DagsterRunStatus.FAILURE


def test_of_two_runs_of_a_set_the_older_one_is_told_to_end(world: World) -> None:
    """Also where somebody started them by hand: those have no tag of the sensor."""
    request = drain_requests(world.tick())[0]
    by_hand = RunRequest(partition_key=request.partition_key, tags={})
    older, newer = started(world, by_hand), started(world, by_hand)
    begins = started(world, request, **{ALIVE_TAG: ""})
    world.tick()
    told = {run.run_id for run in world.instance.get_runs() if END_TAG in run.tags}
    assert told == {older.run_id}
    assert begins.run_id != newer.run_id


def test_a_run_in_another_lakehouse_lands_nothing(world: World) -> None:
    request = drain_requests(world.tick())[0]
    tags = {**request.tags, ".dagster/datazone_batch": "99"}
    with pytest.raises(LakehouseMismatchError):
        world.run(JOB, tags=tags, partition=request.partition_key)


class _NewClient:
    """A client of its own for each call, as the real resource makes."""

    def __init__(self, stream: ScriptedStream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def clean_up_of(client: Any) -> float:
    return load_state(client, DrainSettings()).clean_up_at_seconds


def test_ticks_that_fail_do_not_put_off_the_deletion_of_replaced_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client after a failure is a new one: it may have other credentials or endpoints."""
    made: list[_NewClient] = []

    def new_client(_: ScriptedResource, table_name: str, **__: Any) -> _NewClient:
        made.append(_NewClient(ScriptedResource.streams[table_name]))
        return made[-1]

    monkeypatch.setattr(ScriptedResource, "stream_client", new_client)
    world.tick()
    due = clean_up_of(made[-1])
    world.stream.faults = FaultPlan([Fault("DescribeStream", FaultKind.THROTTLING, times=None)])
    for _ in range(3):
        with suppress(ThrottledError):
            world.tick()
    assert len(made) == 3
    assert clean_up_of(made[-1]) == due


@pytest.mark.parametrize("refused", ["DescribeStream", "ListStreams"])
def test_a_run_that_dies_while_listings_fail_is_replaced(world: World, refused: str) -> None:
    first, second = (started(world, one) for one in drain_requests(world.tick()))
    world.stream.faults = FaultPlan([Fault(refused, FaultKind.THROTTLING, times=None)])
    with pytest.raises(ThrottledError):  # nothing to request: the tick fails
        world.watch(timedelta(seconds=SILENCE_SECONDS))
    for _ in range(3):
        world.clock.advance(timedelta(seconds=12))
        world.instance.add_run_tags(second.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
        with suppress(ThrottledError):
            tick = world.tick()
    assert [one.partition_key for one in drain_requests(tick)] == ["1-of-2"]
    assert status_of(world, first) is DagsterRunStatus.FAILURE
    health = tick.checks()[HEALTH]
    assert "No run reads 1 of 2 sets: 1-of-2" in str(health.description)
    assert "Scripted: ThrottlingException" in str(health.description)


def test_a_run_compares_its_table_until_listings_work_and_never_again(world: World) -> None:
    world.tick()
    [one] = shard_sets(1)
    while not drain_tick(SOURCE, world.stream, world.layout, part=SetPart(one)).caught_up:
        pass
    calls = world.stream.calls
    before = calls["ListStreams"]
    world.stream.faults = FaultPlan([Fault("ListStreams", FaultKind.THROTTLING, times=2)])
    settings, clock = DrainSettings(), world.clock
    with build_op_context() as context:
        worker = drain_jobs.SetWorker(
            context, SOURCE, world.stream, world.layout, one, settings, 1.0, clock
        )
        after: list[int] = []

        def must_end() -> bool:  # true after each drain, so that nothing waits
            after.append(calls["ListStreams"] - before)
            return len(after) % 2 == 0 or len(after) > 10

        worker.drain(must_end)
    assert after[1::2][:5] == [1, 2, 3, 3, 3]


def test_no_run_is_requested_for_the_change_log_of_another_table(
    world: World, make_world: MakeWorld
) -> None:
    world.tick()
    other = world.stream = ScriptedStream("payments", shards=3)
    world = taken_over(world, make_world, orders_of(2))
    other.faults = FaultPlan([Fault("DescribeStream", FaultKind.THROTTLING, times=None)])
    with pytest.raises(SourceMismatchError):
        world.tick()


def test_a_set_behind_warns(world: World) -> None:
    for one in drain_requests(world.tick()):
        started(world, one)
    world.clock.advance(timedelta(minutes=3))
    for run in world.instance.get_runs():
        world.instance.add_run_tags(run.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    health = world.tick().checks()[HEALTH]
    assert "Behind the latest position: 1-of-2 by 3 min" in str(health.description)
    assert not health.passed or health.severity.value == Level.WARN.value


def test_a_set_that_was_never_read_to_its_end_warns_after_two_minutes(world: World) -> None:
    first, second = (started(world, one) for one in drain_requests(world.tick()))

    def alive(seconds: int) -> AssetCheckEvaluation:
        world.clock.advance(timedelta(seconds=seconds))
        now = world.clock.now.isoformat()
        world.instance.add_run_tags(first.run_id, {ALIVE_TAG: now, READ_TAG: now})
        world.instance.add_run_tags(second.run_id, {ALIVE_TAG: now, READ_TAG: ""})
        world.tick()
        found = world.latest(AssetCheckKey(AssetKey(["dynamodb", "orders"]), "stream_health"))
        assert found is not None
        return found

    assert alive(100).passed
    health = alive(30)
    assert health.severity.value == "WARN"
    text = str(health.description)
    assert (
        "Never read to the latest position by the present run: 2-of-2 (its run was requested 2 min"
        in text
    )
    assert "raise drain_workers" in text
    assert health.metadata["sets_behind"].value == 1


def test_a_new_run_of_a_set_that_was_behind_before_does_not_hide_it() -> None:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    begun = now - timedelta(seconds=5)
    state = SetState("1-of-2", 3, 7, has_run=True, read_at=None, run_since=begun)
    behind = replace(state, unread_since=now - timedelta(hours=3))
    idle = replace(state, unread_since=now - timedelta(minutes=11))
    assert sets_behind("orders", [behind], now).count == 1
    assert "its oldest unread change up to 3 h" in sets_behind("orders", [behind], now).text
    for fine in (state, idle, replace(behind, read_at=now), replace(behind, shards=0)):
        assert sets_behind("orders", [fine], now).count == 0


def test_arguments_of_a_source() -> None:
    for wrong in (None, 0, 33, True, "2"):
        with pytest.raises(DefinitionError, match="1 to 32"):
            DynamoDBSource("orders", drain="runs", drain_workers=wrong)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="drain='tick'"):
        DynamoDBSource("orders", drain_workers=2)
    with pytest.raises(DefinitionError, match="drain="):
        DynamoDBSource("orders", drain="often")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="stream_enabled"):
        DynamoDBSource("orders", stream_enabled=False, drain="runs", drain_workers=2)


def test_a_source_is_drained_by_its_sensor_unless_it_says_so(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("1")
    tick = world.tick()
    assert [one.job_name for one in tick.requests] == ["apply_orders"]
    assert JOB not in {one.name for one in world.defs.resolve_all_job_defs()}
