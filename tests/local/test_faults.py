from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.errors import DefinitionError
from datazone_dagster.local import Fault, FaultKind, FaultPlan, LocalDynamoDB
from datazone_dagster.local.faults import ERROR_KINDS, LISTING_KINDS, PAGE_KINDS
from tests.local.stream_reading import (
    Table,
    clients_of,
    create_table,
    error_code,
    iterator,
    read_shard,
)


def _error(call: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return error_code(refused)


def test_the_nth_call_is_struck_and_no_other(own_table: Table) -> None:
    admin, arn = own_table.clients.admin, own_table.stream_arn
    own_table.put("a")
    shard_id = own_table.shards()[0]["ShardId"]
    start = iterator(own_table.clients, arn, shard_id)
    admin.set_faults([Fault("GetRecords", FaultKind.THROTTLING, first=2, times=2, every=2)])
    outcomes = []
    for _ in range(6):
        try:
            own_table.clients.streams.get_records(ShardIterator=start)
            outcomes.append("ok")
        except ClientError as error:
            outcomes.append(str(error.response["Error"]["Code"]))
    throttled = "ThrottlingException"
    assert outcomes == ["ok", throttled, "ok", throttled, "ok", "ok"]
    log = admin.fault_log()
    assert [(entry["call"], entry["kind"], entry["shard"]) for entry in log] == [
        (2, throttled, shard_id),
        (4, throttled, shard_id),
    ]
    assert admin.counters()["errors"][throttled] == 2
    admin.clear_faults()
    assert admin.fault_log() == []


def test_faults_pick_one_shard_by_index_or_id(own_table: Table) -> None:
    clients, arn = own_table.clients, own_table.stream_arn
    clients.admin.split(own_table.name)
    ids = [shard["ShardId"] for shard in own_table.shards()]
    starts = [iterator(clients, arn, shard_id) for shard_id in ids]
    for shard in (2, ids[2]):
        clients.admin.set_faults([Fault("GetRecords", FaultKind.UNAVAILABLE, shard=shard)])
        for start in starts[:2]:
            clients.streams.get_records(ShardIterator=start)
        code = _error(lambda: clients.streams.get_records(ShardIterator=starts[2]))
        assert code == "ServiceUnavailable"
        clients.streams.get_records(ShardIterator=starts[2])


@pytest.mark.parametrize("kind", sorted(ERROR_KINDS, key=str))
def test_every_error_kind(own_table: Table, kind: FaultKind) -> None:
    clients = own_table.clients
    clients.admin.set_faults([Fault("*", kind, times=None)])
    with pytest.raises(ClientError) as refused:
        clients.streams.list_streams()
    assert error_code(refused) == kind.value
    status: Any = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
    expected = {FaultKind.INTERNAL_ERROR: 500, FaultKind.UNAVAILABLE: 503}
    assert status == expected.get(kind, 400)


def test_botocore_retries_what_it_says_it_retries(own_server: LocalDynamoDB) -> None:
    patient = clients_of(own_server, attempts=3)
    own_server.admin.set_faults(
        [
            Fault("ListStreams", FaultKind.INTERNAL_ERROR),
            Fault("ListStreams", FaultKind.CONNECTION_RESET, first=2),
        ]
    )
    assert patient.streams.list_streams()["Streams"] == []
    assert len(own_server.admin.fault_log()) == 2


def test_a_reset_before_the_work_and_one_after_it(own_table: Table) -> None:
    admin = own_table.clients.admin
    admin.set_faults(
        [
            Fault("PutItem", FaultKind.CONNECTION_RESET),
            Fault("PutItem", FaultKind.ANSWER_LOST, first=2),
        ]
    )
    for item_id in ("before", "after"):
        with pytest.raises(ConnectionClosedError):
            own_table.put(item_id)
    assert sorted(own_table.items()) == ["after"]


def test_an_answer_that_never_comes(own_server: LocalDynamoDB) -> None:
    table = create_table(clients_of(own_server, read_timeout=0.3), "hasty")
    own_server.admin.set_faults([Fault("PutItem", FaultKind.NO_ANSWER, delay_seconds=60)])
    with pytest.raises(ReadTimeoutError):
        table.put("a")
    assert sorted(table.items()) == ["a"]


def test_a_slow_answer(own_table: Table) -> None:
    own_table.clients.admin.set_faults([Fault("PutItem", FaultKind.SLOW, delay_seconds=0.3)])
    began = time.monotonic()
    own_table.put("a")
    assert time.monotonic() - began >= 0.3


def _pages(table: Table, kind: FaultKind, *, close: bool = False, **more: Any) -> list[Any]:
    """Read shard 0 to its end or latest position; the fault strikes the first GetRecords."""
    clients = table.clients
    for n in range(4):
        table.put(str(n))
    start: str | None = iterator(clients, table.stream_arn, table.shards()[0]["ShardId"])
    if close:
        clients.admin.roll(table.name)
    clients.admin.set_faults([Fault("GetRecords", kind, **more)])
    pages: list[Any] = []
    while start is not None and len(pages) < 3:
        pages.append(clients.streams.get_records(ShardIterator=start))
        start = pages[-1].get("NextShardIterator")
    return pages


def test_an_empty_page_loses_nothing(own_table: Table) -> None:
    pages = _pages(own_table, FaultKind.EMPTY_PAGE, close=True)
    assert [len(page["Records"]) for page in pages] == [0, 4]


def test_records_with_a_missing_iterator(own_table: Table) -> None:
    (page,) = _pages(own_table, FaultKind.MISSING_NEXT_ITERATOR)
    assert len(page["Records"]) == 4


def test_a_late_end(own_table: Table) -> None:
    pages = _pages(own_table, FaultKind.LATE_END, close=True)
    assert [len(page["Records"]) for page in pages] == [4, 0]
    assert "NextShardIterator" not in pages[1]


def test_a_malformed_record_is_among_the_good_ones(own_table: Table) -> None:
    payload = '{"eventID":"bad","eventName":"MODIFY"}'
    pages = _pages(own_table, FaultKind.MALFORMED_RECORD, close=True, payload=payload)
    records = pages[0]["Records"]
    assert [record["eventID"] == "bad" for record in records] == [False, False, True, False, False]


def _listed(table: Table, kind: FaultKind, shard: Any = None) -> list[str]:
    table.clients.admin.set_faults([Fault("DescribeStream", kind, shard=shard)])
    return [shard["ShardId"] for shard in table.shards()]


def test_listings_that_are_not_consistent_yet(own_table: Table) -> None:
    admin = own_table.clients.admin
    children = admin.split(own_table.name, 0)
    (grandchild,) = admin.roll(own_table.name, children[0])
    root = admin.shards(own_table.name)[0]["shardId"]
    everything = [root, *children, grandchild]

    assert _listed(own_table, FaultKind.HIDE_CHILDREN, 0) == [root]
    assert _listed(own_table, FaultKind.HIDE_CHILDREN, children[0]) == [root, *children]
    assert _listed(own_table, FaultKind.HIDE_CHILDREN) == [root]
    assert _listed(own_table, FaultKind.HIDE_PARENT, 0) == [*children, grandchild]
    assert [shard["ShardId"] for shard in own_table.shards()] == everything

    admin.set_faults([Fault("DescribeStream", FaultKind.OPEN_PARENT, shard=0)])
    shown = own_table.shards()[0]["SequenceNumberRange"]
    assert shown.keys() == {"StartingSequenceNumber"}

    admin.set_faults([Fault("DescribeStream", FaultKind.EMPTY_LAST_PAGE)])
    streams = own_table.clients.streams
    first = streams.describe_stream(StreamArn=own_table.stream_arn)["StreamDescription"]
    second = streams.describe_stream(
        StreamArn=own_table.stream_arn, ExclusiveStartShardId=first["LastEvaluatedShardId"]
    )["StreamDescription"]
    assert second["Shards"] == []
    assert "LastEvaluatedShardId" not in second


def test_an_expired_shard_that_is_still_listed(own_table: Table) -> None:
    admin = own_table.clients.admin
    root = own_table.shards()[0]["ShardId"]
    (child,) = admin.roll(own_table.name)
    admin.advance_clock(25 * 3600)
    assert _listed(own_table, FaultKind.KEEP_EXPIRED) == [root, child]
    code = _error(lambda: read_shard(own_table.clients, own_table.stream_arn, root))
    assert code == "ResourceNotFoundException"
    assert [shard["ShardId"] for shard in own_table.shards()] == [child]


def test_a_third_reader_is_throttled_when_asked() -> None:
    with LocalDynamoDB(shards=1, two_readers_a_shard=True) as server:
        table = create_table(clients_of(server), "orders")
        clients, arn = table.clients, table.stream_arn
        shard_id = table.shards()[0]["ShardId"]
        first, second, third = (iterator(clients, arn, shard_id) for _ in range(3))
        first = clients.streams.get_records(ShardIterator=first)["NextShardIterator"]
        clients.streams.get_records(ShardIterator=second)
        clients.streams.get_records(ShardIterator=first)
        code = _error(lambda: clients.streams.get_records(ShardIterator=third))
        assert code == "LimitExceededException"
        server.admin.advance_clock(2)
        clients.streams.get_records(ShardIterator=third)


@given(
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(1, 5),
)
def test_strikes_are_first_every_times(first: int, times: int | None, every: int) -> None:
    fault = Fault("GetRecords", FaultKind.SLOW, first=first, times=times, every=every)
    struck = [n for n in range(1, 61) if fault.strikes(n)]
    assert struck == list(range(first, 61, every))[:times]


_plans = st.lists(
    st.builds(
        Fault,
        operation=st.just("*"),
        kind=st.sampled_from(sorted(ERROR_KINDS, key=str)),
        shard=st.one_of(st.none(), st.text(), st.integers(0, 9)),
        first=st.integers(1, 9),
        times=st.one_of(st.none(), st.integers(1, 9)),
        every=st.integers(1, 9),
        delay_seconds=st.floats(0, 9),
        payload=st.text(),
    ),
    max_size=3,
).map(FaultPlan)


@given(_plans)
def test_a_plan_survives_json(plan: FaultPlan) -> None:
    assert FaultPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fault("GetRecords", "no_such_kind"),  # type: ignore[arg-type]  # the point
        lambda: Fault("GetRecords", FaultKind.SLOW, first=0),
        lambda: Fault("GetRecords", FaultKind.SLOW, every=0),
        lambda: Fault("GetRecords", FaultKind.SLOW, times=0),
        lambda: Fault("GetRecords", FaultKind.SLOW, delay_seconds=-1),
        lambda: Fault("PutItem", FaultKind.EMPTY_PAGE),
        lambda: Fault("GetRecords", FaultKind.HIDE_PARENT),
        lambda: FaultPlan.from_json("{"),
        lambda: FaultPlan.from_json('[{"nonsense": 1}]'),
    ],
)
def test_wrong_plans_are_refused(make: Any) -> None:
    with pytest.raises(DefinitionError):
        make()


def test_every_kind_is_of_one_sort() -> None:
    connection = {
        FaultKind.CONNECTION_RESET,
        FaultKind.ANSWER_LOST,
        FaultKind.NO_ANSWER,
        FaultKind.SLOW,
    }
    sorts: list[set[FaultKind]] = [
        set(ERROR_KINDS),
        connection,
        set(PAGE_KINDS),
        set(LISTING_KINDS),
    ]
    assert set().union(*sorts) == set(FaultKind)
    assert sum(map(len, sorts)) == len(FaultKind)
