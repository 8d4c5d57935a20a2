from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from datazone_dagster.local import LocalDynamoDB
from tests.local.stream_reading import (
    Clients,
    Table,
    clients_of,
    create_table,
    error_code,
    iterator,
    read_from,
    read_shard,
)

HOUR = 3600.0


def _after(table: Table, record: Any) -> list[Any]:
    shard_id = table.shards()[0]["ShardId"]
    sequence = record["dynamodb"]["SequenceNumber"]
    return read_from(
        table.clients,
        iterator(
            table.clients,
            table.stream_arn,
            shard_id,
            "AFTER_SEQUENCE_NUMBER",
            SequenceNumber=sequence,
        ),
    )


def test_an_iterator_lives_fifteen_minutes(own_table: Table) -> None:
    clients = own_table.clients
    start = iterator(clients, own_table.stream_arn, own_table.shards()[0]["ShardId"])
    clients.admin.advance_clock(14 * 60)
    following = clients.streams.get_records(ShardIterator=start)["NextShardIterator"]
    clients.admin.advance_clock(2 * 60)
    with pytest.raises(ClientError) as expired:
        clients.streams.get_records(ShardIterator=start)
    assert error_code(expired) == "ExpiredIteratorException"
    clients.streams.get_records(ShardIterator=following)  # its own fifteen minutes


def test_records_live_24_hours(own_table: Table) -> None:
    clients, arn = own_table.clients, own_table.stream_arn
    own_table.put("old")
    own_table.put("old", n={"N": "1"})
    first, second = own_table.records()
    shard_id = own_table.shards()[0]["ShardId"]
    clients.admin.advance_clock(23.9 * HOUR)
    own_table.put("young")
    assert len(own_table.records()) == 3
    issued = iterator(clients, arn, shard_id)
    clients.admin.advance_clock(0.2 * HOUR)

    (young,) = own_table.records()  # TRIM_HORIZON starts at the horizon
    assert young["dynamodb"]["Keys"] == {"id": {"S": "young"}}
    assert _after(own_table, young) == []
    for record in (first, second):  # older than the trim point, whatever follows it
        with pytest.raises(ClientError) as trimmed:
            _after(own_table, record)
        assert error_code(trimmed) == "TrimmedDataAccessException"
    with pytest.raises(ClientError) as trimmed:
        clients.streams.get_records(ShardIterator=issued)
    assert error_code(trimmed) in ("TrimmedDataAccessException", "ExpiredIteratorException")


def test_an_iterator_before_the_trim_horizon_is_refused(own_table: Table) -> None:
    clients, arn = own_table.clients, own_table.stream_arn
    shard_id = own_table.shards()[0]["ShardId"]
    for n in range(4):
        own_table.put(str(n))
    records = own_table.records()
    start = iterator(clients, arn, shard_id)
    page = clients.streams.get_records(ShardIterator=start, Limit=2)
    through = records[1]["dynamodb"]["SequenceNumber"]
    assert clients.admin.trim_through(own_table.name, shard_id, through) == 2
    with pytest.raises(ClientError) as trimmed:
        clients.streams.get_records(ShardIterator=start)
    assert error_code(trimmed) == "TrimmedDataAccessException"
    # The first two records were trimmed after this iterator had passed them: none is missing.
    rest = clients.streams.get_records(ShardIterator=page["NextShardIterator"])
    assert rest["Records"] == records[2:]


def test_a_closed_shard_leaves_the_listing_after_24_hours(own_table: Table) -> None:
    clients, arn = own_table.clients, own_table.stream_arn
    own_table.put("a")
    parent = own_table.shards()[0]["ShardId"]
    issued = iterator(clients, arn, parent)
    (child,) = clients.admin.roll(own_table.name)
    clients.admin.advance_clock(24.1 * HOUR)
    assert [shard["ShardId"] for shard in own_table.shards()] == [child]
    assert own_table.shards()[0]["ParentShardId"] == parent
    for call in (
        lambda: read_shard(clients, arn, parent),
        lambda: clients.streams.get_records(ShardIterator=issued),
    ):
        with pytest.raises(ClientError) as gone:
            call()
        assert error_code(gone) in ("ResourceNotFoundException", "ExpiredIteratorException")
    assert [shard["dropped"] for shard in clients.admin.shards(own_table.name)] == [True, False]


def test_trim_on_demand(own_table: Table) -> None:
    admin = own_table.clients.admin
    own_table.put("a")
    admin.advance_clock(100)
    own_table.put("b")
    assert admin.trim(own_table.name, older_than_seconds=50) == 1
    assert [r["dynamodb"]["Keys"]["id"]["S"] for r in own_table.records()] == ["b"]
    assert admin.trim() == 1
    assert own_table.records() == []
    assert len(own_table.items()) == 2


def test_a_disabled_stream_goes_after_24_hours(own_table: Table) -> None:
    clients = own_table.clients
    clients.dynamodb.delete_table(TableName=own_table.name)
    assert len(clients.streams.list_streams()["Streams"]) == 1
    clients.admin.advance_clock(24.1 * HOUR)
    assert clients.streams.list_streams()["Streams"] == []
    with pytest.raises(ClientError) as gone:
        own_table.shards()
    assert error_code(gone) == "ResourceNotFoundException"


def test_time_to_live(own_table: Table) -> None:
    clients, now = own_table.clients, own_table.clients.admin.now()
    described = clients.dynamodb.describe_time_to_live(TableName=own_table.name)
    assert described["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED"
    clients.dynamodb.update_time_to_live(
        TableName=own_table.name,
        TimeToLiveSpecification={"AttributeName": "ends", "Enabled": True},
    )
    described = clients.dynamodb.describe_time_to_live(TableName=own_table.name)
    assert described["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "ends",
    }
    own_table.put("soon", ends={"N": str(int(now) + 60)})
    own_table.put("later", ends={"N": str(int(now) + 6000)})
    own_table.put("ancient", ends={"N": "17"})
    own_table.put("text", ends={"S": "1"})
    assert clients.admin.sweep_ttl() == 0
    clients.admin.advance_clock(120)
    assert clients.admin.sweep_ttl() == 1
    assert sorted(own_table.items()) == ["ancient", "later", "text"]
    removed = own_table.records()[-1]
    assert removed["eventName"] == "REMOVE"
    assert removed["userIdentity"] == {
        "PrincipalId": "dynamodb.amazonaws.com",
        "Type": "Service",
    }
    assert removed["dynamodb"]["OldImage"]["id"] == {"S": "soon"}


def test_shards_roll_by_age_when_asked() -> None:
    with LocalDynamoDB(shards=1, roll_after_seconds=4 * HOUR) as server:
        table = create_table(clients_of(server), "orders")
        table.put("a")
        server.admin.advance_clock(4 * HOUR)
        table.put("b")
        first, second = table.shards()
        assert second["ParentShardId"] == first["ShardId"]
        assert len(table.records()) == 2


def test_record_times_follow_the_clock(own_clients: Clients, own_table: Table) -> None:
    own_clients.admin.set_clock_offset(-5 * 365 * 24 * HOUR)
    own_table.put("a")
    (record,) = own_table.records()
    created = record["dynamodb"]["ApproximateCreationDateTime"].timestamp()
    assert 0 <= own_clients.admin.now() - created < 30
