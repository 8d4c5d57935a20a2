"""Runs whose process is gone without Dagster noticing: the drain sensor ends them."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    multiprocess_executor,
)
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX

from datazone_dagster.dagster_glue import heartbeat
from datazone_dagster.dagster_glue.heartbeat import (
    FIRST_HEARTBEAT_SECONDS,
    SILENCE_SECONDS,
    heartbeats,
)
from datazone_dagster.dagster_glue.names import ALIVE_TAG
from datazone_dagster.dagster_glue.options import REMOTE_TICK_SECONDS
from datazone_dagster.testing import FixedClock
from tests.dagster_glue.conftest import MakeWorld, World

SILENCE = timedelta(seconds=SILENCE_SECONDS)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def started_run(world: World, job_name: str, alive_at: datetime | None) -> DagsterRun:
    """Create a started run, as a process that died leaves it."""
    return world.instance.create_run_for_job(
        world.defs.resolve_job_def(job_name),
        status=DagsterRunStatus.STARTED,
        tags={} if alive_at is None else {ALIVE_TAG: alive_at.isoformat()},
    )


def status(world: World, run: DagsterRun) -> DagsterRunStatus:
    found = world.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_silent_run_is_ended_and_another_one_requested(world: World) -> None:
    world.put("a")
    run = started_run(world, "apply_orders", world.clock.now)
    world.clock.advance(SILENCE - timedelta(seconds=1))
    assert "apply_orders is running or queued" in (world.tick().skip or "")
    assert status(world, run) is DagsterRunStatus.STARTED

    world.clock.advance(timedelta(seconds=1))
    tick = world.tick()
    assert status(world, run) is DagsterRunStatus.FAILURE
    # The silence was wait enough: the next run is requested by the tick that has ended this one.
    assert [one.job_name for one in tick.requests] == ["apply_orders"]
    messages = [
        one.dagster_event.message
        for one in world.instance.all_logs(run.run_id)
        if one.dagster_event
    ]
    assert any("has sent no heartbeat since" in (text or "") for text in messages), messages


def test_another_run_is_at_work_within_a_minute_of_a_death() -> None:
    """In an object store, where a tick comes each 15 seconds, with 8 for the start of a process."""
    assert SILENCE_SECONDS + REMOTE_TICK_SECONDS + 8 < 60
    assert 3 * heartbeat.HEARTBEAT_SECONDS < SILENCE_SECONDS


def test_a_run_that_died_before_its_first_heartbeat_is_ended(world: World) -> None:
    run = world.instance.create_run_for_job(world.defs.resolve_job_def("apply_orders"))
    start = DagsterEvent(DagsterEventType.PIPELINE_START.value, job_name="apply_orders")
    world.instance.report_dagster_event(start, run.run_id)
    for seconds, expected in (
        (FIRST_HEARTBEAT_SECONDS - 10, DagsterRunStatus.STARTED),
        (20, DagsterRunStatus.FAILURE),
    ):
        world.clock.advance(timedelta(seconds=seconds))
        world.tick()
        assert status(world, run) is expected


def run_that_waits(world: World) -> DagsterRun:
    """Start a run whose executor has handed its step to somebody who has not begun with it."""
    run = world.instance.create_run_for_job(world.defs.resolve_job_def("apply_orders"))
    start = DagsterEvent(DagsterEventType.PIPELINE_START.value, job_name="apply_orders")
    world.instance.report_dagster_event(start, run.run_id)
    return run


def test_a_step_that_waits_for_a_worker_has_time(make_world: MakeWorld) -> None:
    world = make_world(executor=multiprocess_executor)
    world.clock.now = datetime.now(timezone.utc)
    run = run_that_waits(world)
    for seconds, expected in (
        (FIRST_HEARTBEAT_SECONDS - 10, DagsterRunStatus.STARTED),
        (20, DagsterRunStatus.FAILURE),
    ):
        world.clock.advance(timedelta(seconds=seconds))
        world.tick()
        assert status(world, run) is expected


def test_a_step_that_later_ones_have_overtaken_is_lost(make_world: MakeWorld) -> None:
    world = make_world(executor=multiprocess_executor)
    world.clock.now = datetime.now(timezone.utc)
    before, lost = started_run(world, "apply_orders", world.clock.now), run_that_waits(world)
    world.clock.advance(SILENCE + timedelta(seconds=5))
    world.instance.add_run_tags(before.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    world.tick()
    assert status(world, lost) is DagsterRunStatus.STARTED  # it may wait for the one before it
    later = started_run(world, "apply_orders", world.clock.now)
    world.tick()
    assert status(world, lost) is DagsterRunStatus.FAILURE
    assert status(world, later) is DagsterRunStatus.STARTED


def test_a_process_that_waits_for_a_lost_step_ends_with_its_run(make_world: MakeWorld) -> None:
    world = make_world(executor=multiprocess_executor)
    silent, alive = (started_run(world, "apply_orders", world.clock.now) for _ in range(2))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=time.sleep, args=(300,)) for _ in range(2)]
    try:
        for run, process in zip((silent, alive), processes, strict=True):
            process.start()
            assert process.pid is not None
            started = EngineEventData.in_process(process.pid)
            world.instance.report_engine_event("Started process for run.", run, started)
        world.clock.advance(SILENCE)
        world.instance.add_run_tags(alive.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
        world.tick()
        processes[0].join(30)
        assert [one.is_alive() for one in processes] == [False, True]
    finally:
        for process in processes:
            process.kill()


def test_a_dead_run_of_another_job_does_not_block_the_pool_for_ever(world: World) -> None:
    maintenance = started_run(world, "datazone_maintenance", world.clock.now)
    waiting = world.instance.create_run_for_job(
        world.defs.resolve_job_def("apply_orders"), status=DagsterRunStatus.NOT_STARTED
    )
    world.clock.advance(SILENCE)
    world.tick()
    assert status(world, maintenance) is DagsterRunStatus.FAILURE
    assert status(world, waiting) is DagsterRunStatus.NOT_STARTED


@pytest.mark.parametrize("tags", [{}, {ALIVE_TAG: ""}])
def test_a_run_of_another_job_without_heartbeats_is_not_ended(
    world: World, tags: dict[str, str]
) -> None:
    world.put("a")
    other = world.instance.create_run_for_job(
        world.defs.resolve_job_def("datazone_maintenance"),
        status=DagsterRunStatus.STARTED,
        tags=tags,
    )
    started_run(world, "apply_orders", None)
    world.clock.advance(10 * SILENCE)
    world.tick()
    assert status(world, other) is DagsterRunStatus.STARTED


def test_a_run_sends_heartbeats_while_it_applies(world: World) -> None:
    world.put("a")
    world.tick()
    result = world.run("apply_orders")
    run = world.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[ALIVE_TAG] == world.clock.now.isoformat()


@pytest.mark.parametrize("rest_is_quick", [True, False])
def test_heartbeats_go_on_and_end_with_the_block(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, rest_is_quick: bool
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.01)
    sent: list[str] = []
    four_sent = threading.Event()

    def add_run_tags(run_id: str, tags: dict[str, str]) -> None:
        sent.append(tags[ALIVE_TAG])
        if len(sent) == 2:
            raise OSError("the database is down")
        if len(sent) == 4:
            four_sent.set()

    monkeypatch.setattr(instance, "add_run_tags", add_run_tags)
    clock = FixedClock()
    with heartbeats(instance, "run", clock, rest_is_quick=rest_is_quick):
        assert four_sent.wait(30), "a failed heartbeat was the last one"
    assert sent[:4] == [clock.now.isoformat()] * 4
    assert (sent[-1] == "") is not rest_is_quick  # what follows has the full time, or all time
    assert "datazone-heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_run_of_an_earlier_version_is_judged_by_its_own_tag(world: World) -> None:
    def run(alive_at: str) -> DagsterRun:
        return world.instance.create_run_for_job(
            world.defs.resolve_job_def("apply_orders"),
            status=DagsterRunStatus.STARTED,
            tags={"datazone/alive_at": alive_at},
        )

    alive, silent = run((world.clock.now + SILENCE).isoformat()), run(world.clock.now.isoformat())
    world.clock.advance(SILENCE)
    world.tick()
    assert status(world, alive) is DagsterRunStatus.STARTED
    assert status(world, silent) is DagsterRunStatus.FAILURE


def test_pages_show_what_a_reader_understands(world: World) -> None:
    world.put("a")
    [request] = world.tick().requests
    run = world.instance.get_run_by_id(world.run("apply_orders").run_id)
    assert run is not None
    assert ALIVE_TAG in run.tags
    tags = {**request.tags, **run.tags}
    ours = {key: one for key, one in tags.items() if "datazone" in key}
    assert len(ours) == 5
    shown = {key: one for key, one in ours.items() if not key.startswith(HIDDEN_TAG_PREFIX)}
    assert shown == {"datazone/source": "orders"}
