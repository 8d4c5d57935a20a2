"""An asset downstream of a dataset follows while a run of the dataset goes on."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AutomationCondition,
    DagsterRunStatus,
    Definitions,
    asset,
    evaluate_automation_conditions,
)

from datazone_dagster import on_applied
from datazone_dagster.errors import DefinitionError
from tests.dagster_glue.conftest import MakeWorld, World

NOON = datetime(2026, 11, 28, 12, 1, tzinfo=timezone.utc)


def with_report(make_world: MakeWorld, condition: AutomationCondition[Any]) -> World:
    """A dataset with rows, an asset downstream, and a run of the dataset that goes on."""

    @asset(deps=[AssetKey("orders")], automation_condition=condition)
    def report() -> None: ...

    world = make_world(extra=Definitions(assets=[report]))
    world.put("a")
    world.run_until_idle()
    return world


def run_in_progress(world: World) -> None:
    """Materialize the dataset once more, while another run of it is in progress."""
    job = world.defs.resolve_job_def("apply_orders")
    run = world.instance.create_run_for_job(
        job, status=DagsterRunStatus.STARTED, asset_selection=frozenset({AssetKey("orders")})
    )
    world.put("b")
    world.tick()
    world.run("apply_orders")
    assert world.instance.get_run_by_id(run.run_id)


def requested(world: World, at: datetime, cursor: Any = None) -> Any:
    return evaluate_automation_conditions(
        world.defs, world.instance, cursor=cursor, evaluation_time=at
    )


def test_it_does_not_wait_for_the_run_to_end(make_world: MakeWorld) -> None:
    world = with_report(make_world, on_applied())
    idle = requested(world, NOON, requested(world, NOON).cursor)
    assert idle.get_num_requested(AssetKey("report")) == 0
    run_in_progress(world)
    assert requested(world, NOON, idle.cursor).get_num_requested(AssetKey("report")) == 1


def test_it_waits_between_two_materializations(make_world: MakeWorld) -> None:
    world = with_report(make_world, on_applied(every=timedelta(minutes=15)))
    now = requested(world, NOON)
    for minute, count in ((2, 0), (14, 0), (15, 1), (16, 0), (31, 0)):
        if minute == 2:
            run_in_progress(world)
        now = requested(world, NOON.replace(minute=minute), now.cursor)
        assert now.get_num_requested(AssetKey("report")) == count, minute


@pytest.mark.parametrize(
    "every", [timedelta(minutes=7), timedelta(seconds=90), timedelta(0), timedelta(hours=5)]
)
def test_other_times_are_refused(every: timedelta) -> None:
    with pytest.raises(DefinitionError, match="whole part"):
        on_applied(every)
