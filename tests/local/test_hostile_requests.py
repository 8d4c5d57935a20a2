"""Requests that no AWS client sends: web pages, slow and oversized requests, wrong types."""

from __future__ import annotations

import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from datazone_dagster.errors import DefinitionError
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.local.clock import ServerClock
from datazone_dagster.local.connections import LocalServer
from datazone_dagster.local.operations import Operations
from datazone_dagster.local.service import Settings
from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.store import Store
from datazone_dagster.local.wire_client import WireClient
from tests.local.stream_reading import Clients, Table

ADMIN = {"X-Datazone-Admin": "1"}
ADMIN_CALLS = (
    "health",
    "split",
    "roll",
    "trim",
    "ttl",
    "clock",
    "shards",
    "counters",
    "faults",
    "reset",
    "fault-log",
)
ADMIN_MEMBERS = (
    "table",
    "shard",
    "streamArn",
    "olderThanSeconds",
    "throughSequenceNumber",
    "offsetSeconds",
    "advanceSeconds",
    "plan",
    "reset",
)
LIST_TABLES = {"X-Amz-Target": "DynamoDB_20120810.ListTables"}


def _ask(
    server: LocalDynamoDB | LocalServer,
    method: str,
    path: str,
    body: bytes | str = b"{}",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes, http.client.HTTPMessage]:
    at = (
        f"127.0.0.1:{server.port}"
        if isinstance(server, LocalServer)
        else urlsplit(server.endpoint_url).netloc
    )
    connection = http.client.HTTPConnection(at, timeout=20)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, raw, response.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_an_admin_call_needs_post(
    own_server: LocalDynamoDB, own_clients: Clients, own_table: Table, method: str
) -> None:
    status, _, headers = _ask(own_server, method, "/_admin/reset", headers=ADMIN)
    assert status == 405
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert own_clients.dynamodb.list_tables()["TableNames"] == [own_table.name]


@pytest.mark.parametrize("name", ADMIN_CALLS)
def test_a_form_of_a_web_page_makes_no_admin_call(
    own_server: LocalDynamoDB, own_clients: Clients, own_table: Table, name: str
) -> None:
    # What a page may send to another origin without asking: POST, a plain type, no own header.
    page = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
    body = '{"table": "orders", "plan": [{"operation": "*", "kind": "slow", "times": null}]}'
    status, answer, _ = _ask(own_server, "POST", f"/_admin/{name}", body, page)
    assert status == 403
    assert "X-Datazone-Admin" in json.loads(answer)["message"]
    assert own_clients.dynamodb.list_tables()["TableNames"] == [own_table.name]
    assert own_server.admin.fault_log() == []


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
        "192.168.1.7",
        "0.0.0.0",
        "",
    ],
)
def test_a_name_that_is_not_of_this_machine_is_refused(
    own_server: LocalDynamoDB, own_clients: Clients, own_table: Table, host: str
) -> None:
    reset = _ask(own_server, "POST", "/_admin/reset", headers={**ADMIN, "Host": host})
    tables = _ask(own_server, "POST", "/", headers={**LIST_TABLES, "Host": host})
    page = _ask(own_server, "GET", "/", headers={"Host": host})
    assert (reset[0], tables[0], page[0]) == (403, 403, 403)
    assert "127.0.0.1" in json.loads(tables[1])["message"]
    assert own_clients.dynamodb.list_tables()["TableNames"] == [own_table.name]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.2:1", "[::1]:8000", "dynamodb.localhost"],
)
def test_the_names_of_this_machine_are_answered(server: LocalDynamoDB, host: str) -> None:
    assert _ask(server, "POST", "/", headers={**LIST_TABLES, "Host": host})[0] == 200
    assert _ask(server, "POST", "/_admin/health", headers={**ADMIN, "Host": host})[0] == 200


@pytest.fixture
def quick_server(tmp_path: Path) -> Iterator[LocalServer]:
    """Server in this process that waits 0.2 s for a request, and 0.4 s for the next one."""
    store = Store(tmp_path)
    operations = Operations(store, ServerClock(), Settings(initial_shards=1))
    with LocalServer(0, operations, request_seconds=0.2, idle_seconds=0.4) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)
    store.close()


