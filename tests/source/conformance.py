"""Conformance suite of every StreamClient, against a DynamoDB that can be written to.

`AnyStreamConformance` needs tables and plain writes only. `AnyShardedConformance` adds what a test
has to control: shards, the clock, faults. `StreamClientConformance` and `ShardedStreamConformance`
add what only streams of DynamoDB have, such as a trim horizon that they tell. A subclass provides
`world`. Each test creates a table of its own, so that one server serves all.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

import pytest

from datazone_dagster.errors import (
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    StreamDisabledError,
    TableNotFoundError,
    ThrottledError,
    TrimmedDataError,
    ViewTypeError,
)
from datazone_dagster.local import Fault, FaultKind
from datazone_dagster.model.protocols import ListsInParts, StreamClient
from datazone_dagster.model.record import ChangeRecord, RecordsPage
from datazone_dagster.model.service_limits import (
    ITERATOR_LIFETIME_SECONDS,
    KINESIS_PAGE_RECORDS,
    PAGE_BYTES,
    PAGE_RECORDS,
)
from datazone_dagster.model.shard import (
    TRIM_HORIZON,
    IteratorStart,
    Shard,
    StartAt,
    after,
    is_kinesis,
)
from datazone_dagster.source import listed_streams
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients

MAX_PAGES = 50
IDS = [f"item-{number}" for number in range(12)]
LATEST = IteratorStart(StartAt.LATEST)


class World(Protocol):
    """A DynamoDB to write to, and stream clients of the kind under test to read from.

    Items have the string key `id`. Attribute values have the form that boto3 takes, so binaries
    are `bytes`.
    """

    @property
    def region(self) -> str: ...

    def reader(self, table_name: str) -> StreamClient:
        """Return a client of a table, which may not exist."""
        ...

    def create_table(self, view_type: str | None = "NEW_AND_OLD_IMAGES") -> str:
        """Create a table and return its name; without a view type it has no stream."""
        ...

    def delete_table(self, table_name: str) -> None: ...

    def put(self, table_name: str, item_id: str, **attributes: Any) -> None: ...

    def delete(self, table_name: str, item_id: str) -> None: ...


class ControlledWorld(World, Protocol):
    """A world in which a test decides what the service would decide. A stream has two shards."""

    @property
    def iterator_seconds(self) -> float: ...

    def put_many(self, table_name: str, item_ids: list[str]) -> None: ...

    def disable_stream(self, table_name: str) -> None: ...

    def enable_stream(self, table_name: str) -> None: ...

    def shard_ids(self, table_name: str) -> list[str]:
        """Return the shards that the newest stream has now, in creation order."""
        ...

    def split(self, table_name: str) -> None:
        """Split the oldest open shard."""
        ...

    def roll(self, table_name: str) -> None:
        """Replace the oldest open shard by one child."""
        ...

    def trim(self, table_name: str) -> None:
        """Trim every record so far. Closed shards go too."""
        ...

    def trim_through(self, table_name: str, shard_id: str, sequence_number: int) -> None:
        """Trim one shard up to and including a sequence number."""
        ...

    def now(self) -> float:
        """Return the time of the service, in seconds since 1970."""
        ...

    def advance_clock(self, seconds: float) -> None: ...

    def expire_items(self, table_name: str, attribute: str) -> None:
        """Delete the items whose time to live, in this attribute, has passed."""
        ...

    def insert_empty_page(self, table_name: str, shard_id: str) -> None:
        """Let the next page of a shard be empty, although records follow."""
        ...

    def insert_malformed(self, table_name: str, payload: str) -> None:
        """Insert JSON that is not a stream record into a shard."""
        ...

    def set_faults(self, *faults: Fault) -> None:
        """Let calls fail from now on; without faults none do."""
        ...


class BotoWorld:
    """`World` of any service with the API of DynamoDB."""

    region = "us-west-2"
    iterator_seconds = ITERATOR_LIFETIME_SECONDS

    def __init__(self, endpoint_url: str, *, raw_pages: bool) -> None:
        self._raw_pages = raw_pages
        self.clients: Clients = build_clients(
            ConnectionSettings(
                region=self.region,
                endpoint_url=endpoint_url,
                aws_access_key_id="k",
                aws_secret_access_key="s",
            )
        )

    def reader(self, table_name: str) -> StreamClient:
        return BotoStreamClient(table_name, self.clients, raw_pages=self._raw_pages)

    def create_table(self, view_type: str | None = "NEW_AND_OLD_IMAGES") -> str:
        name = new_table_name()
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

    def delete_table(self, table_name: str) -> None:
        self.clients.dynamodb.delete_table(TableName=table_name)

    def put(self, table_name: str, item_id: str, **attributes: Any) -> None:
        self.clients.dynamodb.put_item(
            TableName=table_name, Item={"id": {"S": item_id}, **attributes}
        )

    def put_many(self, table_name: str, item_ids: list[str]) -> None:
        write: Any = self.clients.dynamodb.batch_write_item
        for start in range(0, len(item_ids), 25):
            puts = [
                {"PutRequest": {"Item": {"id": {"S": item_id}}}}
                for item_id in item_ids[start : start + 25]
            ]
            write(RequestItems={table_name: puts})

    def delete(self, table_name: str, item_id: str) -> None:
        self.clients.dynamodb.delete_item(TableName=table_name, Key={"id": {"S": item_id}})


def new_table_name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def read_pages(
    client: StreamClient, stream_arn: str, shard_id: str, start: IteratorStart = TRIM_HORIZON
) -> list[RecordsPage]:
    """Read to the end of the shard, or to its latest position: the first empty page."""
    pages: list[RecordsPage] = []
    is_ordered = not is_kinesis(stream_arn)
    iterator: str | None = client.shard_iterator(stream_arn, shard_id, start)
    for _ in range(MAX_PAGES):
        assert iterator is not None
        page = client.get_records(iterator)
        assert page.malformed == []
        assert page.body_bytes > sum(_text_bytes(record) for record in page.records)
        assert len(page.records) <= (PAGE_RECORDS if is_ordered else KINESIS_PAGE_RECORDS)
        pages.append(page)
        iterator = page.next_iterator
        if iterator is None or not page.records:
            return pages
    raise AssertionError(f"{MAX_PAGES} pages and no end")


def position_of(record: ChangeRecord) -> int:
    """Return the number of a record in its shard."""
    return record.sequence_number if record.position is None else record.position


def _text_bytes(record: ChangeRecord) -> int:
    return sum(len(text or b"") for text in (record.keys, record.new_image, record.old_image))


def read_shard(
    client: StreamClient, stream_arn: str, shard_id: str, start: IteratorStart = TRIM_HORIZON
) -> list[ChangeRecord]:
    """Return the records of `read_pages`."""
    pages = read_pages(client, stream_arn, shard_id, start)
    return [record for page in pages for record in page.records]


def read_stream(client: StreamClient) -> list[ChangeRecord]:
    stream_arn = client.stream_arns()[-1]
    shards = client.describe(stream_arn).shards
    return [r for shard in shards for r in read_shard(client, stream_arn, shard.shard_id)]


class AnyStreamConformance(ABC):
    """What streams of DynamoDB and of Kinesis have in common."""

    @pytest.fixture
    @abstractmethod
    def world(self, *args: World) -> World:
        raise NotImplementedError

    def test_no_such_table(self, world: World) -> None:
        with pytest.raises(TableNotFoundError, match=rf"no-such-table.*{world.region}"):
            world.reader("no-such-table").stream_arns()

    def test_a_deleted_table(self, world: World) -> None:
        table = world.create_table()
        world.delete_table(table)
        with pytest.raises(TableNotFoundError, match=table):
            world.reader(table).stream_arns()

    def test_a_table_without_a_stream(self, world: World) -> None:
        table = world.create_table(view_type=None)
        world.put(table, "a")
        with pytest.raises(
            StreamDisabledError, match=rf"{table}.*(NEW_AND_OLD_IMAGES|enable-kinesis)"
        ):
            world.reader(table).stream_arns()

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
        assert all(record.size_bytes > 0 for record in records)
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

    def test_an_item_is_stored_as_it_was_when_it_was_written(self, world: World) -> None:
        table = world.create_table()
        tags: list[Any] = [{"S": "x"}]
        world.put(table, "a", tags={"L": tags})
        tags.append({"S": "y"})
        world.put(table, "a", tags={"L": tags})
        insert, modify = read_stream(world.reader(table))
        images = [insert.new_image, modify.old_image, modify.new_image]
        assert [len(json.loads(image or b"")["tags"]["L"]) for image in images] == [1, 1, 2]

    def test_reading_on_after_a_sequence_number(self, world: World) -> None:
        table = world.create_table()
        for total in range(1, 6):
            world.put(table, "a", total={"N": str(total)})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        for position, record in enumerate(records):
            later = read_shard(client, stream_arn, shard_id, after(position_of(record)))
            assert later == records[position + 1 :]

    def test_latest_starts_with_what_comes_next(self, world: World) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        client = world.reader(table)
        stream_arn, shard_id, _ = _shard_of_the_item(client)
        iterator = client.shard_iterator(stream_arn, shard_id, LATEST)
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


class StreamClientConformance(AnyStreamConformance):
    """Adds what only streams of DynamoDB have."""

    def test_the_stream_of_a_table(self, world: World) -> None:
        table = world.create_table()
        client = world.reader(table)
        (stream_arn,) = client.stream_arns()
        shards = client.describe(stream_arn).shards
        assert all(shard.starting_sequence_number is not None for shard in shards)
        prefix, _, label = stream_arn.partition("/stream/")
        assert prefix.endswith(f":table/{table}")
        assert world.region in prefix
        assert datetime.fromisoformat(label)  # time of creation: gaps between streams end there

    def test_a_stream_without_new_images(self, world: World) -> None:
        client = world.reader(world.create_table("KEYS_ONLY"))
        (stream_arn,) = client.stream_arns()
        with pytest.raises(ViewTypeError, match="KEYS_ONLY"):
            client.describe(stream_arn)

    def test_a_stream_without_old_images(self, world: World) -> None:
        table = world.create_table("NEW_IMAGE")
        world.put(table, "a", total={"N": "1"})
        world.put(table, "a", total={"N": "2"})
        world.delete(table, "a")
        client = world.reader(table)
        assert client.describe(client.stream_arns()[-1]).view_type == "NEW_IMAGE"
        records = read_stream(client)
        assert [record.event_name for record in records] == ["INSERT", "MODIFY", "REMOVE"]
        assert {(record.view_type, record.old_image) for record in records} == {("NEW_IMAGE", None)}
        assert [_total(record.new_image) for record in records[:2]] == ["1", "2"]
        assert records[2].new_image is None


class AnyShardedConformance(AnyStreamConformance):
    """Adds what needs control over shards, the clock and faults."""

    def test_records_name_their_region(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a")
        assert [r.region for r in read_stream(world.reader(table))] == [world.region]

    def test_a_write_without_a_change_makes_no_record(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        world.put(table, "a", total={"N": "1"})
        world.delete(table, "b")
        assert [r.event_name for r in read_stream(world.reader(table))] == ["INSERT"]

    def test_a_closed_shard_ends_with_its_records(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put_many(table, IDS)
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        open_shard = client.describe(stream_arn).shards[0]
        before = client.shard_iterator(stream_arn, open_shard.shard_id, TRIM_HORIZON)
        world.split(table)
        closed = client.describe(stream_arn).shards[0]
        assert closed.shard_id == open_shard.shard_id
        assert closed.ending_sequence_number is not None
        pages = read_pages(client, stream_arn, closed.shard_id)
        assert pages[-1].next_iterator is None
        records = [record for page in pages for record in page.records]
        assert records
        assert position_of(records[-1]) <= closed.ending_sequence_number
        first = client.get_records(before).records
        assert first
        assert first == records[: len(first)]
        for start in (LATEST, after(closed.ending_sequence_number)):
            (end,) = read_pages(client, stream_arn, closed.shard_id, start)
            assert (list(end.records), end.next_iterator) == ([], None)

    def test_an_empty_page_is_not_the_end(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        world.insert_empty_page(table, shard_id)
        world.put(table, "a", total={"N": "2"})
        start = after(position_of(records[-1]))
        page = client.get_records(client.shard_iterator(stream_arn, shard_id, start))
        assert page.records == []
        assert page.body_bytes > 0
        assert page.next_iterator is not None
        (record,) = client.get_records(page.next_iterator).records
        assert _total(record.new_image) == "2"

    def test_an_iterator_expires(self, world: ControlledWorld) -> None:
        table = world.create_table()
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        shard_id = client.describe(stream_arn).shards[0].shard_id
        iterator = client.shard_iterator(stream_arn, shard_id, TRIM_HORIZON)
        world.advance_clock(world.iterator_seconds - 60)
        following = client.get_records(iterator).next_iterator
        assert following is not None
        world.advance_clock(120)
        with pytest.raises(ExpiredIteratorError):
            client.get_records(iterator)
        assert client.get_records(following).next_iterator  # its own lifetime

    def test_an_iterator_that_the_service_did_not_issue(self, world: ControlledWorld) -> None:
        client = world.reader(world.create_table())
        with pytest.raises(SourceError):
            client.get_records("nonsense")

    def test_a_delete_by_time_to_live(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a", ends={"N": str(int(world.now()) - 60)})
        world.put(table, "b", ends={"N": str(int(world.now()) + 600)})
        world.expire_items(table, "ends")
        records = read_stream(world.reader(table))
        (remove,) = (record for record in records if record.event_name == "REMOVE")
        assert json.loads(remove.keys) == {"id": {"S": "a"}}
        assert (remove.user_type, remove.user_principal) == ("Service", "dynamodb.amazonaws.com")
        others = [(r.user_type, r.user_principal) for r in records if r is not remove]
        assert others == [(None, None)] * 2

    @pytest.mark.parametrize(
        ("kind", "raised"),
        [
            (FaultKind.LIMIT_EXCEEDED, ThrottledError),
            (FaultKind.INTERNAL_ERROR, ServiceUnavailableError),
            (FaultKind.CONNECTION_RESET, ServiceUnavailableError),
            (FaultKind.EXPIRED_ITERATOR, ExpiredIteratorError),
            (FaultKind.TRIMMED, TrimmedDataError),
            (FaultKind.NOT_FOUND, ShardNotFoundError),
        ],
    )
    def test_a_shard_that_can_not_be_read(
        self, world: ControlledWorld, kind: FaultKind, raised: type[SourceError]
    ) -> None:
        client = world.reader(world.create_table())
        stream_arn = client.stream_arns()[-1]
        healthy, failing = (
            client.shard_iterator(stream_arn, shard.shard_id, TRIM_HORIZON)
            for shard in client.describe(stream_arn).shards
        )
        fault = Fault("GetRecords", kind, shard=1, times=None)
        _fails_under(world, lambda: client.get_records(failing), fault, raised)
        world.set_faults(fault)
        assert client.get_records(healthy).next_iterator


class ShardedStreamConformance(AnyShardedConformance, StreamClientConformance):
    """Adds what only streams of DynamoDB have, the trim horizon among it."""

    def test_an_item_moves_on_through_a_split_and_a_roll(self, world: ControlledWorld) -> None:
        table = world.create_table()
        for round_number in range(3):
            for item_id in IDS:
                world.put(table, item_id, round={"N": str(round_number)})
            if round_number == 0:
                world.split(table)
            elif round_number == 1:
                world.roll(table)
        client = world.reader(table)
        shards = client.describe(client.stream_arns()[-1]).shards

        assert world.shard_ids(table) == [shard.shard_id for shard in shards]
        by_id = {shard.shard_id: shard for shard in shards}
        assert [len(shards), sum(shard.is_open for shard in shards)] == [5, 3]
        for shard in shards:
            if shard.parent_shard_id is not None:
                _starts_after(shard, by_id[shard.parent_shard_id])
        # Parents are listed before their children.
        assert set(_rounds(read_stream(client)).values()) == {("0", "1", "2")}

    def test_more_shards_than_a_page_of_the_listing(self, world: ControlledWorld) -> None:
        table = world.create_table()
        for _ in range(105):
            world.roll(table)
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        shards = client.describe(stream_arn).shards
        assert len({shard.shard_id for shard in shards}) == 107
        assert isinstance(client, ListsInParts)
        first = client.describe_page(stream_arn, None)
        second = client.describe_page(stream_arn, first.last)
        assert (first.stream.shards + second.stream.shards, second.last) == (shards, None)

    def test_the_children_of_a_shard(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.split(table)
        world.roll(table)
        client = world.reader(table)
        assert isinstance(client, ListsInParts)
        stream_arn = client.stream_arns()[-1]
        shards = client.describe(stream_arn).shards
        for parent in shards:
            found = client.children(stream_arn, parent.shard_id)
            assert found == tuple(
                shard for shard in shards if shard.parent_shard_id == parent.shard_id
            )

    def test_more_records_than_a_page(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put_many(table, [str(number) for number in range(2500)])
        records = read_stream(world.reader(table))
        assert {json.loads(record.keys)["id"]["S"] for record in records} == set(
            map(str, range(2500))
        )
        assert len(records) == 2500

    def test_more_bytes_than_a_page(self, world: ControlledWorld) -> None:
        table = world.create_table()
        for number in range(20):
            world.put(table, "a", n={"N": str(number)}, text={"S": "x" * 60_000})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        assert len(records) == 20
        pages = read_pages(client, stream_arn, shard_id)
        assert [len(page.records) > 0 for page in pages] == [True, True, True, False]
        assert all(page.body_bytes < PAGE_BYTES + 1_000 for page in pages)
        for _ in world.shard_ids(table):
            world.roll(table)
        closed = read_pages(client, stream_arn, shard_id)  # only its last page is its end
        assert [page.records for page in closed] == [page.records for page in pages[:3]]
        assert [page.next_iterator is None for page in closed] == [False, False, True]

    def test_a_record_larger_than_a_page_comes_alone(self, world: ControlledWorld) -> None:
        table = world.create_table()
        for fill in ("\x01", "\x02"):  # control characters are six bytes each in JSON
            world.put(table, "a", text={"S": fill * 380_000})
        client = world.reader(table)
        stream_arn, shard_id, _ = _shard_of_the_item(client)
        pages = read_pages(client, stream_arn, shard_id)
        assert [len(page.records) for page in pages] == [1, 1, 0]

    def test_trimmed_records(self, world: ControlledWorld) -> None:
        table = world.create_table()
        for total in range(4):
            world.put(table, "a", total={"N": str(total)})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        numbers = [record.sequence_number for record in records]
        world.trim_through(table, shard_id, numbers[2])
        # Older than the trim point, as the API reference has it, even if no record after it is
        # lost: numbers[2].
        for number in numbers[:3]:
            with pytest.raises(TrimmedDataError):
                client.shard_iterator(stream_arn, shard_id, after(number))
        (last,) = read_shard(client, stream_arn, shard_id)
        assert last.sequence_number == numbers[3]
        assert read_shard(client, stream_arn, shard_id, after(numbers[3])) == []

    def test_records_trimmed_before_an_iterator_is_used(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a", total={"N": "1"})
        client = world.reader(table)
        stream_arn, shard_id, records = _shard_of_the_item(client)
        first = client.shard_iterator(stream_arn, shard_id, TRIM_HORIZON)
        second = client.get_records(first).next_iterator
        world.trim_through(table, shard_id, records[0].sequence_number)
        world.put(table, "a", total={"N": "2"})
        with pytest.raises(TrimmedDataError):
            client.get_records(first)
        # It had passed the trimmed record: none is missing.
        assert second is not None
        (record,) = client.get_records(second).records
        assert _total(record.new_image) == "2"

    def test_a_closed_shard_vanishes_with_its_records(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put_many(table, IDS)
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        parent, other = (shard.shard_id for shard in client.describe(stream_arn).shards)
        iterator = client.shard_iterator(stream_arn, parent, TRIM_HORIZON)
        world.roll(table)
        world.trim(table)
        shards = client.describe(stream_arn).shards
        assert [shard.shard_id for shard in shards] == world.shard_ids(table)
        assert [shard.parent_shard_id for shard in shards] == [None, parent]
        assert shards[0].shard_id == other
        with pytest.raises(ShardNotFoundError):
            client.shard_iterator(stream_arn, parent, TRIM_HORIZON)
        with pytest.raises(ShardNotFoundError):
            client.get_records(iterator)
        assert read_stream(client) == []

    def test_a_sequence_number_that_is_not_in_the_shard(self, world: ControlledWorld) -> None:
        table = world.create_table()
        client = world.reader(table)
        stream_arn = client.stream_arns()[-1]
        first = client.describe(stream_arn).shards[0]
        world.roll(table)
        closed = client.describe(stream_arn).shards[0]
        assert closed.starting_sequence_number is not None
        assert closed.ending_sequence_number is not None
        for number in (closed.starting_sequence_number - 1, closed.ending_sequence_number + 1):
            with pytest.raises(SourceError) as refused:
                client.shard_iterator(stream_arn, first.shard_id, after(number))
            assert not isinstance(refused.value, (TrimmedDataError, ShardNotFoundError))

    def test_an_unknown_shard(self, world: ControlledWorld) -> None:
        client = world.reader(world.create_table())
        stream_arn = client.stream_arns()[-1]
        with pytest.raises(ShardNotFoundError):
            client.shard_iterator(stream_arn, "shardId-00000000000000000009-00000000", TRIM_HORIZON)
        with pytest.raises(ShardNotFoundError):
            client.describe(stream_arn.rpartition("/")[0] + "/2001-01-01T00:00:00.000")

    def test_a_disabled_stream_and_its_successor(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a")
        client = world.reader(table)
        (old,) = client.stream_arns()
        world.disable_stream(table)
        assert client.stream_arns() == (old,)
        described = client.describe(old)
        assert not described.enabled
        assert not any(shard.is_open for shard in described.shards)
        world.put(table, "unseen")

        world.enable_stream(table)
        world.put(table, "b")
        streams = client.stream_arns()
        assert len(streams) == 2
        assert streams[0] == old
        assert [json.loads(r.keys)["id"]["S"] for r in read_stream(client)] == ["b"]
        old_records = [
            r for shard in described.shards for r in read_shard(client, old, shard.shard_id)
        ]
        assert [json.loads(r.keys)["id"]["S"] for r in old_records] == ["a"]

    def test_the_stream_of_a_deleted_table_stays_readable(self, world: ControlledWorld) -> None:
        table = world.create_table()
        world.put(table, "a")
        client = world.reader(table)
        (stream_arn,) = client.stream_arns()
        world.delete_table(table)
        described = client.describe(stream_arn)
        assert not described.enabled
        records = [
            r for shard in described.shards for r in read_shard(client, stream_arn, shard.shard_id)
        ]
        assert [record.event_name for record in records] == ["INSERT"]

    @pytest.mark.parametrize("number", ["100000000000000000001", None])
    def test_a_malformed_record_in_the_middle(
        self, world: ControlledWorld, number: str | None
    ) -> None:
        payload: dict[str, Any] = {"eventName": "MODIFY", "dynamodb": {}}
        if number is not None:
            payload["dynamodb"]["SequenceNumber"] = number
        pages = pages_with(world, json.dumps(payload))
        assert sum(len(page.records) for page in pages) == 1
        found = {bad.sequence_number for page in pages for bad in page.malformed}
        assert found == {None if number is None else int(number)}
        assert all(bad.reason for page in pages for bad in page.malformed)

    @pytest.mark.parametrize("operation", ["ListStreams", "DescribeTable", "DescribeStream"])
    def test_a_listing_that_fails(
        self, world: ControlledWorld, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listed_streams, "STREAMS_LISTED_SECONDS", 0.0)
        client = world.reader(world.create_table())
        stream_arn = client.stream_arns()[-1]

        def call() -> object:
            described = operation == "DescribeStream"
            return client.describe(stream_arn) if described else client.stream_arns()

        _fails_under(world, call, Fault(operation, FaultKind.INTERNAL_ERROR, times=None))

    @pytest.mark.parametrize("operation", ["ListStreams", "DescribeTable"])
    def test_a_table_that_is_not_found(
        self, world: ControlledWorld, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listed_streams, "STREAMS_LISTED_SECONDS", 0.0)
        client = world.reader(world.create_table())
        missing = Fault(operation, FaultKind.NOT_FOUND, times=None)
        _fails_under(world, client.stream_arns, missing, TableNotFoundError)

    def test_threads_read_while_another_writes_and_splits(self, world: ControlledWorld) -> None:
        table = world.create_table()
        client = world.reader(table)
        done = threading.Event()

        def follow() -> list[list[ChangeRecord]]:
            streams = []
            while not done.is_set():
                streams.append(read_stream(client))
            return [*streams, read_stream(client)]

        with _threads_that_interleave(), ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(follow) for _ in range(3)]
            try:
                for number in range(180):
                    world.put(table, IDS[number % 12], round={"N": str(number // 12)})
                    if number % 12 == 7:
                        world.roll(table)
            finally:
                done.set()
            streams = [records for reader in readers for records in reader.result()]
        rounds = tuple(str(number) for number in range(15))
        for records in streams:
            for seen in _rounds(records).values():
                assert seen == rounds[: len(seen)]
        assert len(read_stream(client)) == 180


class RawRecordsConformance:
    """Clients that deliver a malformed record as the bytes that arrived."""

    @pytest.mark.parametrize("payload", ['{"dynamodb":"not a record"}', "5", "null", "[]"])
    def test_a_payload_that_is_not_a_record(self, world: ControlledWorld, payload: str) -> None:
        pages = pages_with(world, payload)
        assert sum(len(page.records) for page in pages) == 1
        malformed = [bad for page in pages for bad in page.malformed]
        assert {(bad.raw, bad.sequence_number) for bad in malformed} == {(payload.encode(), None)}


def pages_with(world: ControlledWorld, payload: str) -> list[RecordsPage]:
    """Return the first page of each shard of a table with one item, with the payload inserted."""
    table = world.create_table()
    world.put(table, "a")
    world.insert_malformed(table, payload)
    client = world.reader(table)
    stream_arn = client.stream_arns()[-1]
    return [
        client.get_records(client.shard_iterator(stream_arn, shard.shard_id, TRIM_HORIZON))
        for shard in client.describe(stream_arn).shards
    ]


def _fails_under(
    world: ControlledWorld,
    call: Callable[[], object],
    fault: Fault,
    raised: type[SourceError] = ServiceUnavailableError,
) -> None:
    """Check that a call fails under the fault, and works before and after it."""
    assert call()
    world.set_faults(fault)
    with pytest.raises(raised) as found:
        call()
    assert type(found.value) is raised
    world.set_faults()
    assert call()


@contextmanager
def _threads_that_interleave() -> Iterator[None]:
    """Switch threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _starts_after(child: Shard, parent: Shard) -> None:
    assert child.starting_sequence_number is not None
    assert parent.ending_sequence_number is not None
    assert child.starting_sequence_number > parent.ending_sequence_number


def _rounds(records: list[ChangeRecord]) -> dict[str, tuple[str, ...]]:
    """Return the `round` attribute of each item's changes, in the order of the records."""
    rounds: dict[str, tuple[str, ...]] = {}
    for record in records:
        item = json.loads(record.new_image or b"")
        item_id = item["id"]["S"]
        rounds[item_id] = (*rounds.get(item_id, ()), item["round"]["N"])
    return rounds


def _total(image: bytes | None) -> str:
    return str(json.loads(image or b"")["total"]["N"])


def _shard_of_the_item(client: StreamClient) -> tuple[str, str, list[ChangeRecord]]:
    """Return the one shard with records, for a table with one item."""
    stream_arn = client.stream_arns()[-1]
    read = [
        (stream_arn, shard.shard_id, read_shard(client, stream_arn, shard.shard_id))
        for shard in client.describe(stream_arn).shards
    ]
    (found,) = [shard for shard in read if shard[2]]
    return found
