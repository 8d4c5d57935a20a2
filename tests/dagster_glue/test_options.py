"""Options of `build_definitions` for sensors, runs and ops."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AutomationCondition,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    EnvVar,
    RetryPolicy,
    in_process_executor,
    multiprocess_executor,
)

from datazone_dagster import Lakehouse, build_definitions
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import DynamoDBSource
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(
        default_status=DefaultSensorStatus.STOPPED,
        tick_seconds=30,
        min_run_interval=timedelta(minutes=5),
        run_tags={"team": "shop"},
        op_tags={"size": "small"},
        executor=multiprocess_executor,
        retry_policy=RetryPolicy(max_retries=2),
        automation_condition=AutomationCondition.on_cron("@daily"),
        on_check=print,
    )


def test_they_reach_sensors_jobs_and_ops(world: World) -> None:
    drain = world.defs.resolve_sensor_def("drain_orders")
    assert drain.minimum_interval_seconds == 30
    for name in ("drain_orders", "datazone_check_alerts"):
        assert world.defs.resolve_sensor_def(name).default_status is DefaultSensorStatus.STOPPED
    schedule = world.defs.resolve_schedule_def("datazone_maintenance")
    assert schedule.default_status is DefaultScheduleStatus.STOPPED
    job = world.defs.resolve_job_def("apply_orders")
    assert job.executor_def is multiprocess_executor
    [op] = job.all_node_defs
    assert op.tags["size"] == "small"
    assert getattr(op, "retry_policy", None) == RetryPolicy(max_retries=2)
    spec = world.defs.resolve_asset_graph().get(AssetKey("orders"))
    assert spec.automation_condition == AutomationCondition.on_cron("@daily")


def test_another_build_in_use_has_another_executor(make_world: MakeWorld) -> None:
    before = make_world()
    after = make_world(executor=multiprocess_executor)
    for world, executor in ((after, multiprocess_executor), (before, in_process_executor)):
        assert world.defs.resolve_job_def("apply_orders").executor_def is executor


def test_runs_have_the_tags_and_the_interval(world: World) -> None:
    world.put("a")
    [request] = world.tick().requests
    assert request.tags["team"] == "shop"
    world.run("apply_orders")
    world.put("b")
    tick = world.tick()
    assert not tick.requests
    assert "the next run of orders starts in" in (tick.skip or "")
    world.clock.advance(timedelta(minutes=5, seconds=30))
    assert world.tick().requests


def test_tags_of_a_transform_come_before_those_of_all(make_world: MakeWorld) -> None:
    tags = {"ecs/cpu": "2048", "team": "shop"}
    world = make_world(
        orders_transform("large", buckets=2, run_tags={"ecs/cpu": "4096"}),
        orders_transform("small"),
        run_tags=tags,
    )
    world.put("a")
    requests = world.tick().requests
    assert len(requests) == 3
    for request in requests:
        cpu = "4096" if request.job_name == "apply_large" else "2048"
        assert (request.tags["ecs/cpu"], request.tags["team"]) == (cpu, "shop")
    # So do runs that somebody starts as a job: of single buckets, for example.
    for name, cpu in (("apply_large", "4096"), ("apply_small", "2048")):
        assert world.defs.resolve_job_def(name).run_tags == {**tags, "ecs/cpu": cpu}


def test_runs_of_snapshots_have_the_tags(make_world: MakeWorld) -> None:
    source = DynamoDBSource("orders")
    world = make_world(orders_transform(source=source), run_tags={"ecs/cpu": "2048"})
    world.put("a")
    [request] = [one for one in world.tick().requests if one.job_name == "snapshot_orders"]
    assert request.tags["ecs/cpu"] == "2048"


@pytest.mark.parametrize(
    "option",
    [
        {"default_status": "running"},
        {"tick_seconds": 0},
        {"tick_seconds": 2.5},
        {"tick_seconds": True},
        {"min_run_interval": 5},
        {"min_run_interval": -timedelta(seconds=1)},
        {"run_tags": {"a": 1}},
        {"op_tags": ["a"]},
        {"executor": "in_process"},
        {"retry_policy": 3},
        {"automation_condition": "eager"},
        {"one_run_per_source": 1},
    ],
    ids=lambda option: "-".join(map(str, *option.items())),
)
def test_other_values_are_refused_by_name(make_world: MakeWorld, option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(option))):
        make_world(**option)


@pytest.mark.parametrize(
    ("uri", "seconds"),
    [
        ("s3://lake/orders", 15),
        (EnvVar("LAKE"), 15),
        (None, 15),
        ("/data/lake", 5),
        ("file:///data/lake", 5),
    ],
)
def test_the_time_between_two_drains_is_that_of_the_store(
    uri: str | None, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE", "s3://lake/by-variable")
    monkeypatch.setenv("DATAZONE_LAKEHOUSE_URI", "s3://lake/default")
    defs = build_definitions([orders_transform()], lakehouse=Lakehouse(uri=uri))
    assert defs.resolve_sensor_def("drain_orders").minimum_interval_seconds == seconds
