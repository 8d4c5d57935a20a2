from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.stream_reading import Clients, Table


def _fill(table: Table, count: int, **attributes: Any) -> None:
    for start in range(0, count, 25):
        puts = [
            {"PutRequest": {"Item": {"id": {"S": f"{n:04d}"}, "n": {"N": str(n)}, **attributes}}}
            for n in range(start, min(start + 25, count))
        ]
        table.clients.dynamodb.batch_write_item(RequestItems={table.name: puts})


def _scan(table: Table, **request: Any) -> list[str]:
    pages = table.clients.dynamodb.get_paginator("scan").paginate(TableName=table.name, **request)
    return [item["id"]["S"] for page in pages for item in page["Items"]]


def test_pages_together_give_every_item_once(table: Table) -> None:
    _fill(table, 60)
    everything = _scan(table)
    assert sorted(everything) == [f"{n:04d}" for n in range(60)]
    assert _scan(table, PaginationConfig={"PageSize": 7}) == everything


def test_segments_divide_the_table(table: Table) -> None:
    _fill(table, 60)
    segments = [_scan(table, Segment=n, TotalSegments=3) for n in range(3)]
    assert all(segments)
    assert [item_id for segment in segments for item_id in segment] == _scan(table)
    with pytest.raises(ClientError, match="must be given together"):
        _scan(table, Segment=0)
    with pytest.raises(ClientError, match="less than parameter TotalSegments"):
        _scan(table, Segment=3, TotalSegments=3)


def test_a_page_ends_at_one_megabyte_before_the_filter(clients: Clients, table: Table) -> None:
    _fill(table, 50, pad={"S": "x" * 50_000})
    page = clients.dynamodb.scan(
        TableName=table.name,
        FilterExpression="n < :n",
        ExpressionAttributeValues={":n": {"N": "0"}},
    )
    assert page["Count"] == 0
    assert page["ScannedCount"] == 21
    assert "LastEvaluatedKey" in page
    matching = _scan(table, FilterExpression="n < :n", ExpressionAttributeValues={":n": {"N": "5"}})
    assert sorted(matching) == [f"{n:04d}" for n in range(5)]


def test_query_by_sort_key(clients: Clients) -> None:
    dynamodb: Any = clients.dynamodb
    dynamodb.create_table(
        TableName="sorted",
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
    for at in ("10", "-1", "9", "0", "2.5"):
        for who in ("ada", "grace"):
            dynamodb.put_item(TableName="sorted", Item={"who": {"S": who}, "at": {"N": at}})

    def query(expression: str, **more: Any) -> list[str]:
        values = {":who": {"S": "ada"}, ":low": {"N": "0"}, ":high": {"N": "9"}}
        used = {key: value for key, value in values.items() if key in expression}
        pages = dynamodb.get_paginator("query").paginate(
            TableName="sorted",
            KeyConditionExpression=expression,
            ExpressionAttributeValues=used,
            **more,
        )
        return [item["at"]["N"] for page in pages for item in page["Items"]]

    assert query("who = :who") == ["-1", "0", "2.5", "9", "10"]
    assert query("who = :who", ScanIndexForward=False) == ["10", "9", "2.5", "0", "-1"]
    assert query("who = :who", PaginationConfig={"PageSize": 2}) == query("who = :who")
    assert query("who = :who AND #at > :low", ExpressionAttributeNames={"#at": "at"}) == [
        "2.5",
        "9",
        "10",
    ]
    between = "#at BETWEEN :low AND :high AND who = :who"
    assert query(between, ExpressionAttributeNames={"#at": "at"}) == ["0", "2.5", "9"]
    with pytest.raises(ClientError, match="missed key schema element"):
        query("#at = :low", ExpressionAttributeNames={"#at": "at"})
    with pytest.raises(ClientError, match="not supported"):
        query("who > :who")
