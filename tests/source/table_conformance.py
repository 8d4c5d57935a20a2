"""Conformance suite of every TableClient, against a DynamoDB that can be written to."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

import pytest

from datazone_dagster.errors import TableNotFoundError
from datazone_dagster.model.table_scan import ScannedItem, ScanPage, TableClient
from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients
from datazone_dagster.source.table_client import BotoTableClient

EVERY_TYPE: dict[str, Any] = {
    "s": {"S": 'quote " é 漢 \u2028'},
    "n": {"N": "12345678901234567890123456789012345678"},
    "b": {"B": b"\x00\xff"},
    "bool": {"BOOL": False},
    "null": {"NULL": True},
    "ns": {"NS": ["3"]},
    "bs": {"BS": [b"\xfe"]},
    "l": {"L": [{"M": {"B": {"B": b"\x01"}}}, {"S": ""}]},
    "m": {"M": {"a.b": {"N": "-1"}, "k": {"S": "not the key"}}},
}
AS_JSON = {
    **EVERY_TYPE,
    "b": {"B": "AP8="},
    "bs": {"BS": ["/g=="]},
    "l": {"L": [{"M": {"B": {"B": "AQ=="}}}, {"S": ""}]},
}


class TableWorld(Protocol):
    """A DynamoDB to write to, and table clients of the kind under test to read from."""

    @property
    def region(self) -> str: ...

    def reader(self, table_name: str) -> TableClient:
        """Return a client of a table, which may not exist."""
        ...

    def create_table(self, **key_types: str) -> str:
        """Create a table with these key attributes, partition key first; return its name."""
        ...

    def put(self, table_name: str, **item: Any) -> None: ...

    def put_many(self, table_name: str, items: list[dict[str, Any]]) -> None: ...

    def delete(self, table_name: str, **key: Any) -> None: ...


class BotoTableWorld:
    """`TableWorld` of any service with the API of DynamoDB."""

    region = "us-west-2"

    def __init__(self, endpoint_url: str) -> None:
        self.clients: Clients = build_clients(
            ConnectionSettings(
                region=self.region,
                endpoint_url=endpoint_url,
                aws_access_key_id="k",
                aws_secret_access_key="s",
            )
        )

    def reader(self, table_name: str) -> TableClient:
        return BotoTableClient(table_name, self.clients)

    def create_table(self, **key_types: str) -> str:
        key_types = key_types or {"k": "S"}
        name = f"t-{uuid.uuid4().hex[:12]}"
        create: Any = self.clients.dynamodb.create_table
        create(
            TableName=name,
            KeySchema=[
                {"AttributeName": attribute, "KeyType": kind}
                for attribute, kind in zip(key_types, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[
                {"AttributeName": attribute, "AttributeType": kind}
                for attribute, kind in key_types.items()
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        return name

    def put(self, table_name: str, **item: Any) -> None:
        self.clients.dynamodb.put_item(TableName=table_name, Item=item)

    def put_many(self, table_name: str, items: list[dict[str, Any]]) -> None:
        write: Any = self.clients.dynamodb.batch_write_item
        for start in range(0, len(items), 25):
            puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            write(RequestItems={table_name: puts})

    def delete(self, table_name: str, **key: Any) -> None:
        self.clients.dynamodb.delete_item(TableName=table_name, Key=key)


def pages_of(
    client: TableClient, segment: int = 0, segments: int = 1, *, consistent: bool = True
) -> list[ScanPage]:
    """Read a segment to its end."""
    pages: list[ScanPage] = []
    start: str | None = None
    for _ in range(100):
        page = client.scan_page(segment, segments, start, consistent=consistent)
        pages.append(page)
        start = page.next_key
        if start is None:
            return pages
    raise AssertionError("100 pages and no end")


def items_of(client: TableClient, segment: int = 0, segments: int = 1) -> list[ScannedItem]:
    return [item for page in pages_of(client, segment, segments) for item in page.items]


def numbered(count: int, filler: int = 0) -> list[dict[str, Any]]:
    return [{"k": {"S": f"item-{n}"}, "f": {"S": "x" * filler}} for n in range(count)]


class TableClientConformance(ABC):
    @pytest.fixture
    @abstractmethod
    def world(self, *args: TableWorld) -> TableWorld:
        raise NotImplementedError

    def test_the_description_of_a_table(self, world: TableWorld) -> None:
        table = world.create_table(z="S", a="N")
        world.put(table, z={"S": "x"}, a={"N": "1"})
        described = world.reader(table).describe_table()
        assert described.table_name == table
        assert described.table_arn is not None
        assert described.table_arn.endswith(f":table/{table}")
        assert world.region in described.table_arn
        assert described.key_names == ("z", "a")
        assert described.item_count == 1
        assert described.max_read_units is None

    def test_no_such_table(self, world: TableWorld) -> None:
        client = world.reader("no-such-table")
        with pytest.raises(TableNotFoundError, match=rf"no-such-table.*{world.region}"):
            client.describe_table()
        with pytest.raises(TableNotFoundError, match="no-such-table"):
            client.scan_page(0, 1, None, consistent=True)
        with pytest.raises(TableNotFoundError, match="no-such-table"):
            client.get_items(['{"k":{"S":"a"}}'])

    def test_an_empty_table(self, world: TableWorld) -> None:
        client = world.reader(world.create_table())
        (page,) = pages_of(client)
        assert list(page.items) == []
        assert client.get_items(['{"k":{"S":"a"}}']) == {}
        assert client.get_items([]) == {}

    def test_every_type_arrives_as_it_was_written(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put(table, k={"S": "a"}, **EVERY_TYPE)
        client = world.reader(table)
        (item,) = items_of(client)
        assert json.loads(item.keys) == {"k": {"S": "a"}}
        assert json.loads(item.image) == {"k": {"S": "a"}, **AS_JSON}
        assert item.size_bytes == len(item.image.encode())
        (image,) = client.get_items([item.keys]).values()
        assert json.loads(image) == json.loads(item.image)

    @pytest.mark.parametrize(
        ("kind", "value", "text"),
        [("S", 'é"\\\n', 'é"\\\n'), ("N", "-1.5", "-1.5")],
    )
    def test_keys_of_two_attributes(
        self, world: TableWorld, kind: str, value: Any, text: str
    ) -> None:
        table = world.create_table(a=kind, b=kind)
        world.put(table, b={kind: value}, a={kind: value}, other={"S": "x"})
        client = world.reader(table)
        (item,) = items_of(client)
        assert list(json.loads(item.keys)) == ["a", "b"]
        found = client.get_items([item.keys])
        assert set(found) == {item.keys}
        assert json.loads(found[item.keys])["other"] == {"S": "x"}
        assert json.loads(item.keys) == {"a": {kind: text}, "b": {kind: text}}

    def test_a_number_is_one_key_however_it_is_written(self, world: TableWorld) -> None:
        table = world.create_table(n="N")
        world.put(table, n={"N": "100"})
        world.put(table, n={"N": "7"})
        texts = ['{"n":{"N":"100"}}', '{"n": {"N": "100"}}']
        found = world.reader(table).get_items([*texts, '{"n":{"N":"101"}}'])
        assert set(found) == set(texts)

    def test_pages_of_a_table_of_several_megabytes(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(26, filler=100_000))
        pages = pages_of(world.reader(table))
        assert len(pages) >= 3
        assert sum(len(page.items) for page in pages) == 26
        assert len({item.keys for page in pages for item in page.items}) == 26
        assert all(sum(item.size_bytes for item in page.items) < 1_300_000 for page in pages)

    def test_read_units(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(10, filler=3_900))
        client = world.reader(table)
        (consistent,) = pages_of(client)
        (eventual,) = pages_of(client, consistent=False)
        assert consistent.read_units > 0
        assert eventual.read_units > 0

    def test_the_time_of_a_page_is_the_services(self, world: TableWorld) -> None:
        (page,) = pages_of(world.reader(world.create_table()))
        assert page.at.utcoffset() == timedelta(0)
        assert abs(page.at - datetime.now(timezone.utc)) < timedelta(minutes=1)

    def test_more_keys_than_one_request_takes(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(130))
        keys = [f'{{"k":{{"S":"item-{n}"}}}}' for n in range(230)]
        found = world.reader(table).get_items(keys)
        assert list(found) == keys[:130]
        assert all(json.loads(image)["k"] == json.loads(key)["k"] for key, image in found.items())

    def test_what_was_deleted_is_absent(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(3))
        world.delete(table, k={"S": "item-1"})
        client = world.reader(table)
        keys = [f'{{"k":{{"S":"item-{n}"}}}}' for n in range(3)]
        assert list(client.get_items(keys)) == [keys[0], keys[2]]
        left = [json.loads(item.keys)["k"]["S"] for item in items_of(client)]
        assert sorted(left) == ["item-0", "item-2"]

    def test_segments_share_the_table(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(200))
        client = world.reader(table)
        parts = [{item.keys for item in items_of(client, n, 7)} for n in range(7)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 200
        assert sum(map(bool, parts)) > 1

    def test_several_threads(self, world: TableWorld) -> None:
        tables = [world.create_table() for _ in range(2)]
        for count, table in enumerate(tables, start=4):
            world.put_many(table, numbered(count))
        clients = [world.reader(table) for table in tables]
        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(lambda n: len(items_of(clients[n % 2])), range(40)))
        assert counts == [4, 5] * 20


class ServiceTableConformance(TableClientConformance):
    """What moto does otherwise: binary keys, read units, tables by their ARN."""

    def test_binary_keys(self, world: TableWorld) -> None:
        table = world.create_table(a="B", b="B")
        world.put(table, b={"B": b"\x00\xfe"}, a={"B": b"\xff"})
        client = world.reader(table)
        (item,) = items_of(client)
        assert json.loads(item.keys) == {"a": {"B": "/w=="}, "b": {"B": "AP4="}}
        assert set(client.get_items([item.keys])) == {item.keys}

    def test_a_binary_start_key(self, world: TableWorld) -> None:
        table = world.create_table(k="B")
        items = [{"k": {"B": bytes([n, 255])}, "f": {"S": "x" * 300_000}} for n in range(8)]
        for item in items:
            world.put(table, **item)
        assert len({item.keys for item in items_of(world.reader(table))}) == 8

    def test_units_of_a_page_are_those_of_its_bytes(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(10, filler=4_088))  # 4,096 bytes each, with their key
        client = world.reader(table)
        (consistent,) = pages_of(client)
        (eventual,) = pages_of(client, consistent=False)
        assert consistent.read_units == 10
        assert eventual.read_units == 5

    def test_a_table_by_its_arn(self, world: TableWorld) -> None:
        table = world.create_table()
        world.put_many(table, numbered(3))
        described = world.reader(table).describe_table()
        arn = described.table_arn
        assert arn is not None
        assert described.table_id
        client = world.reader(arn)
        assert client.describe_table().table_arn == arn
        assert client.describe_table().table_id == described.table_id
        keys = [item.keys for item in items_of(client)]
        assert len(client.get_items(keys)) == 3
