"""Faults of the service, through boto3 on the local DynamoDB: the dataset equals the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from datazone_dagster.errors import SourceError
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport
from datazone_dagster.observe.health import health_of_error, health_of_report
from datazone_dagster.observe.level import Level
from datazone_dagster.pipeline import DrainSettings, apply_transform, drain_once, drain_tick
from tests.faults.ledger import record
from tests.faults.orders import (
    SOURCE,
    current_rows,
    event_ids,
    flow,
    landed,
    landed_event_ids,
    quarantined_raw,
)
from tests.faults.world import (
    OrdersTable,
    assert_exactly_once,
    catch_up,
    drain_to_the_end,
    stream_client,
)

READ_TIMEOUT_SECONDS = 0.25
SMALL = DrainSettings(budget_bytes=6_000, max_workers=4)


@pytest.fixture
def table(server: LocalDynamoDB) -> Iterator[OrdersTable]:
    table = OrdersTable(server.endpoint_url, seed=11)
    table.create()
    yield table
    table.admin.clear_faults()
    table.admin.set_clock_offset(0)


def tick(table: OrdersTable, layout: Layout, client: object, ticks: int) -> list[DrainReport]:
    """Tick as the sensor does: the next drain retries after a failed one."""
    reports = []
    for number in range(ticks):
        table.write(6)
        try:
            reports.append(drain_once(SOURCE, client, layout, settings=SMALL))  # type: ignore[arg-type]  # a protocol
        except SourceError as error:
            health = health_of_error(error, now=_now(), caught_up_at=None)
            assert health.level is not Level.OK
        if number % 2:
            apply_transform(flow, layout)
    return reports


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Clock:
    """Clock of a drain, ahead of time like the server's."""

    ahead: timedelta

    def __call__(self) -> datetime:
        return _now() + self.ahead


PASSING_CALLS = [
    (operation, kind)
    for kind in (
        FaultKind.THROTTLING,
        FaultKind.LIMIT_EXCEEDED,
        FaultKind.INTERNAL_ERROR,
        FaultKind.UNAVAILABLE,
        FaultKind.CONNECTION_RESET,
        FaultKind.ANSWER_LOST,
        FaultKind.NO_ANSWER,
        FaultKind.SLOW,
    )
    for operation in ("GetRecords", "DescribeStream")
]
PASSING = [
    *(
        Fault(operation, kind, first=2, times=2, every=2, delay_seconds=0.3)
        for operation, kind in PASSING_CALLS
    ),
    Fault("GetRecords", FaultKind.EXPIRED_ITERATOR, first=2, times=3, every=2),
    Fault("GetShardIterator", FaultKind.INTERNAL_ERROR, times=2),
    Fault("GetRecords", FaultKind.EMPTY_PAGE, times=4, every=2),
    Fault("GetRecords", FaultKind.LATE_END, times=None),
    Fault("GetRecords", FaultKind.MISSING_NEXT_ITERATOR, shard=0),
    Fault("DescribeStream", FaultKind.HIDE_CHILDREN, times=4),
    Fault("DescribeStream", FaultKind.HIDE_PARENT, times=4),
    Fault("DescribeStream", FaultKind.OPEN_PARENT, times=4),
    Fault("DescribeStream", FaultKind.CHILDREN_FIRST, times=None),
    Fault("DescribeStream", FaultKind.EMPTY_LAST_PAGE, times=4),
]

RARE = [
    Fault(operation, kind, first=1, times=2, every=2, delay_seconds=0.3)
    for operation in ("GetShardIterator", "ListStreams", "DescribeTable")
    for kind in (
        FaultKind.THROTTLING,
        FaultKind.LIMIT_EXCEEDED,
        FaultKind.INTERNAL_ERROR,
        FaultKind.CONNECTION_RESET,
        FaultKind.ANSWER_LOST,
        FaultKind.NO_ANSWER,
    )
]