def _until_closed(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST / HT",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{}",
    ],
)
def test_a_request_that_does_not_end_is_given_up(quick_server: LocalServer, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", quick_server.port), timeout=20) as connection:
        connection.sendall(start)
        assert _until_closed(connection) == b""


def test_a_request_that_drips_is_given_up(quick_server: LocalServer) -> None:
    with socket.create_connection(("127.0.0.1", quick_server.port), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nA: ")
        for _ in range(2_000):  # 20 s at most; each byte alone is in time
            connection.sendall(b"a")
            if select.select([connection], [], [], 0.01)[0]:
                break
        else:
            pytest.fail("the server still waits")


def test_a_client_reopens_a_connection_that_was_idle(quick_server: LocalServer) -> None:
    client = WireClient(f"http://127.0.0.1:{quick_server.port}")
    assert client.call("ListTables") == {"TableNames": []}
    idle = client._connection().sock
    assert idle is not None
    assert select.select([idle], [], [], 20)[0], "the server ends an idle connection"
    assert client.call("ListTables") == {"TableNames": []}
    client.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"1" * 5_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n" + (b"A: " + b"a" * 9_000 + b"\r\n") * 9 + b"\r\n",
        b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_oversized_and_contradictory_heads_are_refused(
    quick_server: LocalServer, raw: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", quick_server.port), timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(13) == b"HTTP/1.1 400 "
    assert "Traceback" not in capfd.readouterr().err


DEEP = b'{"L":[' * 2_000 + b'{"S":"a"}' + b"]}" * 2_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 5_000,
        b"[" * 5_000,
        b'{"TableName":"orders","Item":{"id":{"S":"a"},"x":' + DEEP + b"}}",
        b'{"TableName":"\xff"}',
        b'{"TableName":"orders","Item":{"id":{"S":"\\ud800"}}}',
    ],
)
@pytest.mark.parametrize("where", ["/", "/_admin/trim"])
def test_a_body_that_is_not_sane_json_is_refused(
    quick_server: LocalServer, body: bytes, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"X-Amz-Target": "DynamoDB_20120810.PutItem", **ADMIN}
    status, answer, _ = _ask(quick_server, "POST", where, body, headers)
    assert (status, bool(json.loads(answer)["__type"])) == (400, True)
    assert caplog.records == []


WRONG: tuple[Any, ...] = (
    True,
    5,
    -1,
    1e308,
    2**70,
    "",
    "x",
    "9" * 5_000,
    "a[" + "9" * 4_400 + "] = :b",
    [],
    [1],
    [None],
    [{"a": 1}],
    {},
    {"a": 1},
    {"a": []},
    {"a": {"S": "\ud800"}},
    {"orders": 5},
    {"orders": [5]},
    {"orders": {"Keys": [5]}},
    {"orders": [{"PutRequest": {"Item": 5}}]},
)
GOOD: dict[str, Any] = {
    "TableName": "orders",
    "ShardIteratorType": "AT_SEQUENCE_NUMBER",
    "Item": {"id": {"S": "a"}},
    "ResourceArn": "arn:aws:dynamodb:us-west-2:000000000000:table/orders",
    "Key": {"id": {"S": "a"}},
}
MEMBERS = {
    "PutItem": ("TableName", "Item", "ConditionExpression", "ReturnValues"),
    "GetItem": ("TableName", "Key", "ProjectionExpression", "ReturnConsumedCapacity"),
    "UpdateItem": ("TableName", "Key", "UpdateExpression", "ConditionExpression"),
    "Scan": ("FilterExpression", "Limit", "Segment", "TotalSegments", "ExclusiveStartKey"),
    "Query": ("KeyConditionExpression", "ScanIndexForward", "Select"),
    "BatchWriteItem": ("RequestItems",),
    "BatchGetItem": ("RequestItems",),
    "TransactWriteItems": ("TransactItems", "ClientRequestToken"),
    "UpdateTable": ("StreamSpecification", "ProvisionedThroughput"),
    "UpdateTimeToLive": ("TimeToLiveSpecification",),
    "CreateTable": ("TableName", "KeySchema", "AttributeDefinitions", "BillingMode"),
    "TagResource": ("ResourceArn", "Tags"),
    "UntagResource": ("ResourceArn", "TagKeys"),
    "GetResources": ("TagFilters", "ResourceTypeFilters", "ResourcesPerPage", "PaginationToken"),
    "ListTables": ("ExclusiveStartTableName", "Limit"),
    "DescribeStream": ("StreamArn", "ExclusiveStartShardId", "Limit"),
    "ListStreams": ("ExclusiveStartStreamArn", "TableName"),
    "GetShardIterator": ("StreamArn", "ShardId", "ShardIteratorType", "SequenceNumber"),
    "GetRecords": ("ShardIterator", "Limit"),
}
PLACEHOLDERS = ("ExpressionAttributeNames", "ExpressionAttributeValues")
STREAMS = ("DescribeStream", "ListStreams", "GetShardIterator", "GetRecords")


@pytest.mark.parametrize("operation", MEMBERS)
def test_members_of_a_wrong_type_are_errors_of_the_client(
    own_server: LocalDynamoDB, own_table: Table, operation: str
) -> None:
    service = "DynamoDBStreams_20120810" if operation in STREAMS else "DynamoDB_20120810"
    if operation == "GetResources":
        service = "ResourceGroupsTaggingAPI_20170126"
    headers = {"X-Amz-Target": f"{service}.{operation}"}
    failed = []
    for member in (*MEMBERS[operation], *PLACEHOLDERS):
        for wrong in WRONG:
            body = {**GOOD, "StreamArn": own_table.stream_arn, member: wrong}
            if member in PLACEHOLDERS:
                body["ConditionExpression"] = body["FilterExpression"] = "attribute_exists(a)"
            status, answer, _ = _ask(own_server, "POST", "/", json.dumps(body), headers)
            if status >= 500:
                failed.append((member, str(wrong)[:50], answer))
    assert failed == []
    own_table.put("still here")


@pytest.mark.parametrize("name", ADMIN_CALLS)
def test_wrong_admin_calls_break_nothing(
    own_server: LocalDynamoDB, own_clients: Clients, own_table: Table, name: str
) -> None:
    failed = []
    for member in ADMIN_MEMBERS:
        for wrong in (*WRONG, None):
            body = json.dumps({"table": "orders", member: wrong})
            status, answer, _ = _ask(own_server, "POST", f"/_admin/{name}", body, ADMIN)
            if status >= 500:
                failed.append((member, str(wrong)[:50], answer))
    assert failed == []
    if name != "reset":
        own_table.put("still here")
        assert "still here" in own_table.items()
    own_server.admin.reset()
    assert own_clients.dynamodb.list_tables()["TableNames"] == []


@pytest.mark.parametrize("seconds", [1e308, 1e12, -1e12, float("1e20")])
def test_the_clock_stays_within_this_age(own_server: LocalDynamoDB, seconds: float) -> None:
    before = own_server.admin.now()
    with pytest.raises(ServiceError, match="years"):
        own_server.admin.set_clock_offset(seconds)
    with pytest.raises(ServiceError, match="years"):
        own_server.admin.advance_clock(seconds)
    assert 0 <= own_server.admin.now() - before < 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_seconds": float("inf")},
        {"delay_seconds": 1e308},
        {"delay_seconds": "1"},
        {"delay_seconds": float("nan")},
        {"payload": 5},
        {"first": "1"},
        {"first": 1.5},
        {"every": True},
        {"times": "1"},
        {"operation": 5},
        {"shard": [1]},
        {"shard": 1.5},
    ],
)
def test_a_fault_of_a_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        Fault(**{"operation": "GetRecords", "kind": FaultKind.SLOW, **wrong})


def test_a_fault_that_answers_never_and_at_once(own_server: LocalDynamoDB) -> None:
    own_server.admin.set_faults([Fault("ListTables", FaultKind.NO_ANSWER, delay_seconds=0)])
    with pytest.raises(http.client.RemoteDisconnected):
        _ask(own_server, "POST", "/", headers=LIST_TABLES)
    assert _ask(own_server, "POST", "/", headers=LIST_TABLES)[0] == 200
