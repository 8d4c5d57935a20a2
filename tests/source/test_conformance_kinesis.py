"""The client of Kinesis streams against the local DynamoDB: the suite, and what only they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from datazone_dagster.errors import (
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    StreamDisabledError,
    TrimmedDataError,
)
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.service_limits import KINESIS_ITERATOR_LIFETIME_SECONDS
from datazone_dagster.model.shard import TRIM_HORIZON, after, parents_in
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.kinesis_client import KinesisStreamClient
from datazone_dagster.source.read_pace import ReadPace
from datazone_dagster.source.session import ConnectionSettings, build_kinesis_clients
from tests.source.conformance import (
    IDS,
    AnyShardedConformance,
    ControlledWorld,
    position_of,
    read_shard,
    read_stream,
)
from tests.source.test_conformance_local import LocalWorld


class KinesisWorld(LocalWorld):
    """`ControlledWorld` of the emulator's Kinesis: each table sends to a stream of its name."""

    iterator_seconds = KINESIS_ITERATOR_LIFETIME_SECONDS

    def __init__(self, server: LocalDynamoDB) -> None:
        super().__init__(server, raw_pages=True)
        self.settings = ConnectionSettings(
            region=self.region,
            endpoint_url=server.endpoint_url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        self.kinesis_clients = build_kinesis_clients(self.settings)
        self.kinesis: Any = self.kinesis_clients.kinesis
        self.admin = server.admin

    def reader(self, table_name: str) -> StreamClient:
        pace = ReadPace(pause=lambda _: None)
        return KinesisStreamClient(table_name, table_name, self.kinesis_clients, pace=pace)

    def create_table(self, view_type: str | None = "both", precision: str = "MICROSECOND") -> str:
        name = super().create_table(None)
        self.kinesis.create_stream(StreamName=name, ShardCount=2)
        if view_type is not None:
            self.send(name, name, precision)
        return name

    def send(self, table_name: str, stream_name: str, precision: str = "MICROSECOND") -> None:
        enable: Any = self.clients.dynamodb.enable_kinesis_streaming_destination
        enable(
            TableName=table_name,
            StreamArn=self.arn(stream_name),
            EnableKinesisStreamingConfiguration={"ApproximateCreationDateTimePrecision": precision},
        )

    def arn(self, name: str) -> str:
        summary = self.kinesis.describe_stream_summary(StreamName=name)
        return str(summary["StreamDescriptionSummary"]["StreamARN"])

    def shard_ids(self, table_name: str) -> list[str]:
        return [one["ShardId"] for one in self.listed(table_name)]

    def listed(self, table_name: str) -> list[Any]:
        return list(self.kinesis.list_shards(StreamName=table_name)["Shards"])

    def split(self, table_name: str) -> None:
        shard = next(one for one in self.listed(table_name) if is_open(one))
        bounds = shard["HashKeyRange"]
        middle = (int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"]) + 1) // 2
        self.kinesis.split_shard(
            StreamName=table_name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle)
        )

    def merge(self, table_name: str) -> None:
        """Merge the first two neighbours."""
        shards = [one for one in self.listed(table_name) if is_open(one)]
        shards.sort(key=lambda one: int(one["HashKeyRange"]["StartingHashKey"]))
        self.kinesis.merge_shards(
            StreamName=table_name,
            ShardToMerge=shards[0]["ShardId"],
            AdjacentShardToMerge=shards[1]["ShardId"],
        )

    def trim(self, table_name: str) -> None:
        self.admin.trim_kinesis(table_name)


def is_open(shard: Any) -> bool:
    return "EndingSequenceNumber" not in shard["SequenceNumberRange"]


@pytest.fixture(scope="module")
def kinesis_world() -> Iterator[KinesisWorld]:
    with LocalDynamoDB(shards=2) as server:
        yield KinesisWorld(server)


@pytest.fixture
def world(kinesis_world: KinesisWorld) -> Iterator[KinesisWorld]:
    yield kinesis_world
    kinesis_world.reset()


class TestKinesis(AnyShardedConformance):
    @pytest.fixture
    def world(self, kinesis_world: KinesisWorld) -> Iterator[ControlledWorld]:
        yield kinesis_world
        kinesis_world.reset()


def ids_of(records: list[ChangeRecord]) -> list[str]:
    return [json.loads(record.keys)["id"]["S"] for record in records]


def test_a_merged_shard_has_two_parents(world: KinesisWorld) -> None:
    table = world.create_table()
    world.put_many(table, IDS)
    first, second = world.shard_ids(table)
    world.merge(table)
    world.put_many(table, [f"later-{one}" for one in IDS])
    client = world.reader(table)
    described = client.describe(client.stream_arns()[-1])
    merged = described.shards[-1]
    assert parents_in(merged.parent_shard_id) == (first, second)
    assert [shard.is_open for shard in described.shards] == [False, False, True]
    assert described.retention == timedelta(hours=24)
    assert len(read_shard(client, described.stream_arn, merged.shard_id)) == len(IDS)
    assert len(read_stream(client)) == 2 * len(IDS)


def test_a_change_that_comes_twice_has_one_number_and_two_positions(world: KinesisWorld) -> None:
    table = world.create_table()
    world.admin.hold_kinesis(table)
    for total in ("1", "2"):
        world.put(table, "a", total={"N": total})
    world.admin.deliver_kinesis(table, [1, 0, 1])
    later, earlier, again = read_stream(world.reader(table))
    assert later.sequence_number == again.sequence_number > earlier.sequence_number
    assert position_of(later) < position_of(earlier) < position_of(again)
    assert later._replace(position=None) == again._replace(position=None)


def test_milliseconds_are_counted(world: KinesisWorld) -> None:
    table = world.create_table(precision="MILLISECOND")
    world.put(table, "a")
    client = world.reader(table)
    stream_arn = client.stream_arns()[-1]
    pages = [
        client.get_records(client.shard_iterator(stream_arn, one.shard_id, TRIM_HORIZON))
        for one in client.describe(stream_arn).shards
    ]
    assert sum(page.coarse for page in pages) == 1
    assert {page.behind_milliseconds for page in pages} == {0}
    (record,) = (record for page in pages for record in page.records)
    assert abs(record.created_at - world.now()) < 60


def test_changes_of_other_tables_are_passed_over(world: KinesisWorld) -> None:
    table, other = world.create_table(), world.create_table(None)
    world.send(other, table)
    world.put(table, "a")
    world.put(other, "b")
    client = world.reader(table)
    stream_arn = client.stream_arns()[-1]
    pages = [
        client.get_records(client.shard_iterator(stream_arn, one.shard_id, TRIM_HORIZON))
        for one in client.describe(stream_arn).shards
    ]
    assert ids_of([record for page in pages for record in page.records]) == ["a"]
    assert sum(page.others for page in pages) == 1
    assert all(page.position is not None for page in pages if page.others)


@pytest.mark.parametrize("payload", [b"not JSON", b'{"tableName": 5}', b"[]", b"\xff"])
def test_what_is_no_change_is_malformed_and_has_a_position(
    world: KinesisWorld, payload: bytes
) -> None:
    table = world.create_table()
    world.kinesis.put_record(StreamName=table, PartitionKey="x", Data=payload)
    client = world.reader(table)
    stream_arn = client.stream_arns()[-1]
    pages = [
        client.get_records(client.shard_iterator(stream_arn, one.shard_id, TRIM_HORIZON))
        for one in client.describe(stream_arn).shards
    ]
    ((page, bad),) = [(page, bad) for page in pages for bad in page.malformed]
    assert (bad.raw, bad.sequence_number) == (payload, None)
    assert bad.reason
    assert page.position is not None


def test_a_position_past_the_retention_is_told(world: KinesisWorld) -> None:
    table = world.create_table()
    world.put(table, "a")
    client = world.reader(table)
    stream_arn = client.stream_arns()[-1]
    (record,) = read_stream(client)
    (shard_id,) = [
        one.shard_id
        for one in client.describe(stream_arn).shards
        if read_shard(client, stream_arn, one.shard_id)
    ]
    world.trim(table)
    with pytest.raises(TrimmedDataError):
        client.shard_iterator(stream_arn, shard_id, after(position_of(record)))


def test_a_stream_that_is_created_again_is_another_one(world: KinesisWorld) -> None:
    table = world.create_table()
    client = world.reader(table)
    (before,) = client.stream_arns()
    world.kinesis.delete_stream(StreamName=table)
    with pytest.raises(StreamDisabledError, match="no Kinesis stream"):
        client.stream_arns()
    world.advance_clock(5)
    world.kinesis.create_stream(StreamName=table, ShardCount=1)
    (now,) = client.stream_arns()
    assert now != before
    for call in (
        lambda: client.describe(before),
        lambda: client.shard_iterator(before, "shardId-000000000000", TRIM_HORIZON),
    ):
        with pytest.raises(ShardNotFoundError):
            call()


def test_a_destination_that_is_off(world: KinesisWorld) -> None:
    table = world.create_table()
    client = world.reader(table)
    (stream_arn,) = client.stream_arns()
    disable: Any = world.clients.dynamodb.disable_kinesis_streaming_destination
    disable(TableName=table, StreamArn=world.arn(table))
    assert client.stream_arns() == (stream_arn,)
    assert not client.describe(stream_arn).enabled


def test_each_kind_refuses_the_streams_of_the_other(world: KinesisWorld) -> None:
    table = world.create_table()
    (stream_arn,) = world.reader(table).stream_arns()
    dynamodb = BotoStreamClient(table, world.clients)
    with pytest.raises(ShardNotFoundError):
        dynamodb.describe(stream_arn)
    with pytest.raises(ShardNotFoundError):
        dynamodb.shard_iterator(stream_arn, "shardId-000000000000", TRIM_HORIZON)
    arn = "arn:aws:dynamodb:us-west-2:000000000000:table/x/stream/2001-01-01T00:00:00.000"
    with pytest.raises(ShardNotFoundError):
        world.reader(table).describe(arn)


@pytest.mark.parametrize(
    "operation", ["DescribeStreamSummary", "DescribeTable", "DescribeKinesisStreamingDestination"]
)
def test_a_listing_that_fails(world: KinesisWorld, operation: str) -> None:
    client = world.reader(world.create_table())
    assert client.stream_arns()
    world.set_faults(Fault(operation, FaultKind.INTERNAL_ERROR, times=None))
    with pytest.raises(ServiceUnavailableError):
        client.stream_arns()


def test_reads_keep_the_limits_of_a_shard(world: KinesisWorld) -> None:
    table = world.create_table()
    world.put(table, "a", text={"S": "\x01" * 200_000})
    now, waits = [0.0], []

    def pause(seconds: float) -> None:
        waits.append(round(seconds, 1))
        now[0] += seconds

    pace = ReadPace(monotonic=lambda: now[0], pause=pause)
    client = KinesisStreamClient(table, table, world.kinesis_clients, pace=pace)
    stream_arn = client.stream_arns()[-1]
    for shard in client.describe(stream_arn).shards:
        page = client.get_records(client.shard_iterator(stream_arn, shard.shard_id, TRIM_HORIZON))
        assert page.next_iterator is not None
        client.get_records(page.next_iterator)
    assert sorted(waits) == [0.2, 0.6]


def test_a_page_has_about_a_megabyte_whatever_the_size_of_records(world: KinesisWorld) -> None:
    table = world.create_table()
    for size, count in ((200_000, 24), (10, 60)):
        for _ in range(count):
            world.kinesis.put_record(StreamName=table, Data=b"x" * size, PartitionKey="one shard")
    client = world.reader(table)
    stream = client.stream_arns()[-1]
    found = []
    for shard_id in world.shard_ids(table):
        iterator = client.shard_iterator(stream, shard_id, TRIM_HORIZON)
        behind: int | None = 1
        while behind:
            page = client.get_records(iterator)
            iterator, behind = page.next_iterator or "", page.behind_milliseconds
            if page.malformed:
                found.append((len(page.malformed), page.body_bytes))
    assert sum(records for records, _ in found) == 84
    assert max(size_bytes for _, size_bytes in found[1:]) < 1_500_000
    assert len(found) < 10


def test_credentials_and_a_region_that_is_missing_are_told() -> None:
    with pytest.raises(SourceError, match="no AWS region"):
        build_kinesis_clients(ConnectionSettings(), table_name="orders")
