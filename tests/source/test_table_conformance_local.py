"""The table client against the local DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from datazone_dagster import pipeline
from datazone_dagster.errors import ThrottledError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.pipeline import ConnectionSettings
from tests.source.table_conformance import (
    BotoTableWorld,
    ServiceTableConformance,
    items_of,
    numbered,
)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB() as server:
        yield server


@pytest.fixture(scope="module")
def local_world(server: LocalDynamoDB) -> BotoTableWorld:
    return BotoTableWorld(server.endpoint_url)


class TestTableClient(ServiceTableConformance):
    @pytest.fixture
    def world(self, local_world: BotoTableWorld) -> BotoTableWorld:
        return local_world


def test_the_facade_connects(server: LocalDynamoDB, local_world: BotoTableWorld) -> None:
    table = local_world.create_table()
    local_world.put_many(table, numbered(2))
    settings = ConnectionSettings(region="us-west-2", endpoint_url=server.endpoint_url)
    assert len(items_of(pipeline.connect_table(table, settings))) == 2


def test_only_eventually_consistent_pages_lag(
    server: LocalDynamoDB, local_world: BotoTableWorld
) -> None:
    table = local_world.create_table()
    local_world.put_many(table, numbered(2))
    server.admin.set_lag(table, writes=2)
    local_world.delete(table, k={"S": "item-0"})
    local_world.put(table, k={"S": "item-1"}, v={"N": "2"})
    client = local_world.reader(table)

    def seen(consistent: bool) -> list[str]:
        page = client.scan_page(0, 1, None, consistent=consistent)
        return sorted(json.loads(item.keys)["k"]["S"] for item in page.items)

    assert seen(consistent=False) == ["item-0", "item-1"]
    assert seen(consistent=True) == ["item-1"]
    keys = [f'{{"k":{{"S":"item-{n}"}}}}' for n in range(2)]
    (image,) = client.get_items(keys).values()
    assert json.loads(image)["v"] == {"N": "2"}


def test_a_scan_beyond_the_capacity_is_throttled(
    server: LocalDynamoDB, local_world: BotoTableWorld
) -> None:
    table = local_world.create_table()
    local_world.put_many(table, numbered(2, filler=5_000))
    server.admin.set_read_capacity(table, 0.01)
    settings = ConnectionSettings(
        region="us-west-2", endpoint_url=server.endpoint_url, max_attempts=1
    )
    client = pipeline.connect_table(table, settings)
    assert len(client.scan_page(0, 1, None, consistent=True).items) == 2
    with pytest.raises(ThrottledError, match="ProvisionedThroughputExceeded"):
        client.scan_page(0, 1, None, consistent=True)
    with pytest.raises(ThrottledError):
        client.get_items(['{"k":{"S":"item-0"}}'])


def test_keys_beyond_the_capacity_are_asked_again(
    server: LocalDynamoDB, local_world: BotoTableWorld
) -> None:
    table = local_world.create_table()
    local_world.put_many(table, numbered(90))
    client = local_world.reader(table)
    client.describe_table()
    server.admin.counters(reset=True)
    server.admin.set_read_capacity(table, 70)
    keys = [f'{{"k":{{"S":"item-{n}"}}}}' for n in range(100)]
    assert list(client.get_items(keys)) == keys[:90]
    assert server.admin.counters()["calls"]["BatchGetItem"] > 1
