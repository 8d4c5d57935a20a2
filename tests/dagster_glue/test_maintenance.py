"""Maintenance in Dagster: in a run after its merge, and by a schedule in quiet hours."""

from __future__ import annotations

from datetime import timedelta

import pytest
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterRunStatus,
    DefaultScheduleStatus,
    Definitions,
    EventRecordsFilter,
    RunsFilter,
    job,
    op,
)
from deltalake import DeltaTable

from datazone_dagster.dagster_glue.runs import old_runs
from datazone_dagster.errors import DefinitionError
from datazone_dagster.pipeline import ApplySettings
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

NEVER = MaintenanceSettings(join_files=99, checkpoint_commits=999)


orders = orders_transform(mode="append")


def apply_puts(world: World, times: int) -> None:
    for number in range(times):
        world.put(f"k{number}")
        world.run_until_idle()


def test_a_run_maintains_its_tables(make_world: MakeWorld) -> None:
    eager = MaintenanceSettings(join_files=3, checkpoint_commits=999)
    world = make_world(orders, apply_settings=ApplySettings(maintenance=eager))
    apply_puts(world, 3)
    event = world.instance.get_latest_materialization_event(AssetKey("orders"))
    assert event is not None
    assert event.asset_materialization is not None
    shown = {key: value.value for key, value in event.asset_materialization.metadata.items()}
    assert shown["maintenance"] == "joined 3 files"
    assert shown["files"] == 1
    assert shown["hidden_share"] == 0.0  # nothing hides rows of an append table
    assert isinstance(shown["bytes"], int)
    assert shown["bytes"] > 0
    assert world.rows() == {f"k{number}": "placed" for number in range(3)}


def test_quiet_hours(make_world: MakeWorld) -> None:
    world = make_world(orders, apply_settings=ApplySettings(maintenance=NEVER))
    schedule = world.defs.resolve_schedule_def("datazone_maintenance")
    assert schedule.cron_schedule == "0 3 * * *"
    assert schedule.default_status == DefaultScheduleStatus.RUNNING
    assert world.run("datazone_maintenance").success  # no table yet
    apply_puts(world, 3)
    before = world.rows()
    uri = world.layout.dataset("orders")
    assert len(DeltaTable(uri).file_uris()) == 3
    assert world.run("datazone_maintenance").success
    assert len(DeltaTable(uri).file_uris()) == 1
    assert world.rows() == before
    (record,) = world.instance.get_event_records(
        EventRecordsFilter(DagsterEventType.ASSET_OBSERVATION, AssetKey("orders"))
    )
    observed = record.event_log_entry.asset_observation
    assert observed is not None
    assert str(observed.metadata["maintenance"].value).startswith("joined 3 files")


def test_each_op_waits_for_the_pool_of_its_transform(make_world: MakeWorld) -> None:
    world = make_world(orders)
    nodes = world.defs.resolve_job_def("datazone_maintenance").all_node_defs
    pools = {node.name: getattr(node, "pool", None) for node in nodes}
    assert pools == {
        "maintain_orders": "datazone/apply_orders",
        "maintain_asset_tables": None,
        "remove_old_runs": None,
    }


def test_the_schedule_can_be_left_out(make_world: MakeWorld) -> None:
    world = make_world(orders, maintenance_cron=None)
    with pytest.raises(Exception, match="datazone_maintenance"):
        world.defs.resolve_schedule_def("datazone_maintenance")


def test_old_successful_runs_are_removed_but_the_newest(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_runs, "NEWEST_RUNS_KEPT", 2)
    others = Definitions(jobs=[others_job])
    world = make_world(orders, extra=others, keep_runs=timedelta(days=7))
    for name in ["apply_orders"] * 5 + ["others"] * 4:
        world.run(name)
    applies = world.defs.resolve_job_def("apply_orders")
    failed = world.instance.create_run_for_job(applies, status=DagsterRunStatus.FAILURE)

    world.run("datazone_maintenance")
    assert runs_of(world, "apply_orders") == 6  # none is old

    newest = [one.run_id for one in world.instance.get_runs(RunsFilter(job_name="apply_orders"))]
    world.clock.advance(timedelta(days=8))
    world.run("datazone_maintenance")
    left = {one.run_id for one in world.instance.get_runs(RunsFilter(job_name="apply_orders"))}
    assert left == {failed.run_id, *newest[1:3]}
    assert runs_of(world, "others") == 4


def runs_of(world: World, job: str) -> int:
    return world.instance.get_runs_count(RunsFilter(job_name=job))


@op
def nothing() -> None: ...


@job(name="others")
def others_job() -> None:
    nothing()


@pytest.mark.parametrize("keep", [timedelta(0), -timedelta(days=1), 7])
def test_a_time_that_would_remove_everything_is_refused(
    make_world: MakeWorld, keep: object
) -> None:
    with pytest.raises(DefinitionError, match="keep_runs"):
        make_world(orders, keep_runs=keep)
