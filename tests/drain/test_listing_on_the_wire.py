"""A listing of several pages from the local DynamoDB, with what a listing may show wrongly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.source import client as source_client
from datazone_dagster.source.client import BotoStreamClient
from tests.drain.listing_flow import Drains
from tests.source.conformance import IDS
from tests.source.test_conformance_local import LocalWorld

TICK = 5.0
SHARDS = 6
LISTING = (
    FaultKind.HIDE_CHILDREN,
    FaultKind.HIDE_PARENT,
    FaultKind.OPEN_PARENT,
    FaultKind.CHILDREN_FIRST,
    FaultKind.EMPTY_LAST_PAGE,
)


@pytest.fixture(scope="module")
def world() -> Iterator[LocalWorld]:
    with LocalDynamoDB(shards=SHARDS) as server:
        yield LocalWorld(server, raw_pages=True)


@pytest.fixture(autouse=True)
def small_pages(world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reset()
    monkeypatch.setattr(source_client, "SHARDS_PER_PAGE", 3)


def drains_of(world: LocalWorld, table: str) -> Drains:
    client = world.reader(table)
    assert isinstance(client, BotoStreamClient)
    calls: list[object] = []
    events = client._connected().streams.meta.events
    events.register("before-call.dynamodb-streams.DescribeStream", lambda **_: calls.append(1))
    return Drains(client, lambda: len(calls), datetime.now(timezone.utc))


def rounds(drains: Drains) -> dict[str, list[int]]:
    """Return the values of each item in the order in which they landed."""
    found: dict[str, list[int]] = {}
    for record in drains.landed:
        assert record.new_image is not None
        item = json.loads(record.new_image)
        found.setdefault(item["id"]["S"], []).append(int(item["round"]["N"]))
    return found


def test_children_are_found_by_one_call_each(world: LocalWorld) -> None:
    table = world.create_table()
    drains = drains_of(world, table)
    assert drains.drain() == 2
    for number in range(3):
        for item_id in IDS:
            world.put(table, item_id, round={"N": str(number)})
        world.split(table)
        confirmed = 1 if number else 0
        assert drains.drain(TICK) == 1 + confirmed
        assert drains.drain(0.1) == 1
    drains.caught_up()
    assert rounds(drains) == {item_id: [0, 1, 2] for item_id in IDS}


@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize("kind", LISTING, ids=lambda kind: kind.value)
def test_what_a_listing_shows_wrongly_leaves_no_trace(
    world: LocalWorld, kind: FaultKind, times: int
) -> None:
    table = world.create_table()
    drains = drains_of(world, table)
    drains.drain()
    world.set_faults(Fault("DescribeStream", kind, times=times))
    for number in range(3):
        for item_id in IDS:
            world.put(table, item_id, round={"N": str(number)})
        if number == 0:
            world.split(table)
        else:
            world.roll(table)
        drains.drain(TICK)
        drains.drain(0.1)
    for _ in range(12):
        drains.drain(TICK)
    assert rounds(drains) == {item_id: [0, 1, 2] for item_id in IDS}
    assert not drains.checkpoint.open_gaps()
