"""Runs whose process is gone without Dagster noticing: the drain sensor ends them."""

from __future__ import annotations

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
)
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX

from datazone_dagster.dagster_glue import heartbeat
from datazone_dagster.dagster_glue.heartbeat import SILENCE_SECONDS, heartbeats
from datazone_dagster.dagster_glue.names import ALIVE_TAG
from datazone_dagster.testing import FixedClock
from tests.dagster_glue.conftest import World

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
    world.tick()
    assert status(world, run) is DagsterRunStatus.FAILURE
    messages = [
        one.dagster_event.message
        for one in world.instance.all_logs(run.run_id)
        if one.dagster_event
    ]
    assert any("has sent no heartbeat since" in (text or "") for text in messages), messages
    # The wait after a failure has passed.
    world.clock.now = datetime.now(timezone.utc) + timedelta(minutes=1)
    assert world.tick().requests


def test_a_run_that_died_before_its_first_heartbeat_is_ended(world: World) -> None:
    run = world.instance.create_run_for_job(world.defs.resolve_job_def("apply_orders"))
    start = DagsterEvent(DagsterEventType.PIPELINE_START.value, job_name="apply_orders")
    world.instance.report_dagster_event(start, run.run_id)
    for passed, expected in (
        (SILENCE / 2, DagsterRunStatus.STARTED),
        (SILENCE, DagsterRunStatus.FAILURE),
    ):
        world.clock.advance(passed)
        world.tick()
        assert status(world, run) is expected


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
    assert (sent[-1] == "") is not rest_is_quick
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
