"""The client against the local DynamoDB: the full suite, and what only a server can show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from tests.source.conformance import (
    BotoWorld,
    ControlledWorld,
    RawRecordsConformance,
    ShardedStreamConformance,
    pages_with,
)


class LocalWorld(BotoWorld):
    """`ControlledWorld` of the emulator: over the API, and over its admin endpoint."""

    def __init__(self, server: LocalDynamoDB, *, raw_pages: bool) -> None:
        super().__init__(server.endpoint_url, raw_pages=raw_pages)
        self._admin = server.admin

    def reset(self) -> None:
        self._admin.clear_faults()
        self._admin.set_clock_offset(0)

    def disable_stream(self, table_name: str) -> None:
        self._update_stream(table_name, StreamEnabled=False)

    def enable_stream(self, table_name: str) -> None:
        self._update_stream(table_name, StreamEnabled=True, StreamViewType="NEW_AND_OLD_IMAGES")

    def _update_stream(self, table_name: str, **specification: Any) -> None:
        update: Any = self.clients.dynamodb.update_table
        update(TableName=table_name, StreamSpecification=specification)

    def shard_ids(self, table_name: str) -> list[str]:
        shards = self._admin.shards(table_name)
        return [shard["shardId"] for shard in shards if not shard["dropped"]]

    def split(self, table_name: str) -> None:
        self._admin.split(table_name)

    def roll(self, table_name: str) -> None:
        self._admin.roll(table_name)

    def trim(self, table_name: str) -> None:
        self._admin.trim(table_name)

    def trim_through(self, table_name: str, shard_id: str, sequence_number: int) -> None:
        self._admin.trim_through(table_name, shard_id, sequence_number)

    def now(self) -> float:
        return self._admin.now()

    def advance_clock(self, seconds: float) -> None:
        self._admin.advance_clock(seconds)

    def expire_items(self, table_name: str, attribute: str) -> None:
        specify: Any = self.clients.dynamodb.update_time_to_live
        specify(
            TableName=table_name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute},
        )
        self._admin.sweep_ttl()

    def insert_empty_page(self, table_name: str, shard_id: str) -> None:
        self.set_faults(Fault("GetRecords", FaultKind.EMPTY_PAGE, shard=shard_id))

    def insert_malformed(self, table_name: str, payload: str) -> None:
        kind = FaultKind.MALFORMED_RECORD
        self.set_faults(Fault("GetRecords", kind, times=None, payload=payload))

    def set_faults(self, *faults: Fault) -> None:
        self._admin.set_faults(faults)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=2) as server:
        yield server


@pytest.fixture(scope="module")
def raw_world(server: LocalDynamoDB) -> LocalWorld:
    return LocalWorld(server, raw_pages=True)


@pytest.fixture(scope="module")
def parsed_world(server: LocalDynamoDB) -> LocalWorld:
    return LocalWorld(server, raw_pages=False)


class ThroughTheEmulator(ShardedStreamConformance):
    @pytest.mark.parametrize(
        "kind",
        [FaultKind.LIMIT_EXCEEDED, FaultKind.INTERNAL_ERROR, FaultKind.CONNECTION_RESET],
    )
    def test_a_fault_that_passes_is_retried(self, world: ControlledWorld, kind: FaultKind) -> None:
        client = world.reader(world.create_table())
        stream_arn = client.stream_arns()[-1]
        world.set_faults(Fault("DescribeStream", kind, times=1))
        assert client.describe(stream_arn).shards


class TestRawPages(ThroughTheEmulator, RawRecordsConformance):
    @pytest.fixture
    def world(self, raw_world: LocalWorld) -> Iterator[LocalWorld]:
        yield raw_world
        raw_world.reset()


class TestParsedPages(ThroughTheEmulator):
    @pytest.fixture
    def world(self, parsed_world: LocalWorld) -> Iterator[LocalWorld]:
        yield parsed_world
        parsed_world.reset()

    def test_a_payload_that_is_not_a_record_fails_in_the_parser(
        self, world: ControlledWorld
    ) -> None:
        with pytest.raises(ServiceUnavailableError):
            pages_with(world, '{"dynamodb":"not a record"}')
