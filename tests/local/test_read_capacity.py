"""Capacity: what tables are given, what reads consume, what a script allows."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.service_errors import ServiceError
from tests.local.stream_reading import Clients, Table, error_code

KEY = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
}


def _fill(table: Table, count: int, size: int) -> None:
    for number in range(count):
        item = {"id": {"S": f"{number:03d}"}, "f": {"S": "x" * (size - 6)}}
        table.clients.dynamodb.put_item(TableName=table.name, Item=item)


def _keys(count: int) -> list[dict[str, Any]]:
    return [{"id": {"S": f"{number:03d}"}} for number in range(count)]


def _batch(table: Table, count: int, **request: Any) -> Any:
    requests = {table.name: {"Keys": _keys(count), **request}}
    return table.clients.dynamodb.batch_get_item(
        RequestItems=requests, ReturnConsumedCapacity="TOTAL"
    )


def test_capacity_in_descriptions(clients: Clients) -> None:
    dynamodb: Any = clients.dynamodb

    def described(name: str, **settings: Any) -> dict[str, Any]:
        dynamodb.create_table(TableName=name, **KEY, **settings)
        table: dict[str, Any] = dynamodb.describe_table(TableName=name)["Table"]
        return table

    plain = described("capacity-plain", BillingMode="PAY_PER_REQUEST")
    assert plain["WarmThroughput"]["ReadUnitsPerSecond"] == 12_000
    assert plain["ProvisionedThroughput"]["ReadCapacityUnits"] == 0
    assert "OnDemandThroughput" not in plain
    limited = described(
        "capacity-limited",
        BillingMode="PAY_PER_REQUEST",
        OnDemandThroughput={"MaxReadRequestUnits": 500},
        WarmThroughput={"ReadUnitsPerSecond": 15_000, "WriteUnitsPerSecond": 5_000},
    )
    assert limited["OnDemandThroughput"] == {"MaxReadRequestUnits": 500}
    assert limited["WarmThroughput"] == {
        "ReadUnitsPerSecond": 15_000,
        "WriteUnitsPerSecond": 5_000,
        "Status": "ACTIVE",
    }
    provisioned = described(
        "capacity-provisioned",
        ProvisionedThroughput={"ReadCapacityUnits": 7, "WriteCapacityUnits": 2},
    )
    assert provisioned["WarmThroughput"]["ReadUnitsPerSecond"] == 7
    dynamodb.update_table(
        TableName="capacity-limited", OnDemandThroughput={"MaxReadRequestUnits": -1}
    )
    updated = dynamodb.describe_table(TableName="capacity-limited")["Table"]
    assert updated["OnDemandThroughput"] == {"MaxReadRequestUnits": -1}
    assert updated["WarmThroughput"] == limited["WarmThroughput"]


@pytest.mark.parametrize(("consistent", "factor"), [(True, 1), (False, 0.5)])
def test_units_of_a_read(table: Table, consistent: bool, factor: float) -> None:
    _fill(table, 3, size=5_000)
    dynamodb = table.clients.dynamodb
    scan = dynamodb.scan(
        TableName=table.name, ConsistentRead=consistent, ReturnConsumedCapacity="TOTAL"
    )
    assert scan["ConsumedCapacity"]["CapacityUnits"] == 4 * factor  # 15,000 bytes in all
    got = dynamodb.get_item(
        TableName=table.name,
        Key={"id": {"S": "000"}},
        ConsistentRead=consistent,
        ReturnConsumedCapacity="TOTAL",
    )
    assert got["ConsumedCapacity"]["CapacityUnits"] == 2 * factor
    batch = _batch(table, 5, ConsistentRead=consistent)
    assert batch["ConsumedCapacity"] == [  # each item on its own; absent ones cost one unit
        {"TableName": table.name, "CapacityUnits": 8 * factor}
    ]
    assert batch["UnprocessedKeys"] == {}
    assert "ConsumedCapacity" not in dynamodb.scan(TableName=table.name)


def test_a_batch_ends_at_16_megabytes(table: Table) -> None:
    _fill(table, 45, size=400_000)
    answer = _batch(table, 45, ConsistentRead=True, ProjectionExpression="id")
    found = answer["Responses"][table.name]
    rest = answer["UnprocessedKeys"][table.name]
    assert len(found) == 42  # the item that passes 16 MB is still read
    assert rest == {"Keys": _keys(45)[42:], "ConsistentRead": True, "ProjectionExpression": "id"}
    again = table.clients.dynamodb.batch_get_item(RequestItems=answer["UnprocessedKeys"])
    assert len(again["Responses"][table.name]) == 3
    assert again["UnprocessedKeys"] == {}


def test_reads_beyond_the_capacity_are_throttled(
    own_server: LocalDynamoDB, own_table: Table
) -> None:
    _fill(own_table, 8, size=4_096)
    own_server.admin.set_read_capacity("orders", 0.05)
    dynamodb = own_table.clients.dynamodb
    scan = {"TableName": "orders", "ConsistentRead": True, "Limit": 4}
    dynamodb.scan(**scan)  # 80 seconds of debt
    with pytest.raises(ClientError) as refused:
        dynamodb.scan(**scan)
    assert error_code(refused) == "ProvisionedThroughputExceededException"
    with pytest.raises(ClientError) as refused:
        dynamodb.get_item(TableName="orders", Key={"id": {"S": "000"}})
    assert error_code(refused) == "ProvisionedThroughputExceededException"
    own_server.admin.advance_clock(60)
    with pytest.raises(ClientError):
        dynamodb.scan(**scan)
    own_server.admin.advance_clock(30)
    assert dynamodb.scan(**scan)["Count"] == 4
    own_server.admin.set_read_capacity("orders", None)
    for _ in range(5):
        dynamodb.scan(**scan)


def test_a_batch_beyond_the_capacity_leaves_keys_unprocessed(
    own_server: LocalDynamoDB, own_table: Table
) -> None:
    _fill(own_table, 8, size=4_096)
    own_server.admin.set_read_capacity("orders", 0.05)
    answer = _batch(own_table, 8, ConsistentRead=True)
    assert len(answer["Responses"]["orders"]) == 1
    assert answer["UnprocessedKeys"]["orders"]["Keys"] == _keys(8)[1:]
    assert answer["ConsumedCapacity"] == [{"TableName": "orders", "CapacityUnits": 1.0}]
    with pytest.raises(ClientError) as refused:
        _batch(own_table, 8)
    assert error_code(refused) == "ProvisionedThroughputExceededException"


def test_a_capacity_that_is_none_is_refused(server: LocalDynamoDB, table: Table) -> None:
    with pytest.raises(ServiceError, match="above 0"):
        server.admin.set_read_capacity(table.name, 0)
    with pytest.raises(ServiceError, match="not found"):
        server.admin.set_read_capacity("no-such-table", 1)
