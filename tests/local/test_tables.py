from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.stream_reading import Clients, Table, create_table, error_code


def test_a_table_describes_itself(clients: Clients, table: Table) -> None:
    table.put("a")
    described = clients.dynamodb.describe_table(TableName=table.name)["Table"]
    assert described["TableStatus"] == "ACTIVE"
    assert described["ItemCount"] == 1
    assert described["StreamSpecification"] == {
        "StreamEnabled": True,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    arn = f"arn:aws:dynamodb:us-west-2:000000000000:table/{table.name}"
    assert described["TableArn"] == arn
    assert described["LatestStreamArn"] == f"{arn}/stream/{described['LatestStreamLabel']}"
    clients.dynamodb.get_waiter("table_exists").wait(TableName=table.name)


def test_tables_are_listed_page_by_page(clients: Clients) -> None:
    names = [f"listed-{n}" for n in range(5)]
    for name in names:
        create_table(clients, name)
    pages = list(
        clients.dynamodb.get_paginator("list_tables").paginate(PaginationConfig={"PageSize": 2})
    )
    listed = [name for page in pages for name in page["TableNames"]]
    assert listed == sorted(listed)
    assert set(names) <= set(listed)
    assert len(pages) > 2


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"TableName": "x y z"}, "ValidationException"),
        ({"KeySchema": [{"AttributeName": "id", "KeyType": "RANGE"}]}, "ValidationException"),
        ({"KeySchema": [{"AttributeName": "other", "KeyType": "HASH"}]}, "ValidationException"),
        ({"BillingMode": "PROVISIONED"}, "ValidationException"),
        ({"StreamSpecification": {"StreamEnabled": True}}, "ValidationException"),
        ({"TableName": "taken"}, "ResourceInUseException"),
    ],
)
def test_bad_tables_are_refused(clients: Clients, request_: Any, code: str) -> None:
    dynamodb: Any = clients.dynamodb
    if request_.get("TableName") == "taken":
        create_table(clients, "taken")
    good = {
        "TableName": "refused",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    with pytest.raises(ClientError) as refused:
        dynamodb.create_table(**{**good, **request_})
    assert error_code(refused) == code
    assert "refused" not in clients.dynamodb.list_tables()["TableNames"]


def test_a_disabled_stream_stays_readable_and_a_new_one_has_a_new_arn(
    clients: Clients, table: Table
) -> None:
    table.put("a")
    off = clients.dynamodb.update_table(
        TableName=table.name, StreamSpecification={"StreamEnabled": False}
    )["TableDescription"]
    assert "StreamSpecification" not in off
    assert off["LatestStreamArn"] == table.stream_arn
    table.put("unrecorded")
    description = clients.streams.describe_stream(StreamArn=table.stream_arn)["StreamDescription"]
    assert description["StreamStatus"] == "DISABLED"
    assert all("EndingSequenceNumber" in s["SequenceNumberRange"] for s in description["Shards"])
    assert [record["eventName"] for record in table.records()] == ["INSERT"]

    on = clients.dynamodb.update_table(
        TableName=table.name,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]
    assert on["LatestStreamArn"] != table.stream_arn
    table.put("recorded")
    again = Table(table.name, on["LatestStreamArn"], clients)
    (record,) = again.records()
    assert record["dynamodb"]["Keys"] == {"id": {"S": "recorded"}}
    (old,) = table.records()
    assert int(record["dynamodb"]["SequenceNumber"]) > int(old["dynamodb"]["SequenceNumber"])
    streams = clients.streams.list_streams(TableName=table.name)["Streams"]
    assert [s["StreamArn"] for s in streams] == [table.stream_arn, on["LatestStreamArn"]]
    with pytest.raises(ClientError, match="already has an enabled stream"):
        clients.dynamodb.update_table(
            TableName=table.name,
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )


def test_a_table_created_again_is_another_table(clients: Clients) -> None:
    first = create_table(clients, "comes-back")
    first.put("a")
    clients.dynamodb.delete_table(TableName=first.name)
    with pytest.raises(ClientError, match="not found"):
        clients.dynamodb.describe_table(TableName=first.name)
    clients.dynamodb.get_waiter("table_not_exists").wait(TableName=first.name)
    second = create_table(clients, "comes-back")
    assert second.stream_arn != first.stream_arn
    assert second.items() == {}
    assert second.records() == []
    assert len(first.records()) == 1


def test_streams_are_listed_page_by_page(clients: Clients) -> None:
    for n in range(3):
        create_table(clients, f"paged-stream-{n}")
    found: list[str] = []
    request: dict[str, Any] = {"Limit": 1}
    while True:
        answer = clients.streams.list_streams(**request)
        found += [stream["TableName"] for stream in answer["Streams"]]
        if "LastEvaluatedStreamArn" not in answer:
            break
        request["ExclusiveStartStreamArn"] = answer["LastEvaluatedStreamArn"]
    assert [name for name in found if name.startswith("paged-stream")] == [
        f"paged-stream-{n}" for n in range(3)
    ]


def test_a_table_without_a_stream(clients: Clients) -> None:
    clients.dynamodb.create_table(
        TableName="streamless",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 2},
    )
    described = clients.dynamodb.describe_table(TableName="streamless")["Table"]
    assert "LatestStreamArn" not in described
    assert described["ProvisionedThroughput"]["WriteCapacityUnits"] == 2
    clients.dynamodb.put_item(TableName="streamless", Item={"id": {"S": "a"}})
    assert clients.streams.list_streams(TableName="streamless")["Streams"] == []


def test_indexes_are_refused_in_plain_words(clients: Clients, table: Table) -> None:
    with pytest.raises(ClientError, match="IndexName is not supported"):
        clients.dynamodb.scan(TableName=table.name, IndexName="by-email")
