"""Where pools count steps, a run whose step waits for a slot is not dead, and is named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin

from datazone_dagster.dagster_glue.names import pool_name
from datazone_dagster.dagster_glue.runs.heartbeat import FIRST_HEARTBEAT_SECONDS
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform
from tests.dagster_glue.test_drain_runs import HEALTH, drain_requests, orders_of, started
from tests.dagster_glue.test_heartbeat import run_that_waits, status

POOL = pool_name(orders_transform())
LONG = timedelta(seconds=FIRST_HEARTBEAT_SECONDS + 60)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with Dagster's defaults: pools count steps."""
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield instance


@pytest.fixture
def waits(world: World, plain: DagsterInstance) -> DagsterRun:
    """A run whose step waits for the slot that a redrive has."""
    world.instance, storage = plain, plain.event_log_storage
    world.clock.now = datetime.now(timezone.utc)
    storage.set_concurrency_slots(POOL, 1)
    redrive = plain.create_run_for_job(
        world.defs.resolve_job_def("redrive_orders"), status=DagsterRunStatus.STARTED
    )
    assert storage.claim_concurrency_slot(POOL, redrive.run_id, "redrive").is_claimed
    run = run_that_waits(world)
    assert not storage.claim_concurrency_slot(POOL, run.run_id, "orders").is_claimed
    world.put("a")
    return run


def test_it_is_not_ended_while_others_have_the_slot(world: World, waits: DagsterRun) -> None:
    world.watch(LONG)
    tick = world.tick()
    assert status(world, waits) is DagsterRunStatus.STARTED
    assert tick.requests == []
    assert f"waits for a slot of the pool {POOL}, whose limit is 1; redrive_orders" in str(
        tick.skip
    )
    assert "granularity: run" in str(tick.skip)


def test_a_dead_one_is_ended_after_it_could_have_begun(world: World, waits: DagsterRun) -> None:
    world.watch(LONG)
    [redrive] = [one for one in world.instance.get_runs() if one.job_name == "redrive_orders"]
    world.instance.event_log_storage.free_concurrency_slots_for_run(redrive.run_id)
    world.watch(timedelta(seconds=FIRST_HEARTBEAT_SECONDS - 20))
    assert status(world, waits) is DagsterRunStatus.STARTED
    world.watch(timedelta(seconds=40))
    assert status(world, waits) is DagsterRunStatus.FAILURE


@pytest.mark.parametrize("has_slot", [True, False], ids=["assigned", "pending"])
def test_the_slot_of_a_dead_one_goes_to_the_next_run(
    world: World, waits: DagsterRun, has_slot: bool
) -> None:
    """Dagster keeps its place among those that wait, and gives it the slot that gets free."""
    storage = world.instance.event_log_storage
    [redrive] = [one for one in world.instance.get_runs() if one.job_name == "redrive_orders"]
    if has_slot:
        storage.free_concurrency_slots_for_run(redrive.run_id)
    world.instance.report_run_failed(waits)
    world.clock.advance(timedelta(minutes=1))
    assert [one.job_name for one in world.tick().requests] == ["apply_orders"]
    storage.free_concurrency_slots_for_run(redrive.run_id)
    following = run_that_waits(world)
    assert storage.claim_concurrency_slot(POOL, following.run_id, "orders").is_claimed


def test_a_queue_that_drain_runs_fill_for_good_is_named(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    world = make_world(orders_of(2))
    (tmp_path / "small").mkdir()
    for most, passed in ((2, False), (3, True)):
        queue = {"concurrency": {"runs": {"max_concurrent_runs": most}}}
        with DagsterInstance.local_temp(str(tmp_path / "small"), overrides=queue) as world.instance:
            for one in drain_requests(world.tick()):
                started(world, one)
            world.clock.advance(timedelta(seconds=31))
            health = world.tick().checks()[HEALTH]
            text = f"Dagster starts {most} runs at a time"
            assert (text not in str(health.description)) is passed


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"key": "team", "limit": 1}, "1 of the runs with the tag team at a time"),
        (
            {"key": "team", "value": "a", "limit": 1},
            "2 drain runs have it and stay: 1 of them wait",
        ),
        (
            {"key": "team", "value": {"applyLimitPerUniqueValue": True}, "limit": 2},
            "team=a at a time (tag_concurrency_limits), and the 2 drain runs stay: no run of",
        ),
        ({"key": "team", "limit": 3}, ""),
        ({"key": "team", "value": "b", "limit": 1}, ""),
        ({"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}, ""),
    ],
)
def test_a_limit_of_a_tag_that_drain_runs_fill_for_good_is_named(
    make_world: MakeWorld, tmp_path: Path, limit: dict[str, object], text: str
) -> None:
    world = make_world(orders_of(2), run_tags={"team": "a"})
    (tmp_path / "small").mkdir()
    queue = {"concurrency": {"runs": {"tag_concurrency_limits": [limit]}}}
    with DagsterInstance.local_temp(str(tmp_path / "small"), overrides=queue) as world.instance:
        for one in drain_requests(world.tick()):
            started(world, one)
        world.clock.advance(timedelta(seconds=31))
        health = world.tick().checks()[HEALTH]
        assert text in str(health.description)
        assert health.passed is not bool(text)


def test_a_queued_run_that_a_limit_of_a_tag_keeps_there_says_so(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "small").mkdir()
    limits = [{"key": "team", "limit": 1}]
    queue = {"concurrency": {"runs": {"tag_concurrency_limits": limits}}}
    world.put("a")
    with DagsterInstance.local_temp(str(tmp_path / "small"), overrides=queue) as world.instance:
        snapshot = world.defs.resolve_job_def("snapshot_orders")
        location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="here")
        origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("apply_orders")
        tags, queued = {"team": "a"}, DagsterRunStatus.QUEUED
        world.instance.add_run(
            DagsterRun("apply_orders", status=queued, remote_job_origin=origin, tags=tags)
        )
        assert "waits in the queue" not in str(world.tick().skip)
        working = DagsterRunStatus.STARTED
        world.instance.create_run_for_job(snapshot, status=working, tags={"team": "b"})
        assert (
            "apply_orders waits in the queue: Dagster starts 1 of the runs with the tag team at a "
            "time (tag_concurrency_limits); at work: snapshot_orders"
        ) in str(world.tick().skip)


def test_a_pool_that_is_too_small_for_the_drain_runs_is_named(
    make_world: MakeWorld, plain: DagsterInstance
) -> None:
    world = make_world(orders_of(2))
    world.instance = plain
    for _ in range(3):
        world.stream.split(0)
    pool = "datazone/drain_shards_orders/2_sets"
    plain.event_log_storage.set_concurrency_slots(pool, 1)
    tick = world.tick()
    for one in drain_requests(tick):
        started(world, one)
    health = tick.checks()[HEALTH]
    assert health.severity.value == "WARN"
    text = f"The pool {pool} has a limit of 1, and 2 sets of shards need a run each: 1 of them wait"
    assert text in str(health.description)
    assert "Raise the limit to 2" in str(health.description)
    plain.event_log_storage.set_concurrency_slots(pool, 2)
    assert world.tick().checks()[HEALTH].passed