@pytest.mark.parametrize(
    "fault",
    [*PASSING, *(pytest.param(fault, marks=pytest.mark.faults) for fault in RARE)],
    ids=lambda f: f"{f.operation}-{f.kind.value}",
)
def test_transient_faults_leave_no_trace(table: OrdersTable, layout: Layout, fault: Fault) -> None:
    table.write(40)
    table.end_a_shard()
    table.write(20)
    # One attempt per call tests our own handling, without boto3's retries in front of it.
    client = stream_client(
        table.endpoint_url, read_timeout_seconds=READ_TIMEOUT_SECONDS, max_attempts=1
    )
    table.admin.set_faults([fault])
    reports = tick(table, layout, client, 4)
    struck = len(table.admin.fault_log())
    assert struck, "the fault did not happen"
    table.admin.clear_faults()
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(
        table, layout, fault=f"{fault.operation} {fault.kind.value}", injected=struck
    )
    assert not any(report.gaps for report in reports)


def test_retries_of_the_client_come_first(table: OrdersTable, layout: Layout) -> None:
    table.write(10)
    client = stream_client(table.endpoint_url)
    table.admin.set_faults([Fault("GetRecords", FaultKind.THROTTLING, times=3, every=3)])
    (report,) = tick(table, layout, client, 1)
    assert not report.shard_errors
    assert table.admin.fault_log()


def test_a_throttled_shard_delays_no_other(table: OrdersTable, layout: Layout) -> None:
    """The shard's retries, with the client's own waits, stay within the tick's budget."""
    table.write(40)
    throttled, other = (shard["shardId"] for shard in table.admin.shards(SOURCE.table_name))
    table.admin.set_faults([Fault("GetRecords", FaultKind.THROTTLING, shard=0, times=None)])
    client = stream_client(table.endpoint_url)
    bounds = DrainSettings(budget_seconds=3, max_workers=1)
    started = time.monotonic()
    report = drain_tick(SOURCE, client, layout, settings=bounds)
    # 3 attempts wait for less than 1 + 2 seconds.
    assert time.monotonic() - started < 3 + 3 + 3
    assert [shard for shard, _ in report.shard_errors] == [throttled]
    assert "ThrottlingException" in report.shard_errors[0][1]
    assert set(landed(layout)[Log.SHARD_ID].to_pylist()) == {other}
    struck = len(table.admin.fault_log())
    assert struck >= 3, "the client has to try again"

    table.admin.clear_faults()
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="one shard always throttles", injected=struck)


def test_a_poisoned_shard_is_reported_while_the_others_go_on(
    table: OrdersTable, layout: Layout
) -> None:
    client = stream_client(table.endpoint_url, max_attempts=1)
    table.admin.set_faults([Fault("GetRecords", FaultKind.INTERNAL_ERROR, shard=0, times=None)])
    reports = tick(table, layout, client, 6)
    poisoned = table.admin.shards(SOURCE.table_name)[0]["shardId"]
    assert all([shard for shard, _ in report.shard_errors] == [poisoned] for report in reports)
    assert not any(report.caught_up for report in reports)
    report, now = reports[-1], _now()
    health = health_of_report(report, now=now, caught_up_at=now - timedelta(seconds=5))
    assert (health.level, health.failing_shards) == (Level.WARN, 1)
    health = health_of_report(report, now=now, caught_up_at=now - timedelta(minutes=2))
    assert health.level is Level.ERROR
    assert poisoned in health.reason
    assert event_ids(layout), "the other shard was not read"
    struck = len(table.admin.fault_log())

    table.admin.clear_faults()
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="one shard always answers 500", injected=struck)


def test_records_that_are_no_stream_records_are_quarantined(
    table: OrdersTable, layout: Layout
) -> None:
    table.write(30)
    payload = '{"eventID":"?","dynamodb":"not a record"}'
    table.admin.set_faults(
        [Fault("GetRecords", FaultKind.MALFORMED_RECORD, times=2, payload=payload)]
    )
    client = stream_client(table.endpoint_url)
    tick(table, layout, client, 3)
    struck = table.admin.fault_log()
    table.admin.clear_faults()
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="a record that is no record", injected=len(struck))
    for dataset_id in ("current", "events"):
        found = quarantined_raw(layout, dataset_id)
        assert set(found) == {payload}
        assert found[payload] == len({strike["shard"] for strike in struck})


