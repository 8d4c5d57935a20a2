from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

from datazone_dagster.local.stream_log import after_sequence
from datazone_dagster.model.service_limits import PAGE_BYTES
from tests.local.stream_reading import (
    Clients,
    Table,
    create_table,
    error_code,
    iterator,
    list_shards,
    read_from,
    read_shard,
)


def _start(shard: Any) -> int:
    return int(shard["SequenceNumberRange"]["StartingSequenceNumber"])


def _end(shard: Any) -> int:
    return int(shard["SequenceNumberRange"]["EndingSequenceNumber"])


def test_a_new_stream_has_open_root_shards(table: Table) -> None:
    shards = table.shards()
    assert len(shards) == 2
    for shard in shards:
        assert re.fullmatch(r"shardId-\d{20}-[0-9a-f]{8}", shard["ShardId"])
        assert "ParentShardId" not in shard
        assert "EndingSequenceNumber" not in shard["SequenceNumberRange"]


def test_a_split_closes_the_parent_and_divides_its_keys(table: Table) -> None:
    for n in range(60):
        table.put(str(n))
    parent = table.shards()[0]["ShardId"]
    children = table.clients.admin.split(table.name, 0)
    for n in range(60):
        table.put(str(n), again={"BOOL": True})
    shards = {shard["ShardId"]: shard for shard in table.shards()}
    assert [shards[child]["ParentShardId"] for child in children] == [parent, parent]
    keys = {
        shard_id: {
            record["dynamodb"]["Keys"]["id"]["S"]
            for record in read_shard(table.clients, table.stream_arn, shard_id)
        }
        for shard_id in shards
    }
    left, right = (keys[child] for child in children)
    assert left
    assert right
    assert not left & right
    assert left | right == keys[parent]
    assert all(_start(shards[child]) > _end(shards[parent]) for child in children)


def test_a_roll_gives_one_child_with_the_same_keys(table: Table) -> None:
    parent = table.shards()[1]["ShardId"]
    (child,) = table.clients.admin.roll(table.name, parent)
    shards = {shard["ShardId"]: shard for shard in table.shards()}
    assert shards[child]["ParentShardId"] == parent
    assert _start(shards[child]) > _end(shards[parent])
    with pytest.raises(Exception, match="is closed"):
        table.clients.admin.roll(table.name, parent)


def test_shards_are_listed_page_by_page(table: Table) -> None:
    for _ in range(5):
        table.clients.admin.roll(table.name)
    everything = table.shards()
    assert len(everything) == 7
    paged = list_shards(table.clients, table.stream_arn, Limit=2)
    assert paged == everything
    assert [s["ShardId"] for s in everything] == sorted(s["ShardId"] for s in everything)


def test_more_than_a_hundred_shards_take_two_pages(clients: Clients) -> None:
    table = create_table(clients, "many-shards")
    for _ in range(101):
        clients.admin.roll(table.name)
    first = clients.streams.describe_stream(StreamArn=table.stream_arn)["StreamDescription"]
    assert len(first["Shards"]) == 100
    assert "LastEvaluatedShardId" in first
    assert len(table.shards()) == 103


def test_children_of_one_shard(table: Table) -> None:
    parent, other = (shard["ShardId"] for shard in table.shards())
    children = table.clients.admin.split(table.name, parent)

    def filtered(shard_id: str) -> list[str]:
        shards = list_shards(
            table.clients,
            table.stream_arn,
            ShardFilter={"Type": "CHILD_SHARDS", "ShardId": shard_id},
        )
        return [shard["ShardId"] for shard in shards]

    assert filtered(parent) == children
    assert filtered(other) == []


def _one_shard(table: Table) -> tuple[str, list[Any]]:
    """Return a shard with at least four records, and its records."""
    for n in range(24):
        table.put(str(n))
    shard_id = table.shards()[0]["ShardId"]
    return shard_id, read_shard(table.clients, table.stream_arn, shard_id)


def test_iterator_types(table: Table) -> None:
    shard_id, records = _one_shard(table)
    clients, arn = table.clients, table.stream_arn
    third = records[2]["dynamodb"]["SequenceNumber"]

    def read(kind: str, **request: Any) -> list[Any]:
        return read_from(clients, iterator(clients, arn, shard_id, kind, **request))

    assert read("TRIM_HORIZON") == records
    assert read("AT_SEQUENCE_NUMBER", SequenceNumber=third) == records[2:]
    assert read("AFTER_SEQUENCE_NUMBER", SequenceNumber=third) == records[3:]
    latest = iterator(clients, arn, shard_id, "LATEST")
    for n in range(24):
        table.put(str(n), late={"BOOL": True})
    assert [r["eventName"] for r in read_from(clients, latest)] == ["MODIFY"] * len(records)


