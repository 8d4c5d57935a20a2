"""The table client against the local DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datazone_dagster import pipeline
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
