"""What every StreamClient must do against a DynamoDB that can be written to.

A subclass gives `world`; each test makes a table of its own, so that one server serves all.
"""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datazone_dagster.errors import StreamDisabledError, TableNotFoundError, ViewTypeError
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.shard import TRIM_HORIZON, IteratorStart, StartAt, after
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients

MAX_PAGES = 50


class World:
    """A DynamoDB to write to, and stream clients of the kind under test to read from."""

    def __init__(self, endpoint_url: str, *, raw_pages: bool) -> None:
        self.endpoint_url = endpoint_url
        self._raw_pages = raw_pages
        self.clients: Clients = build_clients(
            ConnectionSettings(
                region="us-west-2",
                endpoint_url=endpoint_url,
                aws_access_key_id="k",
                aws_secret_access_key="s",
            )
        )

    def reader(self, table_name: str) -> StreamClient:
        return BotoStreamClient(table_name, self.clients, raw_pages=self._raw_pages)

    def create_table(self, view_type: str | None = "NEW_AND_OLD_IMAGES") -> str:
        name = f"t-{uuid.uuid4().hex[:12]}"
        stream: dict[str, Any] = {"StreamEnabled": False}
        if view_type is not None:
            stream = {"StreamEnabled": True, "StreamViewType": view_type}
        create: Any = self.clients.dynamodb.create_table
        create(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification=stream,
        )
        return name

    def put(self, table_name: str, item_id: str, **attributes: Any) -> None:
        self.clients.dynamodb.put_item(
            TableName=table_name, Item={"id": {"S": item_id}, **attributes}
        )

    def delete(self, table_name: str, item_id: str) -> None:
        self.clients.dynamodb.delete_item(TableName=table_name, Key={"id": {"S": item_id}})


def read_shard(
    client: StreamClient, stream_arn: str, shard_id: str, start: IteratorStart = TRIM_HORIZON
) -> list[ChangeRecord]:
    """To the end of the shard, or to its tip: the first empty page."""
    records: list[ChangeRecord] = []
    iterator: str | None = client.shard_iterator(stream_arn, shard_id, start)
    for _ in range(MAX_PAGES):
        assert iterator is not None
        page = client.get_records(iterator)
        assert page.malformed == []
        assert page.body_bytes > 0
        records += page.records
        iterator = page.next_iterator
        if iterator is None or not page.records:
            return records
    raise AssertionError(f"{MAX_PAGES} pages and no end")


def read_stream(client: StreamClient) -> list[ChangeRecord]:
    stream_arn = client.stream_arns()[-1]
    shards = client.describe(stream_arn).shards
    return [r for shard in shards for r in read_shard(client, stream_arn, shard.shard_id)]


