"""Two code locations in one instance whose jobs have the same names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from datazone_dagster.dagster_glue.names import (
    ALIVE_TAG,
    END_TAG,
    FAILURE_TAG,
    LAKEHOUSE_TAG,
    SHARED_TAG,
    SOURCE_TAG,
    VERSION_TAG,
)
from tests.dagster_glue.conftest import MakeWorld, Tick, World, orders_transform
from tests.dagster_glue.locations import run_in, ticked

FORMER_TAG = "datazone/lakehouse"
SENSOR = "drain_orders"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance on disk: the one in memory knows no ticks."""
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield instance


@pytest.fixture(params=[False, True], ids=["own runs", "shared runs"])
def world(make_world: MakeWorld, disk: DagsterInstance, request: pytest.FixtureRequest) -> World:
    """The code location `shop`, with changes that wait."""
    made = make_world(orders_transform(), one_run_per_source=request.param)
    made.instance, made.location = disk, "shop"
    made.put("a")
    return made


def job_of(world: World) -> str:
    return "apply_source_orders" if world.options["one_run_per_source"] else "apply_orders"


def at_work(world: World, location: str, **tags: str) -> DagsterRun:
    """Add a run that the sensor of a code location requested, of another version."""
    of_sensor = {SOURCE_TAG: "orders", ALIVE_TAG: world.clock.now.isoformat(), VERSION_TAG: "0"}
    return run_in(world.instance, location, job_of(world), {**of_sensor, **tags})


def is_told_to_end(world: World, run: DagsterRun) -> bool:
    found = world.instance.get_run_by_id(run.run_id)
    assert found is not None
    return END_TAG in found.tags


def jobs_of(tick: Tick) -> list[str | None]:
    return [one.job_name for one in tick.requests]


@pytest.mark.parametrize("tag", [LAKEHOUSE_TAG, FORMER_TAG])
def test_a_run_of_another_lakehouse_holds_nobody_up(world: World, tag: str) -> None:
    run = at_work(world, "eu", **{tag: "s3://eu"})
    tick = world.tick()
    assert jobs_of(tick) == [job_of(world)], tick.skip
    assert not is_told_to_end(world, run)


def test_a_run_that_does_not_say_where_it_is_counts(world: World) -> None:
    """Somebody started it by hand, or an earlier version did."""
    run_in(world.instance, "eu", job_of(world), {})
    assert jobs_of(world.tick()) == []


def test_a_run_by_hand_names_its_lakehouse(world: World) -> None:
    """Sensors of other places look at it, too."""
    world.tick()
    found = world.instance.get_run_by_id(world.run("apply_orders").run_id)
    assert found is not None
    assert found.tags[LAKEHOUSE_TAG] == world.layout.uri


def test_failures_of_another_lakehouse_cause_no_wait(world: World) -> None:
    world.instance.report_run_failed(
        at_work(world, "eu", **{LAKEHOUSE_TAG: "s3://eu", FAILURE_TAG: "ValueError: no"})
    )
    tick = world.tick()
    assert jobs_of(tick) == [job_of(world)]
    assert tick.checks()["orders:lag"].metadata["failures_in_a_row"].value == 0


def test_own_failures_count_behind_many_runs_of_another_lakehouse(world: World) -> None:
    own = at_work(world, "shop", **{LAKEHOUSE_TAG: world.layout.uri, FAILURE_TAG: "ValueError: no"})
    world.instance.report_run_failed(own)
    for _ in range(10):
        run_in(
            world.instance,
            "eu",
            job_of(world),
            {LAKEHOUSE_TAG: "s3://eu"},
            DagsterRunStatus.SUCCESS,
        )
    tick = world.tick()
    assert jobs_of(tick) == []
    assert tick.checks()["orders:lag"].metadata["failures_in_a_row"].value == 1


def test_a_run_of_the_former_lakehouse_is_told_to_end(world: World) -> None:
    tags = {SOURCE_TAG: "orders", LAKEHOUSE_TAG: "s3://former"}
    run = run_in(world.instance, "shop", job_of(world), tags)
    tick = world.tick()
    assert jobs_of(tick) == []
    assert is_told_to_end(world, run)


def test_two_locations_with_one_lakehouse_do_not_end_each_others_runs(world: World) -> None:
    ticked(world.instance, "eu", SENSOR, world.clock.now)
    run = at_work(world, "eu", **{LAKEHOUSE_TAG: world.layout.uri})
    tick = world.tick()
    assert jobs_of(tick) == []
    assert not is_told_to_end(world, run)
    lag = tick.checks()["orders:lag"]
    for text in (str(tick.skip), str(lag.description)):
        assert "code locations shop and eu both apply orders in" in text
        assert "with other code or settings: while eu has a run, shop starts no other one" in text
    assert not lag.passed


def test_an_own_run_of_former_code_ends_beside_that_of_another_location(world: World) -> None:
    ticked(world.instance, "eu", SENSOR, world.clock.now)
    theirs = at_work(world, "eu", **{LAKEHOUSE_TAG: world.layout.uri})
    own = at_work(world, "shop", **{LAKEHOUSE_TAG: world.layout.uri})
    assert jobs_of(world.tick()) == []
    assert (is_told_to_end(world, own), is_told_to_end(world, theirs)) == (True, False)


@pytest.mark.parametrize("shares", [False, True], ids=["own runs", "shared runs"])
def test_locations_of_which_one_shares_runs_do_not_end_each_others_runs(
    make_world: MakeWorld, disk: DagsterInstance, shares: bool
) -> None:
    world = make_world(orders_transform(), one_run_per_source=shares)
    world.instance, world.location = disk, "shop"
    world.put("a")
    ticked(disk, "eu", SENSOR, world.clock.now)
    tags = {SOURCE_TAG: "orders", VERSION_TAG: "0", LAKEHOUSE_TAG: world.layout.uri}
    others = {} if shares else {SHARED_TAG: "orders"}
    job = "apply_orders" if shares else "apply_source_orders"
    run = run_in(disk, "eu", job, {**tags, **others, ALIVE_TAG: world.clock.now.isoformat()})
    tick = world.tick()
    assert jobs_of(tick) == []
    assert not is_told_to_end(world, run)
    lag = tick.checks()["orders:lag"]
    assert "code locations shop and eu both apply" in str(lag.description)
    assert not lag.passed


def test_a_location_with_another_number_of_buckets_is_left_alone(
    make_world: MakeWorld, disk: DagsterInstance
) -> None:
    world = make_world(orders_transform(buckets=2))
    world.instance, world.location = disk, "shop"
    for number in range(20):
        world.put(str(number))
    ticked(disk, "eu", SENSOR, world.clock.now)
    tags = {SOURCE_TAG: "orders", VERSION_TAG: "0", LAKEHOUSE_TAG: world.layout.uri}
    of_bucket = {"dagster/partition": "1-of-4", ALIVE_TAG: world.clock.now.isoformat()}
    run = run_in(disk, "eu", "apply_orders", {**tags, **of_bucket})
    tick = world.tick()
    assert jobs_of(tick) == []
    assert not is_told_to_end(world, run)
    lag = tick.checks()["orders:lag"]
    assert "code locations shop and eu both apply orders in" in str(lag.description)


def test_a_run_of_a_location_that_is_gone_is_told_to_end(world: World) -> None:
    """It was renamed, for example: nobody else replaces its runs."""
    ticked(world.instance, "eu", SENSOR, world.clock.now - timedelta(minutes=5))
    run = at_work(world, "eu", **{LAKEHOUSE_TAG: world.layout.uri})
    assert jobs_of(world.tick()) == []
    assert is_told_to_end(world, run)
