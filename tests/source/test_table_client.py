"""The table client against responses that no emulator gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from botocore.stub import Stubber

from datazone_dagster import errors
from datazone_dagster.errors import SourceError
from datazone_dagster.source.item_wire import KeySlicer
from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients
from datazone_dagster.source.table_client import BotoTableClient
from tests.source.scripted import Answer, ScriptedService, error, ok

DATE = "Sat, 28 Nov 2026 05:00:00 GMT"
TABLE = {
    "TableName": "orders",
    "KeySchema": [
        {"AttributeName": "n", "KeyType": "RANGE"},
        {"AttributeName": "id", "KeyType": "HASH"},
    ],
}
ITEM = {"id": {"S": "a"}, "n": {"N": "1"}, "total": {"N": "5.10"}}
KEY = '{"id":{"S":"a"},"n":{"N":"1"}}'


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(service: ScriptedService, once: Clients, waits: list[float]) -> BotoTableClient:
    service.script("DescribeTable", ok({"Table": TABLE}))
    return BotoTableClient("orders", once, wait=waits.append)


def _page(*items: object, **members: object) -> Answer:
    return ok({"Items": items, "Count": len(items), **members}, Date=DATE)


def _batch(*items: object, left: list[Mapping[str, object]] | None = None) -> Answer:
    unprocessed = {"orders": {"Keys": left, "ConsistentRead": True}} if left else {}
    return ok({"Responses": {"orders": items}, "UnprocessedKeys": unprocessed}, Date=DATE)


def _key(number: int) -> dict[str, Any]:
    return {"id": {"S": "a"}, "n": {"N": str(number)}}


@pytest.mark.parametrize(
    ("members", "units", "limit"),
    [
        ({}, None, None),
        ({"ProvisionedThroughput": {"ReadCapacityUnits": 25}}, 25.0, None),
        (
            {
                "ProvisionedThroughput": {"ReadCapacityUnits": 25},
                "WarmThroughput": {"ReadUnitsPerSecond": 12000},
            },
            25.0,
            None,
        ),
        (
            {
                "ProvisionedThroughput": {"ReadCapacityUnits": 0},
                "WarmThroughput": {"ReadUnitsPerSecond": 12000},
                "OnDemandThroughput": {"MaxReadRequestUnits": 500},
            },
            12000.0,
            500.0,
        ),
        ({"OnDemandThroughput": {"MaxReadRequestUnits": -1}}, None, None),
    ],
)
def test_capacity_in_a_description(
    service: ScriptedService,
    client: BotoTableClient,
    members: dict[str, object],
    units: float | None,
    limit: float | None,
) -> None:
    service.script("DescribeTable", ok({"Table": {**TABLE, **members}}))
    described = client.describe_table()
    assert (described.read_units_per_second, described.max_read_units) == (units, limit)
    assert described.key_names == ("id", "n")
    assert (described.table_arn, described.table_id) == (None, None)


def test_what_a_scan_asks_for_and_returns(
    service: ScriptedService, client: BotoTableClient
) -> None:
    last = {"id": {"S": "a"}, "n": {"N": "1"}}
    capacity = {"TableName": "orders", "CapacityUnits": 128.5}
    service.script("Scan", _page(ITEM, LastEvaluatedKey=last, ConsumedCapacity=capacity))
    page = client.scan_page(3, 8, '{"id":{"S":"0"},"n":{"N":"0"}}', consistent=True)

    (request,) = service.calls("Scan")
    assert request.json == {
        "TableName": "orders",
        "Segment": 3,
        "TotalSegments": 8,
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        "ExclusiveStartKey": {"id": {"S": "0"}, "n": {"N": "0"}},
    }
    assert page.read_units == 128.5
    assert page.at == datetime(2026, 11, 28, 5, tzinfo=timezone.utc)
    assert json.loads(page.next_key or "") == last
    (item,) = page.items
    assert json.loads(item.keys) == last
    assert item.image == json.dumps(ITEM)
    assert item.size_bytes == len(item.image)


def test_an_eventually_consistent_page(service: ScriptedService, client: BotoTableClient) -> None:
    service.script("Scan", _page(ITEM))
    page = client.scan_page(0, 1, None, consistent=False)
    assert page.next_key is None
    (request,) = service.calls("Scan")
    assert request.json["ConsistentRead"] is False
    assert "ExclusiveStartKey" not in request.json


@pytest.mark.parametrize(("consistent", "units"), [(True, 3.0), (False, 1.5)])
def test_units_that_the_service_does_not_report(
    service: ScriptedService, client: BotoTableClient, consistent: bool, units: float
) -> None:
    service.script("Scan", _page({**ITEM, "f": {"S": "x" * 9_000}}))
    assert client.scan_page(0, 1, None, consistent=consistent).read_units == units


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (ok({}, Date=DATE), "no list of Items"),
        (ok({"Items": [], "Count": 2}, Date=DATE), "0 items and says 2"),
        (ok({"Items": [{"id": {"S": "a"}}], "Count": 1}, Date=DATE), "`n`"),
        (ok({"Items": ["x"], "Count": 1}, Date=DATE), "can't be read"),
        (_page(ITEM, LastEvaluatedKey="x"), "can't be read"),
        (Answer(b"<html>", 200, {"Date": DATE}), "can't be read"),
        (Answer(b'{"Items":[{"id":{"S":"\xff"},"n":{"N":"1"}}]}', 200, {"Date": DATE}), "UTF-8"),
        (ok({"Items": [], "Count": 0}, Date="yesterday"), "no valid Date header"),
    ],
)
def test_an_answer_that_is_not_a_page_is_no_end(
    service: ScriptedService, client: BotoTableClient, answer: Answer, fault: str
) -> None:
    service.script("Scan", answer)
    with pytest.raises(errors.ServiceUnavailableError, match=fault) as caught:
        client.scan_page(0, 1, None, consistent=True)
    assert "us-west-2" in caught.value.what
    assert "Landed rows are safe" in caught.value.safe


def test_an_item_nested_without_end(service: ScriptedService, client: BotoTableClient) -> None:
    deep = b'{"id":{"S":"a"},"n":{"N":"1"},"d":' + b'{"L":[' * 20_000 + b"]}" * 20_000 + b"}"
    service.script("Scan", Answer(b'{"Items":[' + deep + b'],"Count":1}', 200, {"Date": DATE}))
    with pytest.raises(errors.ServiceUnavailableError, match="nested too deep"):
        client.scan_page(0, 1, None, consistent=True)


def test_paging_that_does_not_advance_ends(
    service: ScriptedService, client: BotoTableClient
) -> None:
    service.script("Scan", _page(ITEM, LastEvaluatedKey=_key(1)))
    page = client.scan_page(0, 1, None, consistent=True)
    with pytest.raises(errors.ServiceUnavailableError, match="same page again"):
        client.scan_page(0, 1, page.next_key, consistent=True)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"id":{"S":1}}', '{"id":{"L":"x"}}', '{"b":{"B":"*"}}']
)
def test_a_key_that_is_none(client: BotoTableClient, text: str) -> None:
    with pytest.raises(SourceError, match="is not a key of the table"):
        client.get_items([text])
    with pytest.raises(SourceError, match="is not a key of the table"):
        client.scan_page(0, 1, text, consistent=True)


def test_unprocessed_keys_are_asked_again(
    service: ScriptedService, client: BotoTableClient, waits: list[float]
) -> None:
    first, second = {**_key(1), "v": {"N": "1"}}, {**_key(2), "v": {"N": "2"}}
    service.script(
        "BatchGetItem",
        _batch(first, left=[_key(2), _key(3)]),
        _batch(left=[_key(2), _key(3)]),
        _batch(second),
    )
    keys = [json.dumps(_key(number)) for number in (1, 2, 3)]
    assert client.get_items(keys) == {keys[0]: json.dumps(first), keys[1]: json.dumps(second)}
    sent = [request.json["RequestItems"]["orders"] for request in service.calls("BatchGetItem")]
    assert [len(request["Keys"]) for request in sent] == [3, 2, 2]
    assert all(request["ConsistentRead"] for request in sent)
    assert len(waits) == 2
    assert all(0 <= seconds <= 0.05 for seconds in waits)


def test_keys_that_stay_unprocessed_are_not_absent(
    service: ScriptedService, client: BotoTableClient, waits: list[float]
) -> None:
    service.script("BatchGetItem", _batch(left=[_key(1)]))
    with pytest.raises(errors.ThrottledError, match="1 keys are still unprocessed") as caught:
        client.get_items([KEY])
    assert "No item counts as absent" in caught.value.safe
    assert len(waits) == 8
    assert all(seconds <= 6.4 for seconds in waits)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (ok({}, Date=DATE), "no Responses"),
        (ok({"Responses": None}, Date=DATE), "can't be read"),
        (_batch({**_key(9), "v": {"N": "1"}}), "not asked for"),
        (_batch(left=[_key(9)]), "not asked for"),
        (_batch({"id": {"S": "a"}}), "can't be read"),
    ],
)
def test_an_answer_that_proves_nothing_absent(
    service: ScriptedService, client: BotoTableClient, answer: Answer, fault: str
) -> None:
    service.script("BatchGetItem", answer)
    with pytest.raises(errors.ServiceUnavailableError, match=fault):
        client.get_items([KEY])


def test_keys_that_differ_in_form_only_are_asked_once(
    service: ScriptedService, client: BotoTableClient
) -> None:
    service.script("BatchGetItem", _batch(ITEM))
    other = '{"n": {"N": "1.0"}, "id": {"S": "\\u0061"}}'
    assert set(client.get_items([KEY, other])) == {KEY, other}
    (request,) = service.calls("BatchGetItem")
    assert len(request.json["RequestItems"]["orders"]["Keys"]) == 1


def _call(client: BotoTableClient, operation: str) -> object:
    if operation == "Scan":
        return client.scan_page(0, 1, None, consistent=True)
    return client.get_items([KEY])


@pytest.mark.parametrize("operation", ["Scan", "BatchGetItem"])
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ExpiredTokenException", 400, errors.CredentialsError),
        ("AccessDeniedException", 400, errors.AccessDeniedError),
        ("ResourceNotFoundException", 400, errors.TableNotFoundError),
        ("ThrottlingException", 400, errors.ThrottledError),
        ("ProvisionedThroughputExceededException", 400, errors.ThrottledError),
        ("RequestLimitExceeded", 400, errors.ThrottledError),
        ("InternalServerError", 500, errors.ServiceUnavailableError),
        ("ValidationException", 400, errors.SourceError),
    ],
)
def test_codes(
    service: ScriptedService,
    client: BotoTableClient,
    operation: str,
    code: str,
    status: int,
    kind: type[SourceError],
) -> None:
    service.script(operation, error(code, status))
    with pytest.raises(SourceError) as caught:
        _call(client, operation)
    assert type(caught.value) is kind
    assert "'orders'" in caught.value.what
    assert "drain" not in caught.value.safe
    assert caught.value.hint


@pytest.mark.parametrize("operation", ["Scan", "BatchGetItem"])
@pytest.mark.parametrize(
    ("table", "resource"),
    [
        ("orders", "table/orders."),
        (
            "arn:aws:dynamodb:us-west-2:123456789012:table/orders",
            "on arn:aws:dynamodb:us-west-2:123456789012:table/orders.",
        ),
    ],
)
def test_a_missing_action_is_named_and_the_starts_without_it(
    service: ScriptedService, once: Clients, operation: str, table: str, resource: str
) -> None:
    service.script("DescribeTable", ok({"Table": TABLE}))
    service.script(operation, error("AccessDeniedException"))
    with pytest.raises(errors.AccessDeniedError) as caught:
        _call(BotoTableClient(table, once), operation)
    assert f"dynamodb:{operation} on" in caught.value.hint
    assert resource in caught.value.hint
    assert 'start="trim_horizon" or "latest"' in caught.value.hint


def test_a_throttled_scan_names_the_capacity(
    service: ScriptedService, client: BotoTableClient
) -> None:
    service.script("Scan", error("ProvisionedThroughputExceededException"))
    with pytest.raises(errors.ThrottledError) as caught:
        client.scan_page(0, 1, None, consistent=True)
    assert "snapshot_rcu" in caught.value.hint
    assert "shard" not in caught.value.hint


def test_calls_of_others_on_the_same_client_are_not_captured(
    service: ScriptedService, client: BotoTableClient, once: Clients
) -> None:
    service.script("Scan", _page(ITEM))
    client.scan_page(0, 1, None, consistent=True)
    assert once.dynamodb.scan(TableName="orders")["Items"] == [ITEM]


def test_a_stubbed_session() -> None:
    settings = ConnectionSettings(
        region="us-west-2", aws_access_key_id="k", aws_secret_access_key="s"
    )
    clients = build_clients(settings)
    binary = {"id": {"B": b"\xff"}, "n": {"N": "1"}}
    meta = {"ResponseMetadata": {"HTTPHeaders": {"date": DATE}}}
    with Stubber(clients.dynamodb) as stub:
        stub.add_response("describe_table", {"Table": TABLE})
        stub.add_response("scan", {"Items": [binary], "Count": 1, **meta})
        stub.add_response("batch_get_item", {"Responses": {"orders": [binary]}})
        client = BotoTableClient("orders", clients)
        (item,) = client.scan_page(0, 1, None, consistent=True).items
        assert json.loads(item.image) == {"id": {"B": "/w=="}, "n": {"N": "1"}}
        assert client.get_items([item.keys]) == {item.keys: item.image}


@pytest.mark.parametrize("name", ['a"b', "k\\", "é 漢", "a.b", "class", "__init__", "key_0", "k\n"])
def test_key_names_are_data(name: str) -> None:
    item = json.dumps({"key_0": {"S": "?"}, name: {"S": "x"}, "o": {"M": {name: {"S": "no"}}}})
    keys = KeySlicer([name]).keys_of(msgspec.Raw(item.encode()))
    assert json.loads(keys) == {name: {"S": "x"}}


def test_close_before_first_use() -> None:
    def factory() -> Clients:
        raise AssertionError("nothing to connect for")

    BotoTableClient("orders", factory).close()