def test_more_shards_than_a_page_of_the_listing(table: OrdersTable, layout: Layout) -> None:
    for _ in range(105):
        table.write(1)
        table.admin.roll(SOURCE.table_name)
    table.write(30)
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="107 shards, two pages of DescribeStream")


def test_shards_that_are_gone_but_still_listed(table: OrdersTable, layout: Layout) -> None:
    table.write(20)
    for shard in (0, 1):
        table.admin.roll(SOURCE.table_name, shard)
    for hours in (0, 13):
        table.admin.set_clock_offset(hours * 3600)
        clock = Clock(timedelta(hours=hours))
        drain_once(SOURCE, stream_client(table.endpoint_url), layout, clock=clock)
        drain_once(SOURCE, stream_client(table.endpoint_url), layout, clock=clock)
    landed_before = landed_event_ids(layout)
    table.admin.set_clock_offset(26 * 3600)
    table.write(20)
    table.admin.set_faults([Fault("DescribeStream", FaultKind.KEEP_EXPIRED, times=None)])
    clock = Clock(timedelta(hours=26))
    # The first log has read these shards to their end, to the second one they are new.
    late = Layout(f"{layout.uri}-late")
    for root in (layout, late):
        for _ in range(3):
            report = drain_once(SOURCE, stream_client(table.endpoint_url), root, clock=clock)
        assert not report.gaps
        apply_transform(flow, root)
    struck = len(table.admin.fault_log())
    table.admin.clear_faults()
    assert event_ids(late) == table.event_ids()
    entry = record(
        "DescribeStream keep_expired", struck, landed_before + table.event_ids(), event_ids(layout)
    )
    assert (entry.lost, entry.doubled) == (0, 0)
    assert current_rows(layout) == table.rows()


def test_iterators_that_expire_between_drains(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    for _ in range(3):
        (report,) = tick(table, layout, client, 1)
        assert not report.shard_errors
        table.admin.advance_clock(16 * 60)
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="cached iterators older than 15 minutes", injected=3)


def test_a_third_reader_of_a_shard_is_throttled(layout: Layout) -> None:
    with LocalDynamoDB(shards=2, two_readers_a_shard=True) as server:
        table = OrdersTable(server.endpoint_url, seed=3)
        table.create()
        table.write(20)
        others = [stream_client(server.endpoint_url, max_attempts=1) for _ in range(2)]
        for other, root in zip(others, ("one", "two"), strict=True):
            drain_once(SOURCE, other, Layout(f"{layout.uri}-{root}"))
        late = stream_client(server.endpoint_url, max_attempts=1)
        report = drain_once(SOURCE, late, layout)
        assert {"LimitExceeded" in text for _, text in report.shard_errors} == {True}
        table.admin.advance_clock(5)
        catch_up(server.endpoint_url, layout)
        assert_exactly_once(table, layout, fault="more than two readers a shard")


# -- faults that lose records at the service: the rest arrives, and the loss is reported


def assert_the_rest_and_the_gap(
    table: OrdersTable, layout: Layout, lost: int, reports: list[DrainReport], *, fault: str
) -> None:
    gaps = reports[-1].gaps
    assert gaps, "records were lost without a gap"
    health = health_of_report(reports[-1], now=_now(), caught_up_at=None)
    assert health.level is Level.ERROR
    assert all(gap.shard_id in health.reason for gap in gaps[:5])
    found = event_ids(layout)
    assert found == landed_event_ids(layout)
    entry = record(f"{fault} (loss named)", lost, found, found)
    assert entry.doubled == 0


def test_downtime_longer_than_the_retention_of_records(table: OrdersTable, layout: Layout) -> None:
    table.write(30)
    catch_up(table.endpoint_url, layout)
    landed_before = landed_event_ids(layout)
    table.write(30)
    table.end_a_shard()
    lost = (table.event_ids() - landed_before).total()
    assert lost
    table.admin.advance_clock(25 * 3600)
    table.write(20)
    client = stream_client(table.endpoint_url)
    clock = Clock(timedelta(hours=25))
    reports = [drain_once(SOURCE, client, layout, clock=clock) for _ in range(4)]
    apply_transform(flow, layout)
    assert_the_rest_and_the_gap(table, layout, lost, reports, fault="25 hours without a drain")
    assert event_ids(layout) == landed_before + table.event_ids()


