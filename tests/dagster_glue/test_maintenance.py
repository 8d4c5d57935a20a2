"""Maintenance in Dagster: in a run after its merge, and by a schedule in quiet hours."""

from __future__ import annotations

import pytest
from dagster import AssetKey, DagsterEventType, DefaultScheduleStatus, EventRecordsFilter
from deltalake import DeltaTable

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
    eager = MaintenanceSettings(join_files=3)
    world = make_world(orders, apply_settings=ApplySettings(maintenance=eager))
    apply_puts(world, 3)
    event = world.instance.get_latest_materialization_event(AssetKey("orders"))
    assert event is not None
    assert event.asset_materialization is not None
    shown = {key: value.value for key, value in event.asset_materialization.metadata.items()}
    assert shown["maintenance"] == "joined 3 files"
    assert (shown["files"], shown["hidden_share"]) == (1, 0.0)
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
    (op,) = world.defs.resolve_job_def("datazone_maintenance").all_node_defs
    assert getattr(op, "pool", None) == "datazone/apply_orders"


def test_the_schedule_can_be_left_out(make_world: MakeWorld) -> None:
    world = make_world(orders, maintenance_cron=None)
    with pytest.raises(Exception, match="datazone_maintenance"):
        world.defs.resolve_schedule_def("datazone_maintenance")
