"""Runs that were launched and never begin are replaced, also where Dagster does not see to it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from datazone_dagster.dagster_glue.runs.stuck_starts import LONGEST_START, STARTS_WITHIN
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform
from tests.dagster_glue.test_drain_runs import JOB, drain_requests, orders_of
from tests.dagster_glue.test_heartbeat import status

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["apply_orders", JOB])
def world(make_world: MakeWorld, request: pytest.FixtureRequest) -> World:
    made = make_world(orders_of(1) if request.param == JOB else orders_transform())
    made.clock.now = datetime.now(timezone.utc)
    made.put("a")
    return made


def launched(world: World, status: DagsterRunStatus = DagsterRunStatus.STARTING) -> DagsterRun:
    """Create the run that the next tick requests, as a launcher that lost its worker leaves it."""
    [request] = world.tick().requests
    assert request.job_name is not None
    tags = dict(request.tags)
    if request.partition_key:
        tags["dagster/partition"] = request.partition_key
    job = world.defs.resolve_job_def(request.job_name)
    return world.instance.create_run_for_job(job, status=status, tags=tags)


def watch(world: World, duration: timedelta) -> None:
    """Let time pass with a tick every 50 seconds, as rarely as counts in full."""
    ends = world.clock.now + duration
    while world.clock.now < ends:
        world.tick()
        world.clock.advance(min(timedelta(seconds=50), ends - world.clock.now))
    world.tick()


@pytest.mark.parametrize("at", [DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED])
def test_a_run_that_does_not_begin_is_replaced(world: World, at: DagsterRunStatus) -> None:
    run = launched(world, at)
    watch(world, STARTS_WITHIN - MINUTE)
    assert world.tick().requests == []
    assert status(world, run) is at
    watch(world, 3 * MINUTE)
    assert status(world, run) is DagsterRunStatus.FAILURE


def test_the_next_one_has_more_time(world: World) -> None:
    """A pod that waits for its node for a quarter of an hour would never begin."""
    first = launched(world)
    watch(world, STARTS_WITHIN + 2 * MINUTE)
    assert status(world, first) is DagsterRunStatus.FAILURE
    second = launched(world)
    watch(world, STARTS_WITHIN + 2 * MINUTE)
    assert status(world, second) is DagsterRunStatus.STARTING
    watch(world, STARTS_WITHIN)
    assert status(world, second) is DagsterRunStatus.FAILURE


def test_a_clock_that_jumps_ends_no_run(world: World) -> None:
    run = launched(world)
    world.clock.advance(LONGEST_START)
    world.tick()
    assert status(world, run) is DagsterRunStatus.STARTING


def test_where_dagster_monitors_runs_its_own_timeout_counts(world: World, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    overrides = {"run_monitoring": {"enabled": True}}
    with DagsterInstance.local_temp(str(tmp_path / "home"), overrides=overrides) as instance:
        world.instance = instance
        run = launched(world)
        watch(world, STARTS_WITHIN + 2 * MINUTE)
        assert status(world, run) is DagsterRunStatus.STARTING
        assert drain_requests(world.tick()) == []
