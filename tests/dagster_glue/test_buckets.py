"""Datasets with buckets in Dagster: a static partition for each, and a run per partition."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster import (
    AssetIn,
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    RunsFilter,
    asset,
)

from datazone_dagster.dagster_glue.names import (
    END_TAG,
    FAILURE_TAG,
    IO_MANAGER_KEY,
    SOURCE_TAG,
    VERSION_TAG,
)
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.key_bucket import bucket_named, key_buckets
from datazone_dagster.pipeline import apply_transform, bucket_positions
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

NAMES = [one.name for one in key_buckets(4)]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(orders_transform(buckets=4))


def put_many(world: World, status: str = "placed") -> dict[str, str]:
    for number in range(40):
        world.put(f"k{number}", status)
    return {f"k{number}": status for number in range(40)}


def test_a_tick_requests_a_run_for_each_bucket_that_is_behind(world: World) -> None:
    expected = put_many(world)
    tick = world.tick()
    assert [one.partition_key for one in tick.requests] == NAMES
    world.run("apply_orders", partition=NAMES[1])
    world.clock.advance(timedelta(seconds=70))
    again = world.tick()
    assert [one.partition_key for one in again.requests] == [NAMES[0], *NAMES[2:]]
    lag = again.checks()["orders:lag"]
    assert (lag.passed, lag.severity.value) == (False, "WARN")
    assert "3 of 4 buckets are behind; 1-of-4 is the last, at batch 0 of 1." in str(lag.description)
    positions = json.loads(str(lag.metadata["bucket_positions"].value))
    assert positions == {"1-of-4": 0, "2-of-4": 1, "3-of-4": 0, "4-of-4": 0}
    last = world.run_until_idle()
    assert world.rows() == expected
    assert last.checks()["orders:lag"].passed
    # Each run has materialized its partition.
    key = AssetKey(["orders"])
    assert world.instance.get_materialized_partitions(key) == set(NAMES)
    records = world.instance.fetch_materializations(key, limit=100).records
    assert {record.partition_key for record in records} == set(NAMES)


def add_run(world: World, status: DagsterRunStatus, **tags: str) -> None:
    """Add a run of the third bucket."""
    of_bucket = {"dagster/partition": NAMES[2], **tags}
    world.instance.add_run(
        DagsterRun(job_name="apply_orders", run_id=str(uuid.uuid4()), status=status, tags=of_bucket)
    )


def test_a_bucket_with_a_run_gets_no_other(world: World) -> None:
    put_many(world)
    add_run(world, DagsterRunStatus.STARTED)
    tick = world.tick()
    assert [one.partition_key for one in tick.requests] == [*NAMES[:2], NAMES[3]]


def test_a_stream_of_one_key_has_runs_of_its_bucket_only(world: World) -> None:
    put_many(world)
    world.run_until_idle()
    for status in ("shipped", "delivered"):
        world.put("k7", status)
        (request,) = world.tick().requests
        world.run("apply_orders", partition=request.partition_key)
        world.clock.advance(timedelta(seconds=70))
        tick = world.tick()
        assert not tick.requests
        assert tick.checks()["orders:lag"].passed
    assert set(bucket_positions("orders", "orders", world.layout, 4).values()) == {3}


def test_positions_of_idle_buckets_wait_for_the_run_of_another_one(world: World) -> None:
    put_many(world)
    world.run_until_idle()
    world.put("k7", "shipped")
    (request,) = world.tick().requests
    bucket = bucket_named(str(request.partition_key))
    assert bucket is not None
    with suppress(Crash), crash_at(crash_points.AFTER_DATASET_COMMIT):
        apply_transform(world.transforms[0], world.layout, bucket=bucket)
    assert sorted(bucket_positions("orders", "orders", world.layout, 4).values()) == [1, 1, 1, 2]
    assert len(world.tick().requests) == 1
    add_run(world, DagsterRunStatus.STARTED)
    assert not world.tick().requests


def test_a_failing_bucket_waits_and_the_others_go_on(world: World) -> None:
    put_many(world)
    add_run(world, DagsterRunStatus.FAILURE, **{FAILURE_TAG: "boom"})
    tick = world.tick()
    assert [one.partition_key for one in tick.requests] == [*NAMES[:2], NAMES[3]]


def test_a_tick_asks_the_database_once_for_the_runs_of_all_buckets(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(orders_transform(buckets=64), min_run_interval=timedelta(seconds=5))
    put_many(world)
    asked: list[RunsFilter] = []
    original = DagsterInstance.get_run_records

    def get(self: DagsterInstance, filters: RunsFilter | None = None, **more: Any) -> Any:
        if filters is not None and filters.job_name == "apply_orders":
            asked.append(filters)
        return original(self, filters, **more)

    monkeypatch.setattr(DagsterInstance, "get_run_records", get)
    assert len(world.tick().requests) == 64
    assert len(asked) == 3  # active, failed and recent ones
    asked.clear()
    failed = {"dagster/partition": "02-of-64", FAILURE_TAG: "boom"}
    world.instance.add_run(
        DagsterRun(
            job_name="apply_orders",
            run_id=str(uuid.uuid4()),
            status=DagsterRunStatus.FAILURE,
            tags=failed,
        )
    )
    assert "02-of-64" not in {one.partition_key for one in world.tick().requests}
    assert len(asked) == 4  # and how often the one that failed has failed in a row


def test_the_pool_has_a_slot_for_each_bucket(world: World, tmp_path: Path) -> None:
    put_many(world)
    with DagsterInstance.local_temp(str(tmp_path)) as instance:  # the one in memory has no pools
        world.instance = instance
        world.tick()
        limits = {one.name: one.limit for one in instance.event_log_storage.get_pool_limits()}
    assert limits["datazone/apply_orders/4_buckets"] == 4


def test_the_number_of_buckets_changes_between_two_runs(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(buckets=4))
    put_many(world)
    world.run_until_idle()
    expected = put_many(world, "shipped")
    world.tick()
    world.run("apply_orders", partition=NAMES[0])
    other = make_world(orders_transform(buckets=2))
    other.stream = world.stream
    assert list(bucket_positions("orders", "orders", other.layout, 2).values()) == [1, 1]
    for bucket in key_buckets(2):
        other.run("apply_orders", partition=bucket.name)
    assert other.rows() == expected
    assert list(bucket_positions("orders", "orders", other.layout, 2).values()) == [2, 2]


def test_outputs_of_a_transform_have_one_number_of_buckets() -> None:
    for dataset in ({"buckets": 3}, {"buckets": 512}, {"buckets": True}, {"buckets": 0}):
        with pytest.raises(DefinitionError, match="power of two"):
            orders_transform(**dataset)


def test_an_asset_that_takes_a_dataset_gets_the_rows_of_every_bucket(world: World) -> None:
    expected = put_many(world)
    world.run_until_idle()
    seen: list[int] = []

    @asset(ins={"orders": AssetIn(input_manager_key=IO_MANAGER_KEY)})
    def summary(orders: pa.Table) -> None:
        seen.append(len(orders))

    definitions = Definitions.merge(world.defs, Definitions(assets=[summary]))
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(
        asset_selection=[AssetKey("summary")], instance=world.instance
    ).success
    assert seen == [len(expected)]


@pytest.mark.parametrize("buckets", [1, 2, 8])
def test_runs_of_a_former_number_of_buckets_are_told_to_end(
    make_world: MakeWorld, buckets: int
) -> None:
    world = make_world(orders_transform(buckets=buckets))
    put_many(world)
    former = [{}, {"dagster/partition": NAMES[1]}, {"dagster/partition": NAMES[2]}]
    if buckets == 1:
        del former[0]
    ids = []
    for tags in former:
        ids.append(str(uuid.uuid4()))
        world.instance.add_run(
            DagsterRun(
                job_name="apply_orders",
                run_id=ids[-1],
                status=DagsterRunStatus.STARTED,
                tags={SOURCE_TAG: "orders", VERSION_TAG: "former", **tags},
            )
        )
    assert len(world.tick().requests) == (0 if buckets == 1 else buckets)
    found = [world.instance.get_run_by_id(one) for one in ids]
    assert all(run is not None and END_TAG in run.tags for run in found)