def test_an_iterator_continues_after_an_empty_page(table: Table) -> None:
    shard_id, _ = _one_shard(table)
    clients = table.clients
    start = iterator(clients, table.stream_arn, shard_id, "LATEST")
    page = clients.streams.get_records(ShardIterator=start)
    assert page["Records"] == []
    for n in range(24):
        table.put(str(n), late={"BOOL": True})
    assert read_from(clients, page["NextShardIterator"])


def test_the_last_page_of_a_closed_shard_has_records_and_no_iterator(table: Table) -> None:
    shard_id, records = _one_shard(table)
    clients = table.clients
    start = iterator(clients, table.stream_arn, shard_id)
    clients.admin.roll(table.name, shard_id)
    full = clients.streams.get_records(ShardIterator=start)
    assert full["Records"] == records
    assert "NextShardIterator" not in full
    partial = clients.streams.get_records(ShardIterator=start, Limit=len(records) - 1)
    assert "NextShardIterator" in partial
    rest = clients.streams.get_records(ShardIterator=partial["NextShardIterator"])
    assert rest["Records"] == records[-1:]
    assert "NextShardIterator" not in rest
    # At the end of a closed shard there is nothing to read, and no iterator.
    end = table.shards()[0]["SequenceNumberRange"]["EndingSequenceNumber"]
    at_end = iterator(
        clients, table.stream_arn, shard_id, "AFTER_SEQUENCE_NUMBER", SequenceNumber=end
    )
    empty = clients.streams.get_records(ShardIterator=at_end)
    assert empty["Records"] == []
    assert "NextShardIterator" not in empty


def test_a_page_holds_a_thousand_records_or_one_megabyte(clients: Clients) -> None:
    small, large = create_table(clients, "small-records"), create_table(clients, "large-records")
    for table, size_bytes, count in ((small, 10, 2100), (large, 20_000, 130)):
        for n in range(0, count, 25):
            puts: Any = [
                {"PutRequest": {"Item": {"id": {"S": str(n + i)}, "x": {"S": "x" * size_bytes}}}}
                for i in range(min(25, count - n))
            ]
            clients.dynamodb.batch_write_item(RequestItems={table.name: puts})
    first = iterator(clients, small.stream_arn, small.shards()[0]["ShardId"])
    assert len(clients.streams.get_records(ShardIterator=first)["Records"]) == 1000
    assert len(small.records()) == 2100
    first = iterator(clients, large.stream_arn, large.shards()[0]["ShardId"])
    page = clients.streams.get_records(ShardIterator=first)
    length = int(page["ResponseMetadata"]["HTTPHeaders"]["content-length"])
    assert PAGE_BYTES - 21_000 < length < PAGE_BYTES + 1000
    assert len(large.records()) == 130


def test_a_record_larger_than_a_page_comes_alone(clients: Clients) -> None:
    table = create_table(clients, "largest-records")
    for fill in ("\x01", "\x02"):  # control characters are six bytes each in JSON
        table.put("a", x={"S": fill * 380_000})
    assert len(table.records()) == 2


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"StreamArn": "arn:aws:dynamodb:x:0:table/none/stream/1"}, "ResourceNotFoundException"),
        ({"ShardId": "shardId-00000000000000000000-00000000"}, "ResourceNotFoundException"),
        ({"ShardIteratorType": "SOMEWHERE"}, "ValidationException"),
        ({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER"}, "ValidationException"),
        ({"SequenceNumber": "1" * 21}, "ValidationException"),
        (
            {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": "1" * 21},
            "ValidationException",
        ),
    ],
)
def test_bad_iterator_requests(table: Table, request_: Any, code: str) -> None:
    streams: Any = table.clients.streams
    good = {
        "StreamArn": table.stream_arn,
        "ShardId": table.shards()[0]["ShardId"],
        "ShardIteratorType": "TRIM_HORIZON",
    }
    with pytest.raises(ClientError) as refused:
        streams.get_shard_iterator(**{**good, **request_})
    assert error_code(refused) == code


def test_an_iterator_that_the_server_did_not_issue(table: Table) -> None:
    good = iterator(table.clients, table.stream_arn, table.shards()[0]["ShardId"])
    for bad in ("nonsense", good[:-8] + "AAAAAAA=", ""):
        with pytest.raises(Exception, match=r"Invalid ShardIterator|valid"):
            table.clients.streams.get_records(ShardIterator=bad)


def test_sequence_numbers_never_outgrow_the_limit() -> None:
    number, widths = 980 * 10**18, []
    for _ in range(5000):
        following = after_sequence(number)
        assert following > number
        number = following
        widths.append(len(str(number)))
    assert (widths[0], widths[-1]) == (21, 27)
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(widths))
    assert len(str(number + 10**10 * 2 * 10**6)) == 27  # ten thousand million records on