def test_trimmed_in_the_middle_of_a_shard(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    table.write(30)
    drain_once(SOURCE, client, layout)
    landed_before = landed_event_ids(layout)
    table.write(30)
    lost = (table.event_ids() - landed_before).total()
    table.admin.trim(SOURCE.table_name)
    table.write(20)
    reports = [drain_once(SOURCE, client, layout) for _ in range(2)]
    apply_transform(flow, layout)
    assert_the_rest_and_the_gap(table, layout, lost, reports, fault="trimmed before it was read")
    assert {gap.after_sequence_number for gap in reports[-1].gaps} != {None}
    assert event_ids(layout) == landed_before + table.event_ids()


def test_a_trimmed_data_error_without_a_trim(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    table.write(30)
    drain_once(SOURCE, client, layout)
    table.write(30)
    table.admin.set_faults(
        [
            Fault("GetRecords", FaultKind.TRIMMED, shard=0),
            Fault("GetShardIterator", FaultKind.TRIMMED, shard=1),
            Fault("GetRecords", FaultKind.EXPIRED_ITERATOR, shard=1),
        ]
    )
    report = drain_once(SOURCE, client, layout)
    assert report.gaps, "the error has to be believed"
    table.admin.clear_faults()
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="TrimmedDataAccessException without a trim")


def test_a_shard_that_vanished_unread(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    table.write(10)
    drain_once(SOURCE, client, layout)
    landed_before = landed_event_ids(layout)
    table.write(20)
    table.admin.roll(SOURCE.table_name, 0)
    table.write(20)
    vanished = table.admin.shards(SOURCE.table_name)[0]["shardId"]
    table.admin.set_faults([Fault("*", FaultKind.NOT_FOUND, shard=0, times=None)])
    reports = [drain_once(SOURCE, client, layout) for _ in range(3)]
    table.admin.clear_faults()
    assert [gap.shard_id for gap in reports[-1].gaps] == [vanished]
    apply_transform(flow, layout)
    lost = (table.event_ids() - event_ids(layout)).total()
    assert lost
    assert_the_rest_and_the_gap(table, layout, lost, reports, fault="a closed shard vanished")
    assert landed_before <= event_ids(layout) <= table.event_ids()


def test_an_open_shard_is_not_abandoned_after_one_error(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    table.write(20)
    table.admin.set_faults([Fault("GetShardIterator", FaultKind.NOT_FOUND, shard=0, times=2)])
    reports = tick(table, layout, client, 3)
    assert reports[0].shard_errors
    assert not reports[-1].gaps
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="an open shard 'does not exist'", injected=2)


def test_a_stream_disabled_and_enabled_again(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    table.write(20)
    drain_once(SOURCE, client, layout)
    table.write(20)
    table.set_stream(enabled=False)
    old_arn = client.stream_arns()[-1]
    table.set_stream(enabled=True)
    table.write(20)

    reports = [drain_once(SOURCE, client, layout) for _ in range(4)]
    assert reports[0].stream_arn == old_arn, "the old stream comes first"
    assert not reports[0].gaps
    assert reports[-1].stream_arn != old_arn
    assert [gap.stream_arn for gap in reports[-1].gaps] == [old_arn]
    drain_to_the_end(table.endpoint_url, layout)
    apply_transform(flow, layout)
    assert_exactly_once(table, layout, fault="stream disabled and enabled again")


def test_a_table_deleted_and_created_again(table: OrdersTable, layout: Layout) -> None:
    client = stream_client(table.endpoint_url)
    table.write(20)
    catch_up(table.endpoint_url, layout)
    before = event_ids(layout)
    table.write(10)
    unread = (table.event_ids() - before).total()
    table.recreate()
    table.write(20)
    reports = tick(table, layout, client, 4)
    drain_to_the_end(table.endpoint_url, layout)
    apply_transform(flow, layout)
    assert_the_rest_and_the_gap(table, layout, unread, reports, fault="table created again")
    assert current_rows(layout).items() >= table.rows().items(), "new rows are missing"
