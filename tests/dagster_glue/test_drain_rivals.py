"""Two code locations that drain one source into one lakehouse with other settings do not fight."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun

from datazone_dagster.dagster_glue.names import (
    ALIVE_TAG,
    END_TAG,
    LAKEHOUSE_TAG,
    READ_TAG,
    SOURCE_TAG,
    VERSION_TAG,
)
from tests.dagster_glue.conftest import SOURCE, MakeWorld, World, orders_transform
from tests.dagster_glue.locations import run_in, ticked
from tests.dagster_glue.test_drain_runs import (
    HEALTH,
    JOB,
    SENSOR,
    drain_requests,
    orders_of,
    taken_over,
)

CONFLICT = "The code locations {} and {} both drain orders into"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance on disk: the one in memory knows no ticks."""
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield instance


@pytest.fixture
def shop(make_world: MakeWorld, disk: DagsterInstance) -> World:
    """The code location `shop`, with two workers."""
    made = make_world(orders_of(2))
    made.instance, made.location = disk, "shop"
    for number in range(20):
        made.put(str(number))
    return made


def run_of(world: World, location: str, partition: str, version: str = "0") -> DagsterRun:
    now = world.clock.now.isoformat()
    tags = {
        "dagster/partition": partition,
        SOURCE_TAG: "orders",
        LAKEHOUSE_TAG: world.layout.uri,
        VERSION_TAG: version,
        ALIVE_TAG: now,
        READ_TAG: now,
    }
    return run_in(world.instance, location, JOB, tags)


def own_runs(world: World) -> list[DagsterRun]:
    return [
        run_of(world, "shop", one.partition_key or "", one.tags[VERSION_TAG])
        for one in drain_requests(world.tick())
    ]


def told(world: World) -> set[str]:
    return {one.run_id for one in world.instance.get_runs() if END_TAG in one.tags}


def test_a_location_leaves_the_shards_to_one_that_was_there_first(shop: World) -> None:
    ticked(shop.instance, "eu", SENSOR, shop.clock.now)
    for number in (1, 2, 3):
        run_of(shop, "eu", f"{number}-of-3")
    tick = shop.tick()
    assert drain_requests(tick) == []
    assert told(shop) == set()
    health = tick.checks()[HEALTH]
    assert health.severity.value == "WARN"
    for text in (str(tick.skip), str(health.description)):
        assert CONFLICT.format("shop", "eu") in text
        assert "drain_workers is 2 in shop, 3 in eu" in text
        assert "The runs of eu go on, and shop reads nothing." in text


def test_the_first_location_goes_on_and_says_so_while_the_other_one_wants_to(
    shop: World, make_world: MakeWorld
) -> None:
    own = own_runs(shop)
    ticked(shop.instance, "shop", SENSOR, shop.clock.now)
    ticked(shop.instance, "eu", SENSOR, shop.clock.now)
    other = run_of(shop, "eu", "1-of-3")
    tick = shop.tick()
    assert "The runs of shop go on, and eu reads nothing." in str(tick.skip)
    assert told(shop) == set()

    eu = taken_over(shop, make_world, orders_of(3))
    eu.instance, eu.location = shop.instance, "eu"
    assert drain_requests(eu.tick()) == []
    assert told(shop) == {other.run_id}
    shop.instance.report_run_canceled(other)
    shop.clock.advance(timedelta(seconds=5))
    assert drain_requests(eu.tick()) == []
    tick = shop.tick()  # it sees no run of the other one, but its note
    assert drain_requests(tick) == []
    assert CONFLICT.format("eu", "shop") in str(tick.skip)
    assert told(shop) & {one.run_id for one in own} == set()
    shop.clock.advance(timedelta(minutes=4))
    assert CONFLICT.format("eu", "shop") not in str(shop.tick().skip)


def test_ticks_leave_the_shards_to_the_runs_of_another_location(
    shop: World, make_world: MakeWorld
) -> None:
    shop.tick()
    ticked(shop.instance, "shop", SENSOR, shop.clock.now)
    run_of(shop, "shop", "1-of-2")
    eu = taken_over(shop, make_world, orders_transform(source=SOURCE))
    eu.instance, eu.location = shop.instance, "eu"
    tick = eu.tick()
    assert told(shop) == set()
    assert "GetRecords" not in shop.stream.calls
    assert "The code location shop drains orders into" in str(tick.checks()[HEALTH].description)


def test_runs_of_a_location_that_is_gone_are_replaced(shop: World) -> None:
    ticked(shop.instance, "eu", SENSOR, shop.clock.now - timedelta(minutes=5))
    former = [run_of(shop, "eu", f"{number}-of-2") for number in (1, 2)]
    shop.tick()
    assert told(shop) == {one.run_id for one in former}
