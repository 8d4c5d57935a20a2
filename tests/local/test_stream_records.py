from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import Any

import pytest

from tests.local.stream_reading import Clients, Table, create_table

_names = itertools.count(1)


def test_the_life_of_an_item(table: Table) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    table.put("a", n={"N": "1"})
    table.put("a", n={"N": "2"})
    table.delete("a")
    insert, modify, remove = table.records()
    assert [insert["eventName"], modify["eventName"], remove["eventName"]] == [
        "INSERT",
        "MODIFY",
        "REMOVE",
    ]
    one, two = ({"id": {"S": "a"}, "n": {"N": n}} for n in "12")
    images = [
        (r["dynamodb"].get("OldImage"), r["dynamodb"].get("NewImage"))
        for r in (insert, modify, remove)
    ]
    assert images == [(None, one), (one, two), (two, None)]
    change = insert["dynamodb"]
    assert change["Keys"] == {"id": {"S": "a"}}
    assert change["SizeBytes"] == 3 + (3 + 1 + 2)
    assert change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert change["ApproximateCreationDateTime"].microsecond == 0
    assert change["ApproximateCreationDateTime"] >= before
    assert insert["awsRegion"] == "us-west-2"
    assert insert["eventSource"] == "aws:dynamodb"
    assert "userIdentity" not in insert
    assert len({record["eventID"] for record in (insert, modify, remove)}) == 3


def test_a_write_that_changes_nothing_makes_no_record(table: Table) -> None:
    item: dict[str, Any] = {"n": {"N": "1"}, "tags": {"SS": ["a", "b"]}}
    table.put("a", **item)
    table.put("a", n={"N": "1.0"}, tags={"SS": ["b", "a"]})
    table.update("a", "SET n = :n", n={"N": "1"})
    table.delete("never there")
    assert len(table.records()) == 1


def test_an_update_of_an_absent_item_is_one_insert(table: Table) -> None:
    assert table.update("a", "SET n = :n", n={"N": "1"}) == {"id": {"S": "a"}, "n": {"N": "1"}}
    (record,) = table.records()
    assert record["eventName"] == "INSERT"
    assert record["dynamodb"]["NewImage"] == {"id": {"S": "a"}, "n": {"N": "1"}}


@pytest.mark.parametrize(
    ("view", "members"),
    [
        ("KEYS_ONLY", set()),
        ("NEW_IMAGE", {"NewImage"}),
        ("OLD_IMAGE", {"OldImage"}),
        ("NEW_AND_OLD_IMAGES", {"NewImage", "OldImage"}),
    ],
)
def test_a_view_type_decides_the_images(clients: Clients, view: str, members: set[str]) -> None:
    table = create_table(clients, f"view-{next(_names)}", view)
    table.put("a", n={"N": "1"})
    table.put("a", n={"N": "2"})
    record = table.records()[-1]
    assert record["eventName"] == "MODIFY"
    assert record["dynamodb"].keys() & {"NewImage", "OldImage"} == members
    assert record["dynamodb"]["StreamViewType"] == view


def test_sequence_numbers_rise_widen_and_have_gaps(clients: Clients) -> None:
    table = create_table(clients, f"sequences-{next(_names)}")
    for n in range(0, 2000, 25):
        puts: Any = [{"PutRequest": {"Item": {"id": {"S": str(n + i)}}}} for i in range(25)]
        clients.dynamodb.batch_write_item(RequestItems={table.name: puts})
    numbers = sorted(int(record["dynamodb"]["SequenceNumber"]) for record in table.records())
    assert len(set(numbers)) == 2000
    widths = {len(str(number)) for number in numbers}
    assert widths >= {21, 22, 23, 24}
    assert max(widths) <= 27
    assert all(after - before > 1 for before, after in itertools.pairwise(numbers))
    # Writes in order, numbers in order: numbers increase over the entire stream.
    by_item = {
        int(r["dynamodb"]["Keys"]["id"]["S"]): int(r["dynamodb"]["SequenceNumber"])
        for r in table.records()
    }
    assert [by_item[n] for n in range(2000)] == numbers
