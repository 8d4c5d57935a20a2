"""Runs whose process is gone without Dagster noticing: the drain sensor ends them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunRecord,
    multiprocess_executor,
)
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX

from datazone_dagster.dagster_glue.names import ALIVE_TAG
from datazone_dagster.dagster_glue.options import LOCAL_TICK_SECONDS, REMOTE_TICK_SECONDS
from datazone_dagster.dagster_glue.runs import heartbeat
from datazone_dagster.dagster_glue.runs.heartbeat import (
    FIRST_HEARTBEAT_SECONDS,
    HEARTBEAT_SECONDS,
    OTHER_SILENCE_SECONDS,
    OVERTAKEN_SECONDS,
    SILENCE_SECONDS,
    heartbeats,
)
from datazone_dagster.dagster_glue.runs.run_requests import died_at
from datazone_dagster.dagster_glue.runs.silence import SilenceWatch
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
    world.watch(SILENCE - timedelta(seconds=1))
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
    seen = SILENCE_SECONDS - heartbeat.HEARTBEAT_SECONDS  # after the tick that sees the last one
    ticks = 1 + math.ceil(seen / min(REMOTE_TICK_SECONDS, seen / 2))
    assert max(SILENCE_SECONDS, ticks * REMOTE_TICK_SECONDS) + 8 < 60
    assert SILENCE_SECONDS + REMOTE_TICK_SECONDS + 8 < 60
    assert 3 * heartbeat.HEARTBEAT_SECONDS < SILENCE_SECONDS
    # Next to the lakehouse, on a machine so busy that a process takes half a minute to start.
    assert SILENCE_SECONDS + 2 * LOCAL_TICK_SECONDS + 30 <= 60
    # Up to a heartbeat before a pause of everything, half of the time for it, one sent again.
    assert heartbeat.HEARTBEAT_SECONDS + seen / 2 + heartbeat.AGAIN_SECONDS < seen


def test_a_pause_of_everything_ends_no_run(world: World) -> None:
    """The machine was suspended, or the database stood still, before the next heartbeat."""
    run = started_run(world, "apply_orders", world.clock.now)
    world.watch(timedelta(seconds=heartbeat.HEARTBEAT_SECONDS - 1))
    world.tick()
    world.clock.advance(timedelta(minutes=10))
    for _ in range(3):
        world.tick()
        world.clock.advance(timedelta(seconds=1))
    assert status(world, run) is DagsterRunStatus.STARTED
    world.watch(SILENCE)
    world.tick()
    assert status(world, run) is DagsterRunStatus.FAILURE


@pytest.mark.parametrize("behind", [timedelta(minutes=10), timedelta(minutes=-10)])
def test_clocks_of_runs_may_differ(world: World, behind: timedelta) -> None:
    run = started_run(world, "apply_orders", world.clock.now - behind)
    for _ in range(10):
        world.watch(timedelta(seconds=10))
        beat = (world.clock.now - behind).isoformat()
        world.instance.add_run_tags(run.run_id, {ALIVE_TAG: beat})
    assert status(world, run) is DagsterRunStatus.STARTED
    world.watch(2 * SILENCE)  # a gap of twelve seconds counts for less
    world.tick()
    assert status(world, run) is DagsterRunStatus.FAILURE


def test_silence_is_counted_from_the_first_look_of_the_process() -> None:
    watch, now = SilenceWatch(), FixedClock().now

    def look(heartbeat: str | None, seconds: float, longest: float = 12.5) -> float:
        return watch.look("run", heartbeat, now + timedelta(seconds=seconds), longest)

    assert [look("a", 0), look("a", 10), look("a", 20)] == [0, 10, 20]
    assert look("a", 15) == 20  # our clock was set back: nothing is added or lost
    assert look("a", 100) == 32.5  # nobody looked
    assert look("a", 100, longest=55) == 0  # another sensor allows longer gaps
    assert look("b", 101) == 0
    assert look("b", 3600 * 2, longest=55) == 0
    assert look("b", 3600 * 2) == 0  # forgotten


def test_a_run_that_died_before_its_first_heartbeat_is_ended(world: World) -> None:
    run = world.instance.create_run_for_job(world.defs.resolve_job_def("apply_orders"))
    start = DagsterEvent(DagsterEventType.PIPELINE_START.value, job_name="apply_orders")
    world.instance.report_dagster_event(start, run.run_id)
    for seconds, expected in (
        (FIRST_HEARTBEAT_SECONDS - 10, DagsterRunStatus.STARTED),
        (20, DagsterRunStatus.FAILURE),
    ):
        world.watch(timedelta(seconds=seconds))
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
        world.watch(timedelta(seconds=seconds))
        world.tick()
        assert status(world, run) is expected


def test_a_step_that_later_ones_have_overtaken_is_lost(make_world: MakeWorld) -> None:
    world = make_world(executor=multiprocess_executor.configured({}, name="celery"))
    world.clock.now = datetime.now(timezone.utc)
    before, lost = started_run(world, "apply_orders", world.clock.now), run_that_waits(world)
    world.watch(SILENCE - timedelta(seconds=5))
    world.instance.add_run_tags(before.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    world.watch(timedelta(seconds=10))
    world.tick()
    assert status(world, lost) is DagsterRunStatus.STARTED  # it may wait for the one before it
    later = started_run(world, "apply_orders", world.clock.now)
    for _ in range(3):
        world.watch(timedelta(seconds=OVERTAKEN_SECONDS / 3))
        world.instance.add_run_tags(later.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    world.tick()
    assert status(world, lost) is DagsterRunStatus.FAILURE
    assert status(world, later) is DagsterRunStatus.STARTED


def test_a_step_that_was_overtaken_late_has_waited_already(make_world: MakeWorld) -> None:
    """With runs that stay, a later one begins only when one of them has made room."""
    world = make_world(executor=multiprocess_executor.configured({}, name="celery"))
    world.put("a")
    world.clock.now = datetime.now(timezone.utc)
    lost = run_that_waits(world)
    world.watch(timedelta(seconds=OVERTAKEN_SECONDS + HEARTBEAT_SECONDS))
    world.tick()
    assert status(world, lost) is DagsterRunStatus.STARTED
    started_run(world, "apply_orders", world.clock.now)
    world.tick()
    assert status(world, lost) is DagsterRunStatus.FAILURE


def test_nobody_waits_again_after_a_step_that_never_began() -> None:
    """It was silent from its start on; another run is requested as soon as that is noticed."""
    started = datetime(2026, 3, 1, tzinfo=timezone.utc)
    ended = started + timedelta(seconds=FIRST_HEARTBEAT_SECONDS)
    times = (started.timestamp(), ended.timestamp())
    lost = RunRecord(1, DagsterRun("apply_orders"), started, ended, *times)
    assert died_at(lost) == started
    never_started = RunRecord(1, DagsterRun("apply_orders"), started, ended, None, times[1])
    assert died_at(never_started) == ended


def test_a_late_process_without_a_broker_is_not_overtaken(make_world: MakeWorld) -> None:
    world = make_world(executor=multiprocess_executor)
    world.clock.now = datetime.now(timezone.utc)
    late = run_that_waits(world)
    started_run(world, "apply_orders", world.clock.now)
    world.watch(SILENCE + timedelta(seconds=30))
    world.tick()
    assert status(world, late) is DagsterRunStatus.STARTED


def test_a_dead_run_of_another_job_does_not_block_the_pool_for_ever(world: World) -> None:
    maintenance = started_run(world, "datazone_maintenance", world.clock.now)
    waiting = world.instance.create_run_for_job(
        world.defs.resolve_job_def("apply_orders"), status=DagsterRunStatus.NOT_STARTED
    )
    world.watch(timedelta(seconds=OTHER_SILENCE_SECONDS - 1))  # it would go on if taken for dead
    world.tick()
    assert status(world, maintenance) is DagsterRunStatus.STARTED
    world.clock.advance(timedelta(seconds=1))
    world.tick()
    assert status(world, maintenance) is DagsterRunStatus.FAILURE
    assert status(world, waiting) is DagsterRunStatus.NOT_STARTED


def test_every_run_of_its_jobs_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_NEWEST_RUNS", 1)
    run = started_run(world, "apply_orders", world.clock.now)
    started_run(world, "datazone_maintenance", world.clock.now)
    world.watch(SILENCE)
    world.tick()
    assert status(world, run) is DagsterRunStatus.FAILURE


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
    world.watch(10 * SILENCE)
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


@pytest.mark.parametrize("rest_is_quick", [True, False])
def test_a_storage_that_is_down_ends_no_run(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, rest_is_quick: bool
) -> None:
    refused: list[str] = []

    def add_run_tags(run_id: str, tags: dict[str, str]) -> None:
        refused.append(tags[ALIVE_TAG])
        raise OSError("the database is down")

    monkeypatch.setattr(instance, "add_run_tags", add_run_tags)
    with heartbeats(instance, "run", FixedClock(), rest_is_quick=rest_is_quick):
        pass
    assert len(refused) == 2


def test_a_heartbeat_has_the_time_after_the_further_tags(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, sent = FixedClock(), list[dict[str, str]]()

    def slow_tags() -> dict[str, str]:
        clock.advance(timedelta(seconds=30))
        return {"more": "1"}

    monkeypatch.setattr(instance, "add_run_tags", lambda _, tags: sent.append(tags))
    with heartbeats(instance, "run", clock, rest_is_quick=True, tags=slow_tags):
        assert sent == [{"more": "1", ALIVE_TAG: clock.now.isoformat()}]


def test_a_run_of_an_earlier_version_is_judged_by_its_own_tag(world: World) -> None:
    def run(alive_at: str) -> DagsterRun:
        return world.instance.create_run_for_job(
            world.defs.resolve_job_def("apply_orders"),
            status=DagsterRunStatus.STARTED,
            tags={"datazone/alive_at": alive_at},
        )

    alive, silent = (run(world.clock.now.isoformat()) for _ in range(2))
    world.watch(SILENCE)
    world.instance.add_run_tags(alive.run_id, {"datazone/alive_at": world.clock.now.isoformat()})
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
