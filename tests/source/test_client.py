"""The client on responses that no emulator gives, scripted over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from datazone_dagster.errors import (
    ServiceUnavailableError,
    ShardNotFoundError,
    StreamDisabledError,
    TrimmedDataError,
    ViewTypeError,
)
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.shard import TRIM_HORIZON, IteratorStart, Shard, StartAt, after
from datazone_dagster.source import listed_streams
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.session import Clients
from tests.source.scripted import Answer, ScriptedService, error, ok

A, B, C = (f"shardId-0000000000000000000{n}-0123456" for n in (1, 2, 3))
TABLE = "arn:aws:dynamodb:us-west-2:123456789012:table/orders"
OLD, MIDDLE, NEW = (f"{TABLE}/stream/2026-01-0{day}T00:00:00.000" for day in (1, 2, 3))


@pytest.fixture
def client(service: ScriptedService, clients: Clients) -> BotoStreamClient:
    return BotoStreamClient("orders", clients)


def _listed(*arns: str) -> dict[str, Any]:
    return {
        "Streams": [
            {"StreamArn": arn, "TableName": "orders", "StreamLabel": arn.rpartition("/")[2]}
            for arn in arns
        ]
    }


def _table(latest: str | None, enabled: bool) -> dict[str, Any]:
    table: dict[str, Any] = {"TableName": "orders"}
    if latest is not None:
        table["LatestStreamArn"] = latest
    if enabled:
        table["StreamSpecification"] = {
            "StreamEnabled": True,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
    return {"Table": table}


def test_it_is_a_stream_client(client: BotoStreamClient) -> None:
    protocol: StreamClient = client
    assert "orders" in repr(protocol)


def test_streams_are_listed_page_by_page_and_the_current_one_is_last(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script(
        "ListStreams", ok({**_listed(NEW), "LastEvaluatedStreamArn": NEW}), ok(_listed(OLD, MIDDLE))
    )
    service.script("DescribeTable", ok(_table(NEW, enabled=True)))
    assert client.stream_arns() == (OLD, MIDDLE, NEW)
    first, second = service.calls("ListStreams")
    assert first.json == {"TableName": "orders"}
    assert second.json == {"TableName": "orders", "ExclusiveStartStreamArn": NEW}


def test_a_stream_that_was_just_enabled_need_not_be_listed(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script("ListStreams", ok(_listed(OLD)))
    service.script("DescribeTable", ok(_table(NEW, enabled=True)))
    assert client.stream_arns() == (OLD, NEW)


def test_a_disabled_stream_is_readable_while_it_is_listed(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script("ListStreams", ok(_listed(OLD)))
    service.script("DescribeTable", ok(_table(OLD, enabled=False)))
    assert client.stream_arns() == (OLD,)


def test_streams_are_listed_again_when_the_table_has_another_one_or_after_a_minute(
    service: ScriptedService, client: BotoStreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.script("ListStreams", ok(_listed(OLD)))
    service.script("DescribeTable", ok(_table(OLD, enabled=True)))
    assert [client.stream_arns() for _ in range(5)] == [(OLD,)] * 5
    assert len(service.calls("ListStreams")) == 1
    service.script("ListStreams", ok(_listed(OLD, NEW)))
    service.script("DescribeTable", ok(_table(NEW, enabled=True)))
    assert [client.stream_arns() for _ in range(2)] == [(OLD, NEW)] * 2
    assert len(service.calls("ListStreams")) == 2
    service.script("ListStreams", ok(_listed(NEW)))
    monkeypatch.setattr(listed_streams, "STREAMS_LISTED_SECONDS", 0.0)
    assert client.stream_arns() == (NEW,)


@pytest.mark.parametrize("latest", [None, OLD])
def test_no_stream_says_how_to_enable_one(
    service: ScriptedService, client: BotoStreamClient, latest: str | None
) -> None:
    service.script("ListStreams", ok(_listed()))
    service.script("DescribeTable", ok(_table(latest, enabled=False)))
    with pytest.raises(StreamDisabledError) as caught:
        client.stream_arns()
    text = str(caught.value)
    assert "'orders' in region us-west-2" in text
    assert "recorded nowhere" in text
    assert "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES" in text


def _described(*shards: dict[str, Any], **changes: Any) -> dict[str, Any]:
    stream = {
        "StreamArn": NEW,
        "StreamStatus": "ENABLED",
        "StreamViewType": "NEW_AND_OLD_IMAGES",
        "Shards": list(shards),
        **changes,
    }
    return {"StreamDescription": stream}


def test_shards_are_described_page_by_page(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    low, high = "100000000000000000001", "9" * 40
    closed = {
        "ShardId": A,
        "SequenceNumberRange": {"StartingSequenceNumber": low, "EndingSequenceNumber": high},
    }
    leaf = {
        "ShardId": B,
        "ParentShardId": A,
        "SequenceNumberRange": {"StartingSequenceNumber": high},
    }
    bare = {"ShardId": C}
    service.script(
        "DescribeStream",
        ok(_described(closed, LastEvaluatedShardId=A)),
        ok(_described(leaf, LastEvaluatedShardId=B)),
        ok(_described(bare, StreamStatus="DISABLED")),
    )
    described = client.describe(NEW)

    assert described.shards == (
        Shard(A, None, int(low), int(high)),
        Shard(B, A, int(high), None),
        Shard(C),
    )
    assert [shard.is_open for shard in described.shards] == [False, True, True]
    assert (described.stream_arn, described.enabled) == (NEW, False)
    requests = [request.json for request in service.calls("DescribeStream")]
    assert [request.get("ExclusiveStartShardId") for request in requests] == [None, A, B]
    assert {request["Limit"] for request in requests} == {100}


@pytest.mark.parametrize("view_type", ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"])
def test_view_types_with_new_images(
    service: ScriptedService, client: BotoStreamClient, view_type: str
) -> None:
    service.script("DescribeStream", ok(_described(StreamViewType=view_type)))
    assert client.describe(NEW).view_type == view_type


@pytest.mark.parametrize("view_type", ["KEYS_ONLY", "OLD_IMAGE"])
def test_view_types_without(
    service: ScriptedService, client: BotoStreamClient, view_type: str
) -> None:
    service.script("DescribeStream", ok(_described(StreamViewType=view_type)))
    with pytest.raises(ViewTypeError) as caught:
        client.describe(NEW)
    assert view_type in caught.value.what
    assert "NEW_AND_OLD_IMAGES" in caught.value.hint


@pytest.mark.parametrize(
    "call", [lambda client: client.describe(NEW), lambda client: client.stream_arns()]
)
def test_paging_that_does_not_advance_ends(
    service: ScriptedService,
    client: BotoStreamClient,
    call: Callable[[BotoStreamClient], object],
) -> None:
    service.script("DescribeStream", ok(_described(LastEvaluatedShardId=A)))
    service.script("ListStreams", ok({**_listed(OLD), "LastEvaluatedStreamArn": OLD}))
    with pytest.raises(ServiceUnavailableError, match="same page again"):
        call(client)


@pytest.mark.parametrize(
    "call", [lambda client: client.describe(NEW), lambda client: client.stream_arns()]
)
def test_paging_in_a_circle_ends(
    service: ScriptedService,
    client: BotoStreamClient,
    call: Callable[[BotoStreamClient], object],
) -> None:
    circle = 20 * [A, B]
    service.script("DescribeStream", *(ok(_described(LastEvaluatedShardId=one)) for one in circle))
    service.script(
        "ListStreams",
        *(ok({**_listed(), "LastEvaluatedStreamArn": one}) for one in 20 * [OLD, MIDDLE]),
    )
    with pytest.raises(ServiceUnavailableError, match="same page again"):
        call(client)
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("start", "sent"),
    [
        (TRIM_HORIZON, {"ShardIteratorType": "TRIM_HORIZON"}),
        (IteratorStart(StartAt.LATEST), {"ShardIteratorType": "LATEST"}),
        (
            after(int("9" * 40)),
            {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "9" * 40},
        ),
        (  # an int has lost leading zeros; the API takes 21 digits at least
            after(57),
            {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": f"{57:021d}"},
        ),
    ],
)
def test_where_an_iterator_starts(
    service: ScriptedService, client: BotoStreamClient, start: IteratorStart, sent: dict[str, str]
) -> None:
    service.script("GetShardIterator", ok({"ShardIterator": "iterator"}))
    shard_id = "shardId-00000000000000000001-0123456"
    assert client.shard_iterator(NEW, shard_id, start) == "iterator"
    (request,) = service.calls("GetShardIterator")
    assert request.json == {"StreamArn": NEW, "ShardId": shard_id, **sent}


def test_threads_share_one_factory_call(service: ScriptedService, clients: Clients) -> None:
    service.script("DescribeStream", ok(_described()))
    built: list[int] = []
    threads = 8
    together = threading.Barrier(threads)

    def factory() -> Clients:
        built.append(1)
        return clients

    client = BotoStreamClient("orders", factory)

    def describe(_: int) -> str:
        together.wait(timeout=10)
        return client.describe(NEW).view_type

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(describe, range(threads))) == {"NEW_AND_OLD_IMAGES"}
    assert built == [1]


def test_close_before_first_use() -> None:
    def factory() -> Clients:
        raise AssertionError("nothing to connect for")

    BotoStreamClient("orders", factory).close()


def _child(shard_id: str, parent: str) -> dict[str, Any]:
    return {"ShardId": shard_id, "ParentShardId": parent}


def test_the_children_of_a_shard_take_a_filter(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script(
        "DescribeStream",
        ok(_described(LastEvaluatedShardId=A)),
        ok(_described(_child(B, A), _child(C, A))),
    )
    assert client.children(NEW, A) == (Shard(B, A), Shard(C, A))
    first, second = (request.json for request in service.calls("DescribeStream"))
    assert first == {"StreamArn": NEW, "ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": A}}
    assert second == {**first, "ExclusiveStartShardId": A}


@pytest.mark.parametrize("code", ["ValidationException", "SerializationException"])
def test_an_endpoint_that_refuses_the_filter(
    service: ScriptedService, client: BotoStreamClient, code: str
) -> None:
    service.script("DescribeStream", error(code))
    assert client.children(NEW, A) is None


def test_an_endpoint_that_ignores_the_filter(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script("DescribeStream", ok(_described({"ShardId": A}, _child(B, A))))
    assert client.children(NEW, A) is None


def test_other_errors_of_a_filtered_listing_are_raised(
    service: ScriptedService, client: BotoStreamClient
) -> None:
    service.script("DescribeStream", error("ResourceNotFoundException"))
    with pytest.raises(ShardNotFoundError):
        client.children(NEW, A)
    service.script("DescribeStream", ok(_described(LastEvaluatedShardId=A)))
    with pytest.raises(ServiceUnavailableError, match="again and again"):
        client.children(NEW, A)


DAYS = [datetime(2026, 1, day, tzinfo=timezone.utc) for day in range(1, 7)]
DATES = [format_datetime(day, usegmt=True) for day in DAYS]


@pytest.mark.parametrize("raw_pages", [True, False])
def test_the_last_answer_tells_the_time_an_error_too(
    service: ScriptedService, new_clients: Clients, raw_pages: bool
) -> None:
    client = BotoStreamClient("orders", new_clients, raw_pages=raw_pages)
    assert client.told_time() is None
    service.script("ListStreams", ok(_listed(NEW), Date=DATES[0]))
    service.script("DescribeTable", ok(_table(NEW, enabled=True), Date=DATES[1]))
    service.script("DescribeStream", ok(_described(), Date=DATES[2]))
    service.script("GetShardIterator", ok({"ShardIterator": "i"}, Date=DATES[3]))
    service.script(
        "GetRecords",
        ok({"Records": []}, Date=DATES[4]),
        error("TrimmedDataAccessException")._replace(headers={"Date": DATES[5]}),
    )

    def trimmed() -> None:
        with pytest.raises(TrimmedDataError):
            client.get_records("i")

    arrived = [0.0]
    for call, day in (
        (client.stream_arns, 1),
        (lambda: client.describe(NEW), 2),
        (lambda: client.shard_iterator(NEW, A, TRIM_HORIZON), 3),
        (lambda: client.get_records("i"), 4),
        (trimmed, 5),
    ):
        call()
        told = client.told_time()
        assert told is not None
        assert told[0] == DAYS[day]
        arrived.append(told[1])
    assert arrived == sorted(set(arrived))


def test_a_gateway_that_answers_instead_tells_no_time(
    service: ScriptedService, new_clients: Clients
) -> None:
    client = BotoStreamClient("orders", new_clients)
    service.script(
        "DescribeStream",
        ok(_described(), Date=DATES[2]),
        Answer(b"<html>Bad Gateway</html>", 502, {"Date": DATES[5]}),
    )
    client.describe(NEW)
    told = client.told_time()
    with pytest.raises(ServiceUnavailableError):
        client.describe(NEW)
    assert told is not None
    assert client.told_time() == told


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_without_a_date_no_answer_tells_the_time(
    service: ScriptedService, new_clients: Clients, date: str
) -> None:
    client = BotoStreamClient("orders", new_clients)
    service.script("DescribeStream", ok(_described(), Date=date))
    client.describe(NEW)
    assert client.told_time() is None
