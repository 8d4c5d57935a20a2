"""The client against the local DynamoDB: the whole suite, and what only several shards show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from datazone_dagster.errors import (
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    ThrottledError,
    TrimmedDataError,
)
from datazone_dagster.local import AdminClient, Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.record import ChangeRecord, RecordsPage
from datazone_dagster.model.shard import TRIM_HORIZON, Shard, after
from tests.source.conformance import StreamClientConformance, World, read_shard, read_stream

IDS = [f"item-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=2) as server:
        yield server


@pytest.fixture(scope="module")
def raw_world(server: LocalDynamoDB) -> World:
    return World(server.endpoint_url, raw_pages=True)


@pytest.fixture(scope="module")
def parsed_world(server: LocalDynamoDB) -> World:
    return World(server.endpoint_url, raw_pages=False)


@pytest.fixture
def admin(server: LocalDynamoDB) -> Iterator[AdminClient]:
    yield server.admin
    server.admin.clear_faults()
    server.admin.set_clock_offset(0)


class SeveralShards(StreamClientConformance):
    def test_an_item_moves_on_through_a_split_and_a_roll(
        self, world: World, admin: AdminClient
    ) -> None:
        table = world.create_table()
        for round_number in range(3):
            for item_id in IDS:
                world.put(table, item_id, round={"N": str(round_number)})
            if round_number == 0:
                admin.split(table, 0)
            elif round_number == 1:
                admin.roll(table)
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        shards = client.describe(stream_arn).shards

        assert [s["shardId"] for s in admin.shards(table)] == [shard.shard_id for shard in shards]
        by_id = {shard.shard_id: shard for shard in shards}
        closed = [shard for shard in shards if not shard.is_open]
        assert len(closed) == 2
        for shard in shards:
            if shard.parent_shard_id is not None:
                _starts_after(shard, by_id[shard.parent_shard_id])

        rounds: dict[str, list[str]] = {item_id: [] for item_id in IDS}
        for shard in shards:  # parents are listed before their children
            for record in read_shard(client, stream_arn, shard.shard_id):
                item = json.loads(record.new_image or b"")
                rounds[item["id"]["S"]].append(item["round"]["N"])
        assert set(map(tuple, rounds.values())) == {("0", "1", "2")}

    def test_a_closed_shard_ends_with_its_records(self, world: World, admin: AdminClient) -> None:
        table = world.create_table()
        for item_id in IDS:
            world.put(table, item_id)
        admin.split(table, 0)
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        first = client.describe(stream_arn).shards[0]
        iterator: str | None = client.shard_iterator(stream_arn, first.shard_id, TRIM_HORIZON)
        records: list[ChangeRecord] = []
        for _ in range(5):
            assert iterator is not None
            page = client.get_records(iterator)
            records += page.records
            iterator = page.next_iterator
            if iterator is None:
                break
        assert iterator is None
        assert records
        assert first.ending_sequence_number is not None
        assert records[-1].sequence_number <= first.ending_sequence_number

    def test_more_shards_than_a_page_of_the_listing(self, world: World, admin: AdminClient) -> None:
        table = world.create_table()
        for _ in range(105):
            admin.roll(table)
        client = world.reader(table)
        shards = client.describe(client.stream_arns()[-1]).shards
        assert len({shard.shard_id for shard in shards}) == 107

    def test_more_records_than_a_page(self, world: World) -> None:
        table = world.create_table()
        write: Any = world.clients.dynamodb.batch_write_item
        for start in range(0, 2500, 25):
            puts = [
                {"PutRequest": {"Item": {"id": {"S": str(n)}}}} for n in range(start, start + 25)
            ]
            write(RequestItems={table: puts})
        records = read_stream(world.reader(table))
        assert {json.loads(record.keys)["id"]["S"] for record in records} == set(
            map(str, range(2500))
        )
        assert len(records) == 2500

    def test_an_iterator_expires(self, world: World, admin: AdminClient) -> None:
        table = world.create_table()
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        shard_id = client.describe(stream_arn).shards[0].shard_id
        iterator = client.shard_iterator(stream_arn, shard_id, TRIM_HORIZON)
        admin.advance_clock(16 * 60)
        with pytest.raises(ExpiredIteratorError):
            client.get_records(iterator)

    def test_trimmed_records(self, world: World, admin: AdminClient) -> None:
        table = world.create_table()
        for total in range(4):
            world.put(table, "a", total={"N": str(total)})
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        (shard_id,) = (
            shard.shard_id
            for shard in client.describe(stream_arn).shards
            if read_shard(client, stream_arn, shard.shard_id)
        )
        numbers = [r.sequence_number for r in read_shard(client, stream_arn, shard_id)]
        admin.trim_through(table, shard_id, numbers[2])
        with pytest.raises(TrimmedDataError):
            read_shard(client, stream_arn, shard_id, after(numbers[0]))
        (last,) = read_shard(client, stream_arn, shard_id)
        assert last.sequence_number == numbers[3]

    def test_a_shard_that_is_not_there(self, world: World) -> None:
        client = world.reader(world.create_table())
        stream_arn = client.stream_arns()[-1]
        with pytest.raises(ShardNotFoundError):
            client.shard_iterator(stream_arn, "shardId-00000000000000000009-00000000", TRIM_HORIZON)
        with pytest.raises(ShardNotFoundError):
            client.describe(stream_arn.rpartition("/")[0] + "/2001-01-01T00:00:00.000")

    def test_a_disabled_stream_and_its_successor(self, world: World) -> None:
        table = world.create_table()
        world.put(table, "a")
        client = world.reader(table)
        (old,) = client.stream_arns()
        update: Any = world.clients.dynamodb.update_table
        update(TableName=table, StreamSpecification={"StreamEnabled": False})
        assert client.stream_arns() == (old,)
        described = client.describe(old)
        assert not described.enabled
        assert not any(shard.is_open for shard in described.shards)

        enabled = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        update(TableName=table, StreamSpecification=enabled)
        world.put(table, "b")
        streams = client.stream_arns()
        assert len(streams) == 2
        assert streams[0] == old
        assert [json.loads(r.keys)["id"]["S"] for r in read_stream(client)] == ["b"]
        old_records = [
            r for shard in described.shards for r in read_shard(client, old, shard.shard_id)
        ]
        assert [json.loads(r.keys)["id"]["S"] for r in old_records] == ["a"]

    def test_a_delete_by_time_to_live(self, world: World, admin: AdminClient) -> None:
        table = world.create_table()
        ttl: Any = world.clients.dynamodb.update_time_to_live
        ttl(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ends"})
        world.put(table, "a", ends={"N": str(int(admin.now()) - 60)})
        admin.sweep_ttl()
        insert, remove = read_stream(world.reader(table))
        assert (insert.user_type, insert.user_principal) == (None, None)
        assert (remove.event_name, remove.user_type) == ("REMOVE", "Service")
        assert remove.user_principal == "dynamodb.amazonaws.com"

    def test_a_malformed_record_in_the_middle(self, world: World, admin: AdminClient) -> None:
        without_keys = (
            '{"eventName":"MODIFY","dynamodb":{"SequenceNumber":"100000000000000000001"}}'
        )
        pages = _pages_with(world, admin, without_keys)
        assert sum(len(page.records) for page in pages) == 1
        numbers = {bad.sequence_number for page in pages for bad in page.malformed}
        assert numbers == {100_000_000_000_000_000_001}

    @pytest.mark.parametrize(
        ("kind", "raised"),
        [
            (FaultKind.LIMIT_EXCEEDED, ThrottledError),
            (FaultKind.INTERNAL_ERROR, ServiceUnavailableError),
            (FaultKind.CONNECTION_RESET, ServiceUnavailableError),
        ],
    )
    def test_a_fault_that_passes_and_one_that_stays(
        self, world: World, admin: AdminClient, kind: FaultKind, raised: type[Exception]
    ) -> None:
        client = world.reader(world.create_table())
        stream_arn = client.stream_arns()[-1]
        admin.set_faults([Fault("DescribeStream", kind, times=1)])
        assert client.describe(stream_arn).shards
        admin.set_faults([Fault("DescribeStream", kind, times=None)])
        with pytest.raises(raised):
            client.describe(stream_arn)


def _starts_after(child: Shard, parent: Shard) -> None:
    assert child.starting_sequence_number is not None
    assert parent.ending_sequence_number is not None
    assert child.starting_sequence_number > parent.ending_sequence_number


def _pages_with(world: World, admin: AdminClient, payload: str) -> list[RecordsPage]:
    """The first page of each shard of a table with one item, and the payload in it."""
    table = world.create_table()
    world.put(table, "a")
    client = world.reader(table)
    stream_arn = client.stream_arns()[-1]
    admin.set_faults([Fault("GetRecords", FaultKind.MALFORMED_RECORD, times=None, payload=payload)])
    return [
        client.get_records(client.shard_iterator(stream_arn, shard.shard_id, TRIM_HORIZON))
        for shard in client.describe(stream_arn).shards
    ]


class TestRawPages(SeveralShards):
    @pytest.fixture
    def world(self, raw_world: World) -> World:
        return raw_world

    @pytest.mark.parametrize("payload", ['{"dynamodb":"not a record"}', "5", "null", "[]"])
    def test_something_else_than_a_record(
        self, world: World, admin: AdminClient, payload: str
    ) -> None:
        pages = _pages_with(world, admin, payload)
        assert sum(len(page.records) for page in pages) == 1
        assert {bad.raw for page in pages for bad in page.malformed} == {payload.encode()}


class TestParsedPages(SeveralShards):
    @pytest.fixture
    def world(self, parsed_world: World) -> World:
        return parsed_world

    def test_something_else_than_a_record_fails_in_the_parser(
        self, world: World, admin: AdminClient
    ) -> None:
        with pytest.raises(ServiceUnavailableError):
            _pages_with(world, admin, '{"dynamodb":"not a record"}')
