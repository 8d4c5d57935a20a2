"""Pools: ours have a limit of 1, others none; a slot of an ended run holds nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, OpDefinition
from dagster._core.storage.dagster_run import RunOpConcurrency

from datazone_dagster import dagster_yaml
from datazone_dagster.dagster_glue.names import LAKEHOUSE_TAG, pool_name, snapshot_pool_name
from datazone_dagster.dagster_glue.runs.pools import limit_pools
from tests.dagster_glue.conftest import SOURCE, MakeWorld, World, orders_transform
from tests.dagster_glue.locations import origins_of_run
from tests.dagster_glue.test_snapshots import world_of

POOL = pool_name(orders_transform())


def home(folder: Path, text: str = "") -> DagsterInstance:
    """An instance on disk with a dagster.yaml: the one in memory has no pools."""
    folder.mkdir()
    return DagsterInstance.local_temp(str(folder), overrides=yaml.safe_load(text or "{}"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with home(tmp_path / "home", dagster_yaml()) as instance:
        yield instance


def limits(instance: DagsterInstance) -> dict[str, int]:
    return {one.name: one.limit for one in instance.event_log_storage.get_pool_limits()}


def test_a_pool_is_limited_before_its_first_run_is_requested(
    world: World, instance: DagsterInstance
) -> None:
    world.instance = instance
    world.tick()
    assert limits(instance) == {}
    world.put("a")
    assert world.tick().requests
    assert limits(instance) == {POOL: 1}


def test_a_snapshot_is_limited_too(make_world: MakeWorld, instance: DagsterInstance) -> None:
    world = world_of(make_world)
    world.instance = instance
    assert [one.job_name for one in world.tick().requests] == ["snapshot_orders"]
    assert limits(instance) == {snapshot_pool_name(SOURCE): 1}


def test_a_run_by_hand_limits_its_pool(world: World, instance: DagsterInstance) -> None:
    world.instance = instance
    world.run("apply_orders")
    assert limits(instance) == {POOL: 1}


def test_a_limit_that_somebody_set_stays(world: World, instance: DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots(POOL, 3)
    instance.event_log_storage.set_concurrency_slots("theirs", 7)
    world.instance = instance
    world.put("a")
    assert world.tick().requests
    assert limits(instance) == {POOL: 3, "theirs": 7}


def test_a_default_limit_is_not_ours(tmp_path: Path) -> None:
    text = "concurrency: {pools: {default_limit: 5}}"
    with home(tmp_path / "other", text) as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
        instance.event_log_storage.initialize_concurrency_limit_to_default("theirs")
        limit_pools(instance, [POOL])
        assert limits(instance) == {POOL: 1, "theirs": 5}


@pytest.mark.parametrize("ended", [True, False])
def test_the_slot_of_an_ended_run_holds_nobody_up(
    world: World, tmp_path: Path, ended: bool
) -> None:
    with home(tmp_path / "plain") as instance:  # granularity of ops, nothing frees slots
        world.instance = instance
        storage = instance.event_log_storage
        limit_pools(instance, [POOL])
        dead = instance.create_run_for_job(
            world.defs.resolve_job_def("datazone_maintenance"), status=DagsterRunStatus.STARTED
        )
        assert storage.claim_concurrency_slot(POOL, dead.run_id, "maintain").is_claimed
        if ended:
            instance.report_run_failed(dead)
        world.put("a")
        world.tick()
        assert storage.get_concurrency_info(POOL).active_run_ids == (
            set() if ended else {dead.run_id}
        )


def work_elsewhere(instance: DagsterInstance, job: str, *pools: str) -> DagsterRun:
    """Add a run at work that needs these pools, as Dagster stores it."""
    return instance.add_run(
        DagsterRun(
            job,
            status=DagsterRunStatus.STARTED,
            run_op_concurrency=RunOpConcurrency(
                root_key_counts={}, has_unconstrained_root_nodes=False, all_pools=set(pools)
            ),
        )
    )


@pytest.mark.parametrize("shares", [False, True])
def test_no_run_is_requested_that_would_wait_in_the_queue_for_a_pool(
    make_world: MakeWorld, instance: DagsterInstance, shares: bool
) -> None:
    """One that waits there makes the runs that stay end, those of other sources too."""
    world = make_world(orders_transform(), one_run_per_source=shares)
    world.instance = instance
    world.put("a")
    work_elsewhere(instance, "others", "theirs")
    redrive = work_elsewhere(instance, "redrive_orders", POOL)
    tick = world.tick()
    assert not tick.requests
    expected = f"waits for the pool of a run at work: redrive_orders, which has {POOL}"
    assert (tick.skip or "").endswith(expected)
    instance.report_run_canceled(redrive)
    job = "apply_source_orders" if shares else "apply_orders"
    assert [one.job_name for one in world.tick().requests] == [job]


def test_a_pool_that_another_code_location_has_is_said_in_the_check(
    world: World, instance: DagsterInstance
) -> None:
    """Its lakehouse is its own, but pools are those of the instance."""
    world.instance, world.location = instance, "shop"
    world.put("a")
    needs = RunOpConcurrency(
        root_key_counts={}, has_unconstrained_root_nodes=False, all_pools={POOL}
    )
    tags = {LAKEHOUSE_TAG: "s3://eu"}
    run = DagsterRun("apply_orders", status=DagsterRunStatus.STARTED, tags=tags)
    origins = origins_of_run("eu", "apply_orders")
    instance.add_run(run._replace(run_op_concurrency=needs, **origins))
    lag = world.tick().checks()["orders:lag"]
    assert not lag.passed
    assert f"apply_orders of the code location eu, which has {POOL}" in str(lag.description)
    assert "another key_prefix" in str(lag.description)


def test_pools_have_the_prefix_of_the_keys(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(), key_prefix=["shop", "raw"])
    nodes = [
        node.definition
        for job in world.defs.resolve_all_job_defs()
        for node in job.nodes
        if isinstance(node.definition, OpDefinition)
    ]
    pools = {one.pool for one in nodes if one.pool}
    assert len(pools) == 3
    assert all(one.startswith("datazone/shop/raw/") for one in pools)


def test_where_pools_count_steps_a_run_is_requested_and_its_step_waits(
    world: World, tmp_path: Path
) -> None:
    with home(tmp_path / "plain") as world.instance:
        world.put("a")
        work_elsewhere(world.instance, "redrive_orders", POOL)
        assert [one.job_name for one in world.tick().requests] == ["apply_orders"]
