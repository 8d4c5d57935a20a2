"""Requests over the wire, byte by byte and many at a time."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.wire_client import WireClient
from tests.local.stream_reading import Clients, Table, create_table, iterator


def _exchange(server: LocalDynamoDB, raw: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    port = int(server.endpoint_url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / SPDY/3\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    ],
)
def test_malformed_and_unsupported_http_is_refused(server: LocalDynamoDB, raw: bytes) -> None:
    assert _exchange(server, raw).startswith(b"HTTP/1.1 400 ")


def test_a_request_cut_short_gets_no_answer(server: LocalDynamoDB) -> None:
    assert _exchange(server, b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}") == b""


def test_a_client_may_ask_before_it_sends(server: LocalDynamoDB) -> None:
    raw = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
        b"X-Amz-Target: DynamoDB_20120810.ListTables\r\nConnection: close\r\n\r\n{}"
    )
    received = _exchange(server, raw)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_a_browser_gets_a_message(server: LocalDynamoDB) -> None:
    assert b"local DynamoDB" in _exchange(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def _post(
    server: LocalDynamoDB, target: str, body: bytes
) -> tuple[int, Any, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint_url).netloc, timeout=10)
    connection.request("POST", "/", body, {"X-Amz-Target": target})
    response = connection.getresponse()
    raw = response.read()
    assert int(response.headers["x-amz-crc32"]) == zlib.crc32(raw)
    connection.close()
    return response.status, json.loads(raw), response.headers


@pytest.mark.parametrize(
    ("target", "body", "kind"),
    [
        ("DynamoDB_20120810.NoSuch", b"{}", "UnknownOperationException"),
        ("", b"{}", "UnknownOperationException"),
        ("DynamoDBStreams_20120810.PutItem", b"{}", "UnknownOperationException"),
        ("DynamoDB_20120810.ListTables", b"{", "SerializationException"),
        ("DynamoDB_20120810.ListTables", b"[]", "SerializationException"),
        ("DynamoDB_20120810.ListTables", b'{"Limit":"x"}', "SerializationException"),
        ("DynamoDB_20120810.ListTables", b'{"Limit":0}', "ValidationException"),
        ("DynamoDB_20120810.DescribeTable", b"{}", "ValidationException"),
        ("DynamoDB_20120810.PutItem", b'{"TableName":"none"}', "ResourceNotFoundException"),
        ("DynamoDBStreams_20120810.GetRecords", b"{}", "ValidationException"),
    ],
)
def test_errors_are_well_formed(server: LocalDynamoDB, target: str, body: bytes, kind: str) -> None:
    status, answer, headers = _post(server, target, body)
    assert status == 400
    assert answer["__type"].endswith(f"#{kind}")
    assert answer["message"]
    assert headers["Content-Type"] == "application/x-amz-json-1.0"


def test_many_clients_write_at_once(server: LocalDynamoDB, clients: Clients) -> None:
    table = create_table(clients, "counted")
    client = WireClient(server.endpoint_url)
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for n in range(50):
                client.call(
                    "UpdateItem",
                    TableName=table.name,
                    Key={"id": {"S": str(n % 2)}},
                    UpdateExpression="ADD n :one",
                    ExpressionAttributeValues={":one": {"N": "1"}},
                )
        except (ServiceError, OSError) as error:
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert {item["n"]["N"] for item in table.items().values()} == {"200"}
    assert len(table.records()) == 400


def cpu_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads CPU time from /proc")
def test_full_pages_take_little_of_the_server(server: LocalDynamoDB, clients: Clients) -> None:
    table: Table = create_table(clients, "full-pages")
    for n in range(0, 2400, 25):
        puts = [
            {"PutRequest": {"Item": {"id": {"S": f"{n + i}"}, "x": {"S": "x" * 1500}}}}
            for i in range(25)
        ]
        clients.dynamodb.batch_write_item(RequestItems={table.name: puts})
    start = iterator(clients, table.stream_arn, table.shards()[0]["ShardId"])
    body = json.dumps({"ShardIterator": start}).encode()
    connection = http.client.HTTPConnection(urlsplit(server.endpoint_url).netloc, timeout=10)
    before_seconds = cpu_seconds(server.pid)
    for _ in range(60):
        connection.request(
            "POST", "/", body, {"X-Amz-Target": "DynamoDBStreams_20120810.GetRecords"}
        )
        assert len(connection.getresponse().read()) > 1_000_000
    connection.close()
    assert (cpu_seconds(server.pid) - before_seconds) / 60 < 0.02


def test_counters_show_the_cost_of_reading(own_server: LocalDynamoDB, own_table: Table) -> None:
    own_server.admin.counters(reset=True)
    own_table.put("a")
    own_table.records()
    counters = own_server.admin.counters()
    assert counters["calls"] == {
        "PutItem": 1,
        "DescribeStream": 1,
        "GetShardIterator": 1,
        "GetRecords": 2,
    }
    assert (counters["records"], counters["empty_pages"]) == (1, 1)


def test_admin_calls_that_are_wrong(own_server: LocalDynamoDB, own_table: Table) -> None:
    with pytest.raises(ServiceError, match="no such shard"):
        own_server.admin.split(own_table.name, 7)
    with pytest.raises(ServiceError, match="not found"):
        own_server.admin.roll("no-such-table")
    with pytest.raises(ServiceError, match="olderThanSeconds"):
        own_server.admin.trim(older_than_seconds=-1)