class StreamClientConformance(ABC):
    @pytest.fixture
    @abstractmethod
    def world(self, *args: World) -> World:
        raise NotImplementedError

    def test_the_stream_of_a_table(self, world: World) -> None:
        table = world.create_table()
        (stream_arn,) = world.reader(table).stream_arns()
        assert f"table/{table}/stream/" in stream_arn

    def test_no_such_table(self, world: World) -> None:
        with pytest.raises(TableNotFoundError, match=r"no-such-table.*us-west-2"):
            world.reader("no-such-table").stream_arns()

    def test_a_table_without_a_stream(self, world: World) -> None:
        table = world.create_table(view_type=None)
        with pytest.raises(StreamDisabledError, match="NEW_AND_OLD_IMAGES"):
            world.reader(table).stream_arns()

    def test_a_stream_without_new_images(self, world: World) -> None:
        client = world.reader(world.create_table("KEYS_ONLY"))
        (stream_arn,) = client.stream_arns()
        with pytest.raises(ViewTypeError, match="KEYS_ONLY"):
            client.describe(stream_arn)

    def test_shards_of_a_new_stream(self, world: World) -> None:
        client = world.reader(world.create_table())
        (stream_arn,) = client.stream_arns()
        described = client.describe(stream_arn)
        assert described.stream_arn == stream_arn
        assert described.view_type == "NEW_AND_OLD_IMAGES"
        assert described.enabled
        shard_ids = [shard.shard_id for shard in described.shards]
        assert shard_ids
        assert len(set(shard_ids)) == len(shard_ids)
        assert all(shard.is_open for shard in described.shards)
        assert all(shard.starting_sequence_number is not None for shard in described.shards)

    def test_changes_of_an_item_in_their_order(self, world: World) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        world.put(table, "a", total={"N": "2"})
        world.delete(table, "a")
        records = read_stream(world.reader(table))

        assert [record.event_name for record in records] == ["INSERT", "MODIFY", "REMOVE"]
        numbers = [record.sequence_number for record in records]
        assert numbers == sorted(set(numbers))
        insert, modify, remove = records
        assert {json.dumps(json.loads(record.keys)) for record in records} == {'{"id": {"S": "a"}}'}
        assert insert.old_image is None
        assert remove.new_image is None
        assert _total(insert.new_image) == _total(modify.old_image) == "1"
        assert _total(modify.new_image) == _total(remove.old_image) == "2"
        assert {record.view_type for record in records} == {"NEW_AND_OLD_IMAGES"}
        assert len({record.event_id for record in records}) == 3
        assert all(record.created_at > 1_600_000_000 for record in records)
        assert {record.user_type for record in records} == {None}

    def test_every_type_arrives_as_it_was_written(self, world: World) -> None:
        table = world.create_table()
        item: dict[str, Any] = {
            "s": {"S": 'quote " é 漢 \u2028'},
            "n": {"N": "12345678901234567890123456789012345678"},
            "b": {"B": b"\x00\xff"},
            "bool": {"BOOL": False},
            "null": {"NULL": True},
            "ss": {"SS": ["x"]},
            "ns": {"NS": ["3"]},
            "bs": {"BS": [b"\xfe"]},
            "l": {"L": [{"M": {"B": {"B": b"\x01"}}}, {"S": ""}]},
            "m": {"M": {"a.b": {"N": "-1"}}},
        }
        world.put(table, "a", **item)
        (record,) = read_stream(world.reader(table))
        expected = {
            **item,
            "id": {"S": "a"},
            "b": {"B": "AP8="},
            "bs": {"BS": ["/g=="]},
            "l": {"L": [{"M": {"B": {"B": "AQ=="}}}, {"S": ""}]},
        }
        assert json.loads(record.new_image or b"") == expected

    def test_reading_on_after_a_sequence_number(self, world: World) -> None:
        table = world.create_table()
        for total in range(1, 6):
            world.put(table, "a", total={"N": str(total)})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        later = read_shard(client, stream_arn, shard_id, after(records[1].sequence_number))
        assert later == records[2:]

    def test_latest_starts_with_what_comes_next(self, world: World) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        client = world.reader(table)
        stream_arn, shard_id, _ = _shard_of_the_item(client)
        iterator = client.shard_iterator(stream_arn, shard_id, IteratorStart(StartAt.LATEST))
        page = client.get_records(iterator)
        assert page.records == []
        assert page.next_iterator is not None
        world.put(table, "a", total={"N": "2"})
        (record,) = client.get_records(page.next_iterator).records
        assert _total(record.new_image) == "2"

    def test_an_iterator_can_be_used_again(self, world: World) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        iterator = client.shard_iterator(stream_arn, shard_id, TRIM_HORIZON)
        assert [client.get_records(iterator).records for _ in range(2)] == [records, records]

    def test_threads_read_side_by_side(self, world: World) -> None:
        tables = [world.create_table() for _ in range(4)]
        for number, table in enumerate(tables):
            world.put(table, "a", total={"N": str(number)})
        with ThreadPoolExecutor(4) as pool:
            streams = list(pool.map(lambda t: read_stream(world.reader(t)), tables * 3))
        totals = [[_total(record.new_image) for record in records] for records in streams]
        assert totals == [[str(number)] for number in range(4)] * 3


def _total(image: bytes | None) -> str:
    return str(json.loads(image or b"")["total"]["N"])


def _shard_of_the_item(client: StreamClient) -> tuple[str, str, list[ChangeRecord]]:
    """The one shard that has records, of a table with one item."""
    stream_arn = client.stream_arns()[-1]
    read = [
        (stream_arn, shard.shard_id, read_shard(client, stream_arn, shard.shard_id))
        for shard in client.describe(stream_arn).shards
    ]
    (found,) = [shard for shard in read if shard[2]]
    return found
