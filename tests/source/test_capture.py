from __future__ import annotations

import gzip
import json
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datazone_dagster.errors import ExpiredIteratorError, ServiceUnavailableError
from datazone_dagster.source import capture
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients
from tests.source.pages import an_insert
from tests.source.scripted import Answer, ScriptedService, error, ok

BODY = json.dumps({"Records": [an_insert(1)], "NextShardIterator": "next"}).encode()


def test_a_call_of_another_caller_on_the_same_client_is_not_captured(
    service: ScriptedService, clients: Clients
) -> None:
    service.script("GetRecords", Answer(BODY))
    client = BotoStreamClient("t", clients)
    client.get_records("iterator")

    assert len(clients.streams.get_records(ShardIterator="iterator")["Records"]) == 1
    assert client.get_records("iterator").next_iterator == "next"


def test_the_parser_gets_nothing_to_do(service: ScriptedService, clients: Clients) -> None:
    service.script("GetRecords", Answer(BODY))
    capture.install(clients.streams, "GetRecords")
    with capture.capturing() as answer:
        parsed: Any = clients.streams.get_records(ShardIterator="iterator")
    assert "Records" not in parsed
    assert answer.body("GetRecords") == BODY


def test_errors_keep_their_body(service: ScriptedService, clients: Clients) -> None:
    service.script("GetRecords", error("ExpiredIteratorException"))
    with pytest.raises(ExpiredIteratorError):
        BotoStreamClient("t", clients).get_records("iterator")


def test_a_retried_call_returns_the_good_response(
    service: ScriptedService, clients: Clients
) -> None:
    service.script("GetRecords", error("InternalServerError", 500), Answer(BODY))
    assert len(BotoStreamClient("t", clients).get_records("iterator").records) == 1
    assert len(service.calls("GetRecords")) == 2


def test_gzip_is_undone(service: ScriptedService, clients: Clients) -> None:
    # botocore does not decompress: it reads with decode_content=False.
    service.script("GetRecords", Answer(gzip.compress(BODY), 200, {"Content-Encoding": "gzip"}))
    page = BotoStreamClient("t", clients).get_records("iterator")
    assert page.body_bytes == len(BODY)
    assert [record.sequence_number for record in page.records] == [1]


@pytest.mark.parametrize("asked", [True, False])
def test_gzip_is_requested_only_if_enabled_and_only_for_pages(
    service: ScriptedService, asked: bool
) -> None:
    connection = ConnectionSettings(
        region="us-west-2",
        endpoint_url=service.url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    own = build_clients(connection)
    service.script("GetRecords", Answer(gzip.compress(BODY), 200, {"Content-Encoding": "gzip"}))
    page = BotoStreamClient("t", own, ask_for_gzip=asked).get_records("iterator")
    assert len(page.records) == 1
    service.script("GetRecords", Answer(BODY))
    own.streams.get_records(ShardIterator="another caller's")
    ours, theirs = (
        request.headers.get("Accept-Encoding") for request in service.calls("GetRecords")
    )
    assert ours == ("gzip" if asked else "identity")
    assert theirs == "identity"


@pytest.mark.parametrize(
    ("body", "headers", "fault"),
    [
        (gzip.compress(BODY)[:-12], {"Content-Encoding": "gzip"}, "cut short"),
        (b"plain", {"Content-Encoding": "gzip"}, "not gzip"),
        (BODY, {"Content-Encoding": "br"}, "'br'"),
        (BODY, {"x-amz-crc32": str(zlib.crc32(BODY) ^ 1)}, "checksum"),
    ],
)
def test_a_damaged_response_is_refused(
    service: ScriptedService, clients: Clients, body: bytes, headers: dict[str, str], fault: str
) -> None:
    service.script("GetRecords", Answer(body, 200, headers))
    with pytest.raises(ServiceUnavailableError, match=fault):
        BotoStreamClient("t", clients).get_records("iterator")


def test_a_bomb_is_not_inflated(
    service: ScriptedService, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MAX_BODY_BYTES", 1000)
    bomb = gzip.compress(b" " * 1001)
    service.script("GetRecords", Answer(bomb, 200, {"Content-Encoding": "gzip"}))
    with pytest.raises(ServiceUnavailableError, match="too long"):
        BotoStreamClient("t", clients).get_records("iterator")


def test_a_checksum_that_matches_is_fine(service: ScriptedService, clients: Clients) -> None:
    service.script("GetRecords", Answer(BODY, 200, {"x-amz-crc32": str(zlib.crc32(BODY))}))
    assert len(BotoStreamClient("t", clients).get_records("iterator").records) == 1


def test_threads_get_their_own_responses(service: ScriptedService, clients: Clients) -> None:
    calls, threads = 120, 8
    answers = [
        ok({"Records": [an_insert(number)], "NextShardIterator": str(number)})
        for number in range(1, calls + 1)
    ]
    service.script("GetRecords", *answers, answers[-1])
    client = BotoStreamClient("t", clients)
    together = threading.Barrier(threads)

    def read(_: int) -> list[tuple[int, str | None]]:
        together.wait(timeout=10)
        pages = [client.get_records("iterator") for _ in range(calls // threads)]
        return [(page.records[0].sequence_number, page.next_iterator) for page in pages]

    with ThreadPoolExecutor(threads) as pool:
        seen = [pair for pairs in pool.map(read, range(threads)) for pair in pairs]
    assert all(str(number) == iterator for number, iterator in seen)
    assert sorted(number for number, _ in seen) == list(range(1, calls + 1))
