"""Kinesis streams of the emulator, through boto3: shards, positions, disorder by script."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from tests.local.stream_reading import Clients, clients_of, create_table, error_code

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """A table and the Kinesis stream that it writes to."""

    clients: Clients
    kinesis: Any
    table: str
    stream: str
    arn: str

    def put(self, item_id: str, **attributes: Any) -> None:
        self.clients.dynamodb.put_item(
            TableName=self.table, Item={"id": {"S": item_id}, **attributes}
        )

    def shards(self) -> list[Any]:
        return list(self.kinesis.list_shards(StreamName=self.stream)["Shards"])

    def iterator(self, shard_id: str, kind: str = "TRIM_HORIZON", **request: Any) -> str:
        answer = self.kinesis.get_shard_iterator(
            StreamARN=self.arn, ShardId=shard_id, ShardIteratorType=kind, **request
        )
        return str(answer["ShardIterator"])

    def page(self, shard_id: str) -> Any:
        return self.kinesis.get_records(ShardIterator=self.iterator(shard_id))

    def records(self) -> list[Any]:
        pages = [self.page(shard["ShardId"]) for shard in self.shards()]
        return [json.loads(one["Data"]) for page in pages for one in page["Records"]]


def pair_of(server: LocalDynamoDB, precision: str | None = "MICROSECOND", shards: int = 2) -> Pair:
    clients, number = clients_of(server), next(_numbers)
    kinesis = boto3.client(
        "kinesis",
        endpoint_url=server.endpoint_url,
        region_name="us-west-2",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}),
    )
    table = create_table(clients, f"kinesis-{number}").name
    stream = f"changes-{number}"
    kinesis.create_stream(StreamName=stream, ShardCount=shards)
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    wanted = {} if precision is None else {"ApproximateCreationDateTimePrecision": precision}
    clients.dynamodb.enable_kinesis_streaming_destination(
        TableName=table,
        StreamArn=summary["StreamARN"],
        EnableKinesisStreamingConfiguration=wanted,
    )
    return Pair(clients, kinesis, table, stream, summary["StreamARN"])


@pytest.fixture
def pair(server: LocalDynamoDB) -> Pair:
    return pair_of(server)


def test_a_change_arrives_as_the_service_writes_it(pair: Pair) -> None:
    pair.put("a", b={"B": b"\x00\xff"}, l={"L": [{"M": {"x": {"BS": [b"\xfe"]}}}]})
    pair.put("a", total={"N": "1"})
    pair.clients.dynamodb.delete_item(TableName=pair.table, Key={"id": {"S": "a"}})
    insert, modify, remove = pair.records()
    assert [one["eventName"] for one in (insert, modify, remove)] == ["INSERT", "MODIFY", "REMOVE"]
    assert set(insert) == {
        "awsRegion",
        "eventID",
        "eventName",
        "userIdentity",
        "recordFormat",
        "tableName",
        "dynamodb",
        "eventSource",
    }
    change = insert["dynamodb"]
    assert change["ApproximateCreationDateTimePrecision"] == "MICROSECOND"
    assert 1e15 < change["ApproximateCreationDateTime"] < 1e16
    once = base64.b64encode(b"\x00\xff")
    assert change["NewImage"]["b"] == {"B": base64.b64encode(once).decode()}
    nested = change["NewImage"]["l"]["L"][0]["M"]["x"]["BS"]
    assert nested == [base64.b64encode(base64.b64encode(b"\xfe")).decode()]
    assert "OldImage" not in change
    assert "SequenceNumber" not in change
    assert modify["dynamodb"]["OldImage"] == insert["dynamodb"]["NewImage"]
    assert "NewImage" not in remove["dynamodb"]
    times = [one["dynamodb"]["ApproximateCreationDateTime"] for one in (insert, modify, remove)]
    assert times == sorted(set(times))


def test_a_time_in_milliseconds_has_no_precision(server: LocalDynamoDB) -> None:
    pair = pair_of(server, precision=None)
    pair.put("a")
    (record,) = pair.records()
    assert 1e12 < record["dynamodb"]["ApproximateCreationDateTime"] < 1e13
    assert "ApproximateCreationDateTimePrecision" not in record["dynamodb"]
    (found,) = pair.clients.dynamodb.describe_kinesis_streaming_destination(TableName=pair.table)[
        "KinesisDataStreamDestinations"
    ]
    assert found == {
        "StreamArn": pair.arn,
        "DestinationStatus": "ACTIVE",
        "ApproximateCreationDateTimePrecision": "MILLISECOND",
    }


def test_a_disabled_destination_gets_nothing(pair: Pair) -> None:
    pair.put("a")
    pair.clients.dynamodb.disable_kinesis_streaming_destination(
        TableName=pair.table, StreamArn=pair.arn
    )
    pair.put("b")
    assert [one["dynamodb"]["Keys"]["id"]["S"] for one in pair.records()] == ["a"]


def test_shards_split_and_merge(pair: Pair) -> None:
    first, second = pair.shards()
    middle = (int(first["HashKeyRange"]["EndingHashKey"]) + 1) // 2
    pair.kinesis.split_shard(
        StreamName=pair.stream, ShardToSplit=first["ShardId"], NewStartingHashKey=str(middle)
    )
    children = pair.shards()[2:]
    pair.kinesis.merge_shards(
        StreamName=pair.stream,
        ShardToMerge=children[1]["ShardId"],
        AdjacentShardToMerge=second["ShardId"],
    )
    merged = pair.shards()[-1]
    assert [one["ParentShardId"] for one in children] == [first["ShardId"]] * 2
    assert merged["ParentShardId"] == children[1]["ShardId"]
    assert merged["AdjacentParentShardId"] == second["ShardId"]
    is_open = ["EndingSequenceNumber" not in one["SequenceNumberRange"] for one in pair.shards()]
    assert is_open == [False, False, True, False, True]
    end = pair.page(second["ShardId"])
    assert "NextShardIterator" not in end
    assert [one["ParentShards"] for one in end["ChildShards"]] == [
        [children[1]["ShardId"], second["ShardId"]]
    ]
    assert len(merged["SequenceNumberRange"]["StartingSequenceNumber"]) == 56


def test_held_changes_are_delivered_as_scripted(server: LocalDynamoDB) -> None:
    pair = pair_of(server, shards=1)
    admin = server.admin
    admin.hold_kinesis(pair.stream)
    for number in range(4):
        pair.put("a", n={"N": str(number)})
    assert pair.records() == []
    assert admin.deliver_kinesis(pair.stream, [2, 0, 2]) == 2
    assert admin.deliver_kinesis(pair.stream) == 0
    numbers = [one["dynamodb"]["NewImage"]["n"]["N"] for one in pair.records()]
    assert numbers == ["2", "0", "2", "1", "3"]
    ids = [one["eventID"] for one in pair.records()]
    assert ids[0] == ids[2]


def test_positions(server: LocalDynamoDB) -> None:
    pair = pair_of(server, shards=1)
    (shard,) = pair.shards()
    for number in range(3):
        pair.put("a", n={"N": str(number)})
    page = pair.page(shard["ShardId"])
    numbers = [one["SequenceNumber"] for one in page["Records"]]
    assert {len(number) for number in numbers} == {56}
    assert numbers == sorted(set(numbers))
    later = pair.iterator(
        shard["ShardId"], "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]
    )
    found = pair.kinesis.get_records(ShardIterator=later)["Records"]
    assert [one["SequenceNumber"] for one in found] == numbers[2:]
    part = pair.kinesis.get_records(ShardIterator=pair.iterator(shard["ShardId"]), Limit=2)
    assert len(part["Records"]) == 2
    assert part["MillisBehindLatest"] > 0
    rest = pair.kinesis.get_records(ShardIterator=part["NextShardIterator"])
    assert [len(rest["Records"]), rest["MillisBehindLatest"]] == [1, 0]
    server.admin.trim_kinesis(pair.stream)
    with pytest.raises(ClientError) as refused:
        pair.iterator(shard["ShardId"], "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1])
    assert error_code(refused) == "InvalidArgumentException"
    # An iterator that is older than the records says nothing of what is gone.
    assert pair.kinesis.get_records(ShardIterator=part["NextShardIterator"])["Records"] == []


def test_the_retention_and_the_iterators_end(own_server: LocalDynamoDB) -> None:
    pair = pair_of(own_server, shards=1)
    (shard,) = pair.shards()
    pair.put("a")
    pair.kinesis.increase_stream_retention_period(StreamName=pair.stream, RetentionPeriodHours=48)
    start = pair.iterator(shard["ShardId"])
    own_server.admin.advance_clock(30 * 3600)
    with pytest.raises(ClientError) as refused:
        pair.kinesis.get_records(ShardIterator=start)
    assert error_code(refused) == "ExpiredIteratorException"
    assert len(pair.records()) == 1
    own_server.admin.advance_clock(20 * 3600)
    assert pair.records() == []


def test_faults_strike_kinesis_as_well(own_server: LocalDynamoDB) -> None:
    pair = pair_of(own_server)
    own_server.admin.set_faults([Fault("GetRecords", FaultKind.THROUGHPUT_EXCEEDED, shard=1)])
    first, second = (shard["ShardId"] for shard in pair.shards())
    assert pair.page(first)["Records"] == []
    with pytest.raises(ClientError) as refused:
        pair.page(second)
    assert error_code(refused) == "ProvisionedThroughputExceededException"
    assert pair.page(second)["Records"] == []


def test_what_others_put_arrives_as_it_is(pair: Pair) -> None:
    pair.kinesis.put_record(StreamName=pair.stream, PartitionKey="x", Data=b"not of DynamoDB")
    pages = [pair.page(shard["ShardId"]) for shard in pair.shards()]
    assert [one["Data"] for page in pages for one in page["Records"]] == [b"not of DynamoDB"]


def test_no_such_stream(pair: Pair) -> None:
    pair.kinesis.delete_stream(StreamName=pair.stream)
    with pytest.raises(ClientError) as refused:
        pair.kinesis.describe_stream_summary(StreamName=pair.stream)
    assert error_code(refused) == "ResourceNotFoundException"
    pair.put("a")  # the table does not mind
