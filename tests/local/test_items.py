from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.stream_reading import Clients, Table, error_code


def test_an_item_comes_back_as_it_was_put(table: Table) -> None:
    everything: dict[str, Any] = {
        "n": {"N": "1.500"},
        "b": {"B": b"\x00\xff"},
        "yes": {"BOOL": True},
        "nothing": {"NULL": True},
        "empty": {"S": ""},
        "tags": {"SS": ["b", "a"]},
        "deep": {"M": {"ü": {"L": [{"M": {}}, {"L": []}]}}},
    }
    table.put("a", **everything)
    item = table.clients.dynamodb.get_item(TableName=table.name, Key={"id": {"S": "a"}})["Item"]
    assert item == {
        "id": {"S": "a"},
        **everything,
        "n": {"N": "1.5"},
        "tags": {"SS": ["a", "b"]},
    }


def test_return_values(table: Table) -> None:
    dynamodb, key = table.clients.dynamodb, {"id": {"S": "a"}}
    put = dynamodb.put_item(TableName=table.name, Item=key, ReturnValues="ALL_OLD")
    assert "Attributes" not in put

    def update(wanted: Any) -> Any:
        return dynamodb.update_item(
            TableName=table.name,
            Key=key,
            UpdateExpression="ADD n :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
            ReturnValues=wanted,
        ).get("Attributes")

    assert update("NONE") is None
    assert update("ALL_OLD") == {**key, "n": {"N": "1"}}
    assert update("UPDATED_OLD") == {"n": {"N": "2"}}
    assert update("ALL_NEW") == {**key, "n": {"N": "4"}}
    assert update("UPDATED_NEW") == {"n": {"N": "5"}}
    gone = dynamodb.delete_item(TableName=table.name, Key=key, ReturnValues="ALL_OLD")
    assert gone["Attributes"] == {**key, "n": {"N": "5"}}


def test_a_failed_condition_changes_nothing_and_can_show_the_item(table: Table) -> None:
    table.put("a", n={"N": "1"})
    with pytest.raises(ClientError) as refused:
        table.clients.dynamodb.put_item(
            TableName=table.name,
            Item={"id": {"S": "a"}},
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert error_code(refused) == "ConditionalCheckFailedException"
    response: Any = refused.value.response
    assert response["Item"] == {"id": {"S": "a"}, "n": {"N": "1"}}
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert len(table.records()) == 1


def test_a_condition_guards_update_and_delete(table: Table) -> None:
    dynamodb: Any = table.clients.dynamodb
    table.put("a", n={"N": "1"})
    guard = {
        "TableName": table.name,
        "Key": {"id": {"S": "a"}},
        "ConditionExpression": "n > :n",
    }
    for operation in (dynamodb.delete_item, dynamodb.update_item):
        with pytest.raises(ClientError, match="conditional request failed"):
            operation(**guard, ExpressionAttributeValues={":n": {"N": "1"}})
    assert len(table.items()) == 1
    dynamodb.update_item(**guard, ExpressionAttributeValues={":n": {"N": "0"}})
    dynamodb.delete_item(**guard, ExpressionAttributeValues={":n": {"N": "0.5"}})
    assert table.items() == {}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"n": {"N": "1"}}, "Missing the key id"),
        ({"id": {"N": "1"}}, "Type mismatch for key id"),
        ({"id": {"S": ""}}, "empty string value"),
        ({"id": {"S": "x" * 2049}}, "2048 bytes"),
        ({"id": {"S": "a"}, "n": {"N": "9" * 39}}, "38 significant digits"),
        ({"id": {"S": "a"}, "big": {"S": "x" * 400 * 1024}}, "maximum allowed size"),
    ],
)
def test_bad_items_are_refused(table: Table, item: Any, reason: str) -> None:
    with pytest.raises(ClientError, match=reason) as refused:
        table.clients.dynamodb.put_item(TableName=table.name, Item=item)
    assert error_code(refused) == "ValidationException"
    assert table.items() == {}


def test_the_largest_item_fits_exactly(table: Table) -> None:
    table.put("a", big={"S": "x" * (400 * 1024 - len("id") - 1 - len("big"))})
    with pytest.raises(ClientError, match="maximum allowed size"):
        table.update("a", "SET more = :x", x={"S": "x"})


