"""Reads that are not consistent, of a table that lags by script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.service_errors import ServiceError
from tests.local.stream_reading import Clients, Table, clients_of, create_table


def _scan(table: Table, *, consistent: bool = False, **request: Any) -> dict[str, str]:
    paginator = table.clients.dynamodb.get_paginator("scan")
    pages = paginator.paginate(TableName=table.name, ConsistentRead=consistent, **request)
    return {item["id"]["S"]: item["v"]["N"] for page in pages for item in page["Items"]}


def _write(table: Table, item_id: str, value: int) -> None:
    item = {"id": {"S": item_id}, "v": {"N": str(value)}}
    table.clients.dynamodb.put_item(TableName=table.name, Item=item)


def _delete(table: Table, item_id: str) -> None:
    table.clients.dynamodb.delete_item(TableName=table.name, Key={"id": {"S": item_id}})


def test_a_lag_of_writes(server: LocalDynamoDB, table: Table) -> None:
    for item_id in ("a", "b", "c"):
        _write(table, item_id, 1)
    server.admin.set_lag(table.name, writes=3)
    assert _scan(table) == {"a": "1", "b": "1", "c": "1"}

    _write(table, "a", 2)
    _delete(table, "b")
    _write(table, "d", 1)
    assert _scan(table) == {"a": "1", "b": "1", "c": "1"}
    _write(table, "a", 3)
    assert _scan(table) == {"a": "2", "b": "1", "c": "1"}
    _write(table, "a", 4)
    assert _scan(table) == {"a": "2", "c": "1"}
    assert _scan(table, consistent=True) == {"a": "4", "c": "1", "d": "1"}

    server.admin.set_lag(table.name)
    assert _scan(table) == {"a": "4", "c": "1", "d": "1"}
    server.admin.set_lag(table.name, writes=1)
    assert _scan(table) == {"a": "4", "c": "1", "d": "1"}  # the past begins anew


def test_a_write_that_changes_nothing_is_none(server: LocalDynamoDB, table: Table) -> None:
    _write(table, "a", 1)
    server.admin.set_lag(table.name, writes=1)
    _write(table, "a", 2)
    _write(table, "a", 2)
    _delete(table, "not there")
    assert _scan(table) == {"a": "1"}


def test_a_lag_of_seconds(own_server: LocalDynamoDB, own_table: Table) -> None:
    admin = own_server.admin
    admin.set_lag(own_table.name, seconds=60)
    _write(own_table, "a", 1)
    admin.advance_clock(45)
    _write(own_table, "a", 2)
    _write(own_table, "b", 1)
    assert _scan(own_table) == {}
    admin.advance_clock(30)
    assert _scan(own_table) == {"a": "1"}
    admin.advance_clock(60)
    assert _scan(own_table) == {"a": "2", "b": "1"}


def test_every_kind_of_read_lags(server: LocalDynamoDB, clients: Clients) -> None:
    dynamodb: Any = clients.dynamodb
    name = "lagging-pairs"
    dynamodb.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "who", "KeyType": "HASH"},
            {"AttributeName": "at", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "who", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )

    def key(at: int) -> dict[str, Any]:
        return {"who": {"S": "ada"}, "at": {"N": str(at)}}

    for at in (1, 2, 3):
        dynamodb.put_item(TableName=name, Item=key(at))
        dynamodb.put_item(TableName=name, Item={"who": {"S": "grace"}, "at": {"N": str(at)}})
    server.admin.set_lag(name, writes=2)
    dynamodb.delete_item(TableName=name, Key=key(2))
    dynamodb.put_item(TableName=name, Item={**key(1), "v": {"S": "new"}})

    def query(*, consistent: bool, **request: Any) -> list[str]:
        pages = dynamodb.get_paginator("query").paginate(
            TableName=name,
            KeyConditionExpression="who = :who",
            ExpressionAttributeValues={":who": {"S": "ada"}},
            ConsistentRead=consistent,
            **request,
        )
        return [item["at"]["N"] for page in pages for item in page["Items"]]

    assert query(consistent=False) == ["1", "2", "3"]
    assert query(consistent=False, PaginationConfig={"PageSize": 1}) == ["1", "2", "3"]
    assert query(consistent=False, ScanIndexForward=False) == ["3", "2", "1"]
    assert query(consistent=False, ScanIndexForward=False, PaginationConfig={"PageSize": 1}) == [
        "3",
        "2",
        "1",
    ]
    assert query(consistent=True) == ["1", "3"]
    for consistent in (False, True):
        got = dynamodb.get_item(TableName=name, Key=key(2), ConsistentRead=consistent)
        assert ("Item" in got) is not consistent
        request = {name: {"Keys": [key(1), key(2)], "ConsistentRead": consistent}}
        found = dynamodb.batch_get_item(RequestItems=request)["Responses"][name]
        assert len(found) == (1 if consistent else 2)
        assert ("v" in found[0]) is consistent


def test_pages_and_segments_of_a_lagging_scan(server: LocalDynamoDB, table: Table) -> None:
    for number in range(60):
        _write(table, f"{number}", 1)
    server.admin.set_lag(table.name, writes=40)
    for number in range(0, 40, 2):
        _delete(table, f"{number}")
        _write(table, f"{number + 1}", 2)
    everything = {f"{number}": "1" for number in range(60)}
    assert _scan(table, PaginationConfig={"PageSize": 7}) == everything
    parts = [_scan(table, Segment=n, TotalSegments=3) for n in range(3)]
    assert sum(map(len, parts)) == 60
    assert {**parts[0], **parts[1], **parts[2]} == everything


def test_the_past_of_a_lag_does_not_grow_for_ever(tmp_path: Path) -> None:
    import sqlite3

    with LocalDynamoDB(data_dir=tmp_path, shards=1) as server:
        table = create_table(clients_of(server), "orders")
        server.admin.set_lag("orders", writes=5)
        for number in range(1_020):
            _write(table, "a", number)
        assert _scan(table) == {"a": "1014"}
    with sqlite3.connect(tmp_path / "local-dynamodb.sqlite3") as db:
        ((count,),) = db.execute("SELECT count(*) FROM writes").fetchall()
    db.close()
    assert count < 100


def test_a_lag_survives_a_restart(tmp_path: Path) -> None:
    with LocalDynamoDB(data_dir=tmp_path, shards=1) as server:
        table = create_table(clients_of(server), "orders")
        server.admin.set_lag("orders", writes=1)
        _write(table, "a", 1)
    with LocalDynamoDB(data_dir=tmp_path, shards=1) as server:
        again = Table("orders", table.stream_arn, clients_of(server))
        assert _scan(again) == {}
        assert _scan(again, consistent=True) == {"a": "1"}


def test_a_lag_that_is_none_is_refused(server: LocalDynamoDB, table: Table) -> None:
    with pytest.raises(ServiceError, match="not by both"):
        server.admin.set_lag(table.name, writes=1, seconds=1)
    with pytest.raises(ServiceError, match="0 or more"):
        server.admin.set_lag(table.name, seconds=-1)
    with pytest.raises(ServiceError, match="greater than or equal to 0"):
        server.admin.set_lag(table.name, writes=-1)
    with pytest.raises(ServiceError, match="not found"):
        server.admin.set_lag("no-such-table", writes=1)


def test_a_deleted_table_has_no_past(server: LocalDynamoDB, clients: Clients) -> None:
    table = create_table(clients, "deleted-with-its-past")
    server.admin.set_lag(table.name, writes=1)
    _write(table, "a", 1)
    clients.dynamodb.delete_table(TableName=table.name)
    with pytest.raises(ClientError, match="not found"):
        _scan(table)
    again = create_table(clients, "deleted-with-its-past")
    server.admin.set_lag(again.name, writes=9)
    assert _scan(again) == {}
