"""A dataset whose runs make way for a rebuild gets none before the swap or the end of the fence."""

from __future__ import annotations

from datetime import timedelta

import pytest
from dagster import DagsterRunStatus

from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dataset.swap_fence import fenced_until, raise_fence
from datazone_dagster.dataset.table_shape import KIND
from datazone_dagster.delta.table import Table, opened
from tests.dagster_glue.conftest import MakeWorld, World


def applied_once(world: World) -> Table:
    """Return the table of the dataset after its first run."""
    world.put("a")
    world.run_until_idle()
    table = opened(world.layout.dataset("orders"), world.layout.storage_options, KIND)
    assert table is not None
    return table


@pytest.mark.parametrize("one_run_per_source", [False, True])
def test_no_run_is_requested_while_a_rebuild_makes_runs_wait(
    make_world: MakeWorld, *, one_run_per_source: bool
) -> None:
    world = make_world(one_run_per_source=one_run_per_source)
    table, now = applied_once(world), world.clock()
    until = now + timedelta(minutes=5)
    raise_fence(table, "orders", "id of the rebuild", until, now)
    world.put("a", "shipped")
    world.clock.advance(timedelta(seconds=31))  # unchanged checks are due then
    tick = world.tick()
    assert not tick.requests
    at = f"{until:%Y-%m-%d %H:%M:%S} UTC"
    lag = tick.checks()["orders:lag"]
    for text in (str(tick.skip), str(lag.description)):
        assert f"orders waits, until {at} at most, for dataset orders: a rebuild is" in text
    assert lag.metadata["waits_until"].value == until.timestamp()
    world.clock.advance(timedelta(minutes=6))
    assert len(world.tick().requests) == 1


@pytest.mark.parametrize("one_run_per_source", [False, True])
def test_runs_go_on_as_soon_as_the_run_that_they_wait_for_is_over(
    make_world: MakeWorld, *, one_run_per_source: bool
) -> None:
    """A rebuild that was killed stopped its dataset for up to ten minutes."""
    world = make_world(one_run_per_source=one_run_per_source)
    table, now = applied_once(world), world.clock()
    job = world.defs.resolve_job_def("rebuild_orders")
    run = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    with heartbeats(world.instance, run.run_id, world.clock, rest_is_quick=True):
        raise_fence(table, "orders", "of a run", now + timedelta(minutes=9), now)
    raise_fence(table, "orders", "of a command", now + timedelta(minutes=2), now)
    world.put("a", "shipped")
    assert not world.tick().requests
    world.instance.report_run_failed(run)
    assert not world.tick().requests, "the command may be at work"
    table.refresh()
    assert fenced_until(table.at, "orders", now) == now + timedelta(minutes=2)
    world.clock.advance(timedelta(minutes=3))
    assert len(world.tick().requests) == 1