def test_keys_can_not_be_updated(table: Table) -> None:
    with pytest.raises(ClientError, match="part of the key"):
        table.update("a", "SET id = :x", x={"S": "b"})


def test_wrong_keys_tables_and_operations(table: Table) -> None:
    dynamodb: Any = table.clients.dynamodb
    with pytest.raises(ClientError, match="does not match the schema"):
        dynamodb.get_item(TableName=table.name, Key={"other": {"S": "a"}})
    with pytest.raises(ClientError) as refused:
        dynamodb.get_item(TableName="no-such-table", Key={"id": {"S": "a"}})
    assert error_code(refused) == "ResourceNotFoundException"
    with pytest.raises(ClientError) as unknown:
        dynamodb.list_backups()
    assert error_code(unknown) == "UnknownOperationException"
    with pytest.raises(ClientError, match="AttributeUpdates is not supported"):
        dynamodb.update_item(TableName=table.name, Key={"id": {"S": "a"}}, AttributeUpdates={})


def test_batch_write_and_get(table: Table) -> None:
    dynamodb: Any = table.clients.dynamodb
    puts = [{"PutRequest": {"Item": {"id": {"S": str(n)}}}} for n in range(25)]
    assert dynamodb.batch_write_item(RequestItems={table.name: puts})["UnprocessedItems"] == {}
    deletes = [{"DeleteRequest": {"Key": {"id": {"S": str(n)}}}} for n in range(5, 25)]
    dynamodb.batch_write_item(RequestItems={table.name: deletes})
    keys = [{"id": {"S": str(n)}} for n in (0, 4, 5)]
    found = dynamodb.batch_get_item(RequestItems={table.name: {"Keys": keys}})["Responses"]
    assert [item["id"]["S"] for item in found[table.name]] == ["0", "4"]
    with pytest.raises(ClientError, match="duplicates"):
        dynamodb.batch_write_item(RequestItems={table.name: [puts[0], deletes[0], puts[0]]})
    with pytest.raises(ClientError, match="1 to 25"):
        dynamodb.batch_write_item(
            RequestItems={
                table.name: [{"PutRequest": {"Item": {"id": {"S": str(n)}}}} for n in range(26)]
            }
        )
    assert sorted(table.items()) == ["0", "1", "2", "3", "4"]


def test_a_transaction_writes_all_or_nothing(table: Table) -> None:
    dynamodb: Any = table.clients.dynamodb
    table.put("a", n={"N": "1"})
    update = {
        "Update": {
            "TableName": table.name,
            "Key": {"id": {"S": "a"}},
            "UpdateExpression": "SET n = n + :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
    }
    put = {"Put": {"TableName": table.name, "Item": {"id": {"S": "b"}}}}
    check = {
        "ConditionCheck": {
            "TableName": table.name,
            "Key": {"id": {"S": "c"}},
            "ConditionExpression": "attribute_exists(id)",
        }
    }
    before = len(table.records())
    with pytest.raises(ClientError) as cancelled:
        dynamodb.transact_write_items(TransactItems=[update, put, check])
    assert error_code(cancelled) == "TransactionCanceledException"
    response: Any = cancelled.value.response
    codes = [reason["Code"] for reason in response["CancellationReasons"]]
    assert codes == ["None", "None", "ConditionalCheckFailed"]
    assert table.items() == {"a": {"id": {"S": "a"}, "n": {"N": "1"}}}
    assert len(table.records()) == before

    dynamodb.transact_write_items(TransactItems=[update, put])
    assert table.items()["a"]["n"] == {"N": "2"}
    assert len(table.records()) == before + 2
    with pytest.raises(ClientError, match="multiple operations on one item"):
        dynamodb.transact_write_items(TransactItems=[put, put])


def test_projection_and_capacity(clients: Clients, table: Table) -> None:
    table.put("a", n={"N": "1"}, pad={"S": "x" * 5000})
    answer = clients.dynamodb.get_item(
        TableName=table.name,
        Key={"id": {"S": "a"}},
        ProjectionExpression="#n",
        ExpressionAttributeNames={"#n": "n"},
        ReturnConsumedCapacity="TOTAL",
        ConsistentRead=True,
    )
    assert answer["Item"] == {"n": {"N": "1"}}
    assert answer["ConsumedCapacity"]["CapacityUnits"] == 2.0
