"""The `audit` check of a source: a schedule compares its datasets with a sample of the table."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from dagster import AssetCheckEvaluation, AssetKey, DefaultScheduleStatus, Definitions
from deltalake import DeltaTable, write_deltalake

from datazone_dagster import build_definitions
from datazone_dagster.errors import AccessDeniedError
from datazone_dagster.pipeline import SnapshotSettings, read_dataset
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

JOB = "audit_orders"


def audited(make_world: MakeWorld, *names: str, **options: Any) -> World:
    return make_world(
        *(orders_transform(name) for name in names or ("orders",)),
        audit_cron="0 4 * * *",
        snapshot_settings=SnapshotSettings(run_waits_seconds=0),
        **options,
    )


def audit(world: World, *, succeeds: bool = True) -> AssetCheckEvaluation:
    result = world.run(JOB, raise_on_error=False)
    assert result.success is succeeds
    (found,) = result.get_asset_check_evaluations()
    assert (found.asset_key, found.check_name) == (AssetKey(["dynamodb", "orders"]), "audit")
    return found


def test_the_schedule_runs_a_check_that_passes(make_world: MakeWorld) -> None:
    world = audited(make_world, "orders", "others")
    schedule = world.defs.resolve_schedule_def(JOB)
    assert (schedule.cron_schedule, schedule.job_name) == ("0 4 * * *", JOB)
    assert schedule.default_status is DefaultScheduleStatus.RUNNING
    for number in range(3):
        world.put(f"k{number}")
    world.run_until_idle()
    found = audit(world)
    assert found.passed
    assert found.metadata["audit_items"].value == 6, "three items of each dataset"
    assert "orders: 3 items compared" in (found.description or "")
    assert "others: 3 items compared" in (found.description or "")


def test_runs_of_the_transform_do_not_audit(make_world: MakeWorld) -> None:
    world = audited(make_world)
    world.put("k1")
    world.run_until_idle()
    assert world.table.calls["Scan"] == 0


def test_differences_fail_and_alert(make_world: MakeWorld) -> None:
    heard: list[Any] = []
    world = audited(make_world, on_check=heard.append)
    for number in range(3):
        world.put(f"k{number}")
    world.run_until_idle()
    DeltaTable(world.layout.dataset("orders")).delete("id = 'k1'")
    found = audit(world)
    assert (found.passed, found.severity.value) == (False, "WARN"), "undecided: the drain is slow"
    row = read_dataset(world.layout, "orders").slice(0, 1)
    at = row.column_names.index("_dz_key")
    unkeyed = row.set_column(at, "_dz_key", pa.array([None], pa.string()))
    write_deltalake(world.layout.dataset("orders"), unkeyed, mode="append")
    found = audit(world)
    assert (found.passed, found.severity.value) == (False, "ERROR"), "it needs no drain"
    assert found.metadata["audit_extra"].value == 1
    world.tick("datazone_check_alerts")
    assert [one.check for one in heard if one.check == "audit"] == ["audit"]


def test_an_audit_that_fails_says_so(make_world: MakeWorld) -> None:
    world = audited(make_world)

    def fail(operation: str, number: int) -> None:
        raise AccessDeniedError("No dynamodb:Scan on orders.")

    world.put("k1")
    world.run_until_idle()
    world.table.fault = fail
    found = audit(world, succeeds=False)
    assert (found.passed, found.severity.value) == (False, "WARN")
    assert "could not be made: No dynamodb:Scan" in (found.description or "")


def test_calls_that_are_merged_share_one_audit(make_world: MakeWorld) -> None:
    world = audited(make_world, "orders")
    others = build_definitions(
        [orders_transform("others")],
        lakehouse=(world.defs.resources or {})["datazone_lakehouse"],
        dynamodb=(world.defs.resources or {})["datazone_dynamodb"],
        audit_cron="0 4 * * *",
        snapshot_settings=SnapshotSettings(run_waits_seconds=0),
        clock=world.clock,
    )
    world.defs = Definitions.merge(world.defs, others)
    world.put("k1")
    world.run_until_idle()
    assert audit(world).metadata["audit_items"].value == 2


def test_there_is_none_by_default(make_world: MakeWorld) -> None:
    world = make_world(orders_transform())
    with pytest.raises(Exception, match=JOB):
        world.defs.resolve_job_def(JOB)
