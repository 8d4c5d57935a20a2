"""Drains of a Kinesis stream: disorder, duplicates, merged shards, retention, switches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog import log
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.gap_acceptance import gap_notes
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.model.version import split_version
from datazone_dagster.pipeline import open_erasure
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot.gap_resync import resync_after_gap
from datazone_dagster.source import kinesis_wire
from datazone_dagster.source.table_client import BotoTableClient
from datazone_dagster.source.wire import NotAStreamRecordError
from datazone_dagster.sources import KinesisSource
from datazone_dagster.testing import Crash, crash_at
from tests.drain.kinesis_flow import Flow, Service, layout_in

LONG = os.environ.get("DATAZONE_TEST_PROFILE") == "long"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with LocalDynamoDB(shards=1) as server:
        yield Service(server)


@pytest.fixture(autouse=True)
def same_clock(service: Service) -> Iterator[None]:
    yield
    service.admin.set_clock_offset(0)
    service.admin.clear_faults()


@pytest.fixture
def flow(service: Service, tmp_path: Path) -> Flow:
    return Flow(service, layout_in(tmp_path))


def test_the_last_write_wins_whatever_the_order(flow: Flow) -> None:
    flow.hold()
    for n in range(4):
        flow.put("a", n)
    flow.put("b", 1)
    flow.delete("b")
    flow.deliver([3, 5, 3, 0, 4, 1, 5, 2])
    (report,) = flow.drain_all()
    assert (report.records, report.arrival.repeated) == (6, 2)
    flow.apply("merge", "append")
    assert flow.current() == {"a": "3"}
    assert len(flow.rows("append")) == 6
    assert set(flow.landed().values()) == {1}


def test_what_comes_late_is_put_where_it_belongs(flow: Flow) -> None:
    flow.hold()
    for n in range(4):
        flow.put("a", n)
    flow.put("b", 1)
    flow.delete("b")
    for order in ([3, 5], [1, 0], [1, 0]):
        flow.deliver(order)
        flow.drain_all()
        flow.apply("merge", "history")
        assert flow.current() == {"a": "3"}
    intervals = sorted(
        (row["id"], row["_dz_version"], row["n"], row["_dz_is_current"])
        for row in flow.rows("history")
    )
    assert [(key, n, current) for key, _, n, current in intervals] == [
        ("a", "0", False),
        ("a", "1", False),
        ("a", "2", False),
        ("a", "3", True),
        ("b", "1", False),
    ]


@pytest.mark.parametrize("new_process", [False, True])
def test_a_change_that_comes_again_much_later_is_known(flow: Flow, new_process: bool) -> None:
    for n in range(3):
        flow.put("a", n)
    flow.drain()
    for hours in range(3):
        flow.service.admin.advance_clock(3600)
        flow.put("b", hours)
        flow.drain()
    if new_process:
        flow.new_process()
    flow.again(0)
    assert flow.drain().arrival.repeated == 1
    assert set(flow.landed().values()) == {1}


def test_lost_positions_read_again_what_is_known(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        flow.put("a", n)
    flow.drain_all()
    shutil.rmtree(flow.layout.checkpoint("orders"))
    monkeypatch.setattr(log, "landed_in", lambda *_: None)  # the log's entries are gone as well
    flow.service.admin.advance_clock(7200)
    flow.put("a", 9)
    flow.new_process()
    reports = flow.drain_all()
    assert sum(one.records for one in reports) == 1
    assert set(flow.landed().values()) == {1}
    assert not reports[-1].gaps


@pytest.mark.parametrize(
    "point",
    [
        crash_points.AFTER_READ,
        crash_points.AFTER_CHANGE_LOG_COMMIT,
        crash_points.AFTER_CHECKPOINT_COMMIT,
    ],
)
def test_a_drain_that_dies_lands_nothing_twice_and_loses_nothing(flow: Flow, point: str) -> None:
    flow.hold()
    for n in range(6):
        flow.put("a", n)
    flow.deliver([1, 0, 1])
    with pytest.raises(Crash), crash_at(point):
        flow.drain()
    flow.deliver([1, 0, 2, 1])
    flow.drain_all()
    flow.deliver()
    flow.drain_all()
    assert flow.landed() == Counter(dict.fromkeys(flow.landed(), 1))
    assert len(flow.landed()) == 6


def test_a_merged_shard_waits_for_both_parents(service: Service, tmp_path: Path) -> None:
    flow = Flow(service, layout_in(tmp_path), shards=2)
    for n in range(12):
        flow.put(f"k{n}", 0)
    flow.merge()
    for n in range(12):
        flow.put(f"k{n}", 1)
    assert [flow.drain().records for _ in range(2)] == [12, 12]
    flow.split()
    for n in range(12):
        flow.put(f"k{n}", 2)
    flow.drain_all()
    flow.apply("merge", "append")
    assert flow.current() == {f"k{n}": "2" for n in range(12)}
    assert len(flow.rows("append")) == 36


def test_changes_of_another_table_move_the_position(flow: Flow, service: Service) -> None:
    other = Flow(service, flow.layout)
    other.disable()
    service.dynamodb.enable_kinesis_streaming_destination(TableName=other.table, StreamArn=flow.arn)
    other.put("x", 1)
    report = flow.drain()
    assert (report.records, report.arrival.others) == (0, 1)
    (row,) = CheckpointTable(flow.layout, "orders").open_or_create().checkpoint.shards.values()
    assert row.sequence_number is not None
    flow.put("a", 1)
    flow.new_process()
    assert (flow.drain().arrival.others, len(flow.landed())) == (0, 1)


def test_what_is_no_change_is_quarantined_once(flow: Flow) -> None:
    flow.service.kinesis.put_record(StreamName=flow.table, PartitionKey="x", Data=b"no change")
    flow.put("a", 1)
    assert flow.drain().malformed == 1
    flow.new_process()
    flow.drain()
    reasons = flow.log_rows()[Log.REASON].to_pylist()
    assert sum(reason is not None for reason in reasons) == 1


def test_what_is_no_change_is_quarantined_once_where_a_shard_is_read_from_its_start(
    flow: Flow,
) -> None:
    flow.put("a", 1)
    flow.service.kinesis.put_record(StreamName=flow.table, PartitionKey="x", Data=b"no change")
    flow.drain_all()
    flow.service.admin.advance_clock(12 * 3600)
    flow.drain_all()
    for seconds in (11.5 * 3600, 60):  # its last record is gone soon: see `plan`
        flow.service.admin.advance_clock(seconds)
        flow.new_process()
        assert [one.malformed for one in flow.drain_all()] == [0]
    assert len(flow.log_rows()) == 2


def test_an_erased_item_does_not_come_back_by_a_second_delivery(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.put("a", 1)
    flow.put("b", 1)
    flow.hold()
    flow.put("a", 2)
    flow.delete("a")
    flow.deliver([1])
    flow.drain_all()
    flow.apply("merge")
    report = open_erasure(flow.source, ["id=a"], flow.layout, clock=flow.now).run()
    assert report.done
    (stream,) = (one for one in report.unreachable if "stream" in one)
    for words in (flow.table, "24 hours to a year", "again", "doctor"):
        assert words in stream
    for new_process in (False, True):
        if new_process:
            flow.service.admin.advance_clock(7200)
            flow.new_process()
        flow.again(0)
        flow.again(2)
        assert sum(one.arrival.repeated for one in flow.drain_all()) == 2
        flow.apply("merge")
        assert flow.current() == {"b": "1"}
    with monkeypatch.context() as lost:  # the stream is read again from its start
        lost.setattr(log, "landed_in", lambda *_: None)
        shutil.rmtree(flow.layout.checkpoint("orders"))
        flow.new_process()
        assert sum(one.arrival.repeated for one in flow.drain_all()) == 7
    flow.apply("merge")
    assert flow.current() == {"b": "1"}
    flow.deliver()  # for the first time: what the report warns of
    flow.drain_all()
    flow.apply("merge")
    assert flow.current() == {"a": "2", "b": "1"}
    assert open_erasure(flow.source, ["id=a"], flow.layout, clock=flow.now).run().done
    assert flow.current() == {"b": "1"}


SKEWS = [timedelta(0), timedelta(hours=3), timedelta(hours=-48)]


@pytest.mark.parametrize("behind", SKEWS)
def test_a_shard_that_was_not_read_for_the_retention_is_a_gap(
    flow: Flow, behind: timedelta
) -> None:
    """By the clock of the service. From a position of that age Kinesis reads nothing."""
    flow.clock_behind = behind
    flow.put("a", 1)
    flow.drain()
    flow.put("a", 2)
    flow.service.admin.advance_clock(25 * 3600)
    flow.put("a", 3)
    flow.new_process()
    (gap,) = flow.drain_all()[-1].gaps
    assert gap.reason == "the shard was not read for 24 hours"
    flow.apply("merge")
    assert flow.current() == {"a": "3"}


@pytest.mark.parametrize("behind", SKEWS)
def test_a_longer_retention_is_no_gap(flow: Flow, behind: timedelta) -> None:
    flow.clock_behind = behind
    flow.service.kinesis.increase_stream_retention_period(
        StreamName=flow.table, RetentionPeriodHours=72
    )
    flow.put("a", 1)
    flow.drain()
    flow.put("a", 2)
    flow.service.admin.advance_clock(48 * 3600)
    flow.put("a", 3)
    flow.new_process()
    report = flow.drain_all()[-1]
    assert not report.gaps
    assert report.arrival.retention == timedelta(hours=72)
    assert len(flow.landed()) == 3


def test_a_destination_that_is_off_is_one_gap_that_grows(flow: Flow) -> None:
    flow.put("a", 1)
    flow.drain()
    flow.disable()
    flow.put("a", 2)
    (gap,) = flow.drain().gaps
    assert "does not send" in gap.reason
    flow.service.admin.advance_clock(1200)
    (longer,) = flow.drain().gaps
    assert longer.since == gap.since
    assert longer.until is not None
    assert gap.until is not None
    assert longer.until > gap.until
    flow.service.admin.advance_clock(60)
    flow.enable()
    flow.put("a", 3)
    (ended,) = flow.drain().gaps
    assert ended.since == gap.since
    assert ended.until is not None
    assert ended.until > longer.until
    assert "sends its changes again" in ended.reason
    flow.service.admin.advance_clock(1200)
    assert flow.drain().gaps == (ended,)
    flow.disable()
    (again,) = flow.drain().gaps
    assert again.until is not None
    assert again.until > ended.until
    assert "again" not in again.reason


def test_a_resync_while_the_destination_is_off_does_not_repair_what_is_not_sent(
    service: Service, tmp_path: Path
) -> None:
    flow = Flow(service, layout_in(tmp_path), start="snapshot")
    client = BotoTableClient(flow.table, service.clients)
    flow.source = KinesisSource(
        flow.table,
        flow.table,
        name="orders",
        start="snapshot",
        on_gap="resync",
        resync_max_items=1_000_000,
        resync_max_read_units=1e9,
    )

    def step(seconds: float) -> SnapshotReport:
        service.admin.advance_clock(seconds)
        flow.drain_all()
        resync_after_gap(flow.source, flow.layout, client, clock=flow.now)
        report = flow.snapshot()
        flow.apply()
        return report

    flow.put("a", 1)
    while step(30).phase is not Phase.DONE:
        pass
    flow.disable()
    step(5)
    while not step(31).rows:  # the resync scans
        pass
    flow.put("a", 2)  # recorded nowhere
    service.admin.advance_clock(60)
    flow.enable()
    for _ in range(20):
        if step(30).phase is Phase.DONE and not any(
            note.is_open for note in gap_notes("orders", flow.layout)
        ):
            break
    assert flow.current() == flow.items() == {"a": "2"}
    assert not any(note.is_open for note in gap_notes("orders", flow.layout))


def test_a_stream_made_again_is_a_gap_and_a_new_epoch(flow: Flow) -> None:
    flow.put("a", 1)
    flow.drain()
    flow.service.kinesis.delete_stream(StreamName=flow.table)
    flow.service.admin.advance_clock(60)
    flow.service.kinesis.create_stream(StreamName=flow.table, ShardCount=1)
    flow.put("a", 2)
    report = flow.drain_all()[-1]
    assert report.gaps
    flow.apply("merge")
    assert flow.current() == {"a": "2"}


def test_a_table_made_again_that_sends_to_the_same_stream_is_a_gap_and_a_new_epoch(
    flow: Flow,
) -> None:
    flow.put("a", 1)
    flow.put("b", 1)
    flow.drain()
    flow.service.dynamodb.delete_table(TableName=flow.table)
    flow.create_table()
    flow.enable()
    flow.put("a", 2)
    assert flow.drain_all()[-1].gaps
    assert set(flow.landed().values()) == {1}
    assert len(flow.landed()) == 3
    flow.put("a", 3)
    flow.drain_all()
    flow.apply("merge")
    assert flow.current()["a"] == "3"


def test_a_record_that_a_newer_version_can_read_is_redriven(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> ChangeRecord:
        raise NotAStreamRecordError("not known to this version")

    flow.put("a", 1)
    with monkeypatch.context() as older_version:
        older_version.setattr(kinesis_wire, "_change", refuse)
        assert flow.drain().malformed == 1
    flow.put("b", 1)
    flow.put("a", 2)
    flow.drain()
    flow.apply("merge", "append")
    assert (flow.current(), len(flow.rows("append"))) == ({"a": "2", "b": "1"}, 2)
    for mode in ("merge", "append"):
        report = flow.redrive(mode)
        assert report.waiting == 0
    assert (flow.current(), len(flow.rows("append"))) == ({"a": "2", "b": "1"}, 3)


@pytest.mark.parametrize("to_kinesis", [True, False])
def test_a_switch_of_kinds_is_a_gap_and_a_new_epoch(flow: Flow, to_kinesis: bool) -> None:
    kinesis, client = flow.source, flow.client
    if to_kinesis:
        flow.switch_to_the_stream_of_the_table()
    flow.put("a", 1)
    flow.drain_all()
    flow.apply("merge")
    flow.put("a", 2)
    if to_kinesis:
        flow.source, flow.client = kinesis, client
    else:
        flow.switch_to_the_stream_of_the_table()
    reports = flow.drain_all()
    assert any("switched" in gap.reason for gap in reports[-1].gaps)
    epochs = {split_version(one)[0] for one in flow.log_rows()[Log.VERSION].to_pylist()}
    assert epochs == {1, 2}
    flow.apply("merge")
    assert flow.current() == {"a": "2"}
    flow.put("a", 3)
    flow.drain_all()
    flow.apply("merge")
    assert flow.current() == {"a": "3"}


@pytest.mark.parametrize("first", ["kinesis", "dynamodb"])
def test_a_stream_that_comes_back_is_read_again(flow: Flow, first: str) -> None:
    kinesis = flow.source

    def to_kinesis() -> None:
        flow.source = kinesis
        flow.new_process()

    uses = [to_kinesis, flow.switch_to_the_stream_of_the_table] * 2
    for n, use in enumerate(uses if first == "kinesis" else uses[::-1]):
        use()
        for twice in range(2):
            flow.put("a", 2 * n + twice)
            report = flow.drain_all()[-1]
            flow.apply("merge")
            assert flow.current() == flow.items() == {"a": str(2 * n + twice)}
    assert len(report.gaps) == 3
    assert all("switched to" in gap.reason for gap in report.gaps)
    assert all(gap.since <= gap.until for gap in report.gaps if gap.since and gap.until)
    epochs = {split_version(one)[0] for one in flow.log_rows()[Log.VERSION].to_pylist()}
    assert epochs == {1, 2, 3, 4}


def test_a_switch_is_a_gap_though_the_drain_died_after_it_landed(flow: Flow) -> None:
    flow.put("a", 1)
    flow.drain_all()
    flow.switch_to_the_stream_of_the_table()
    flow.put("a", 2)
    with pytest.raises(Crash), crash_at(crash_points.AFTER_CHANGE_LOG_COMMIT):
        flow.drain()
    (gap,) = flow.drain_all()[-1].gaps
    assert "switched to" in gap.reason


def test_what_the_stream_of_the_table_landed_is_not_landed_again_from_kinesis(
    flow: Flow,
) -> None:
    kinesis = flow.source
    flow.put("a", 1)
    flow.disable()
    flow.put("a", 2)  # not in Kinesis
    flow.enable()
    flow.service.admin.advance_clock(120)
    flow.put("b", 1)
    flow.switch_to_the_stream_of_the_table()
    flow.drain_all()
    flow.source = kinesis
    flow.new_process()
    flow.put("b", 2)
    flow.drain_all()
    flow.apply("merge", "append")
    assert flow.current() == flow.items() == {"a": "2", "b": "2"}
    # What was made in the last minute before the end of the drained stream lands twice.
    assert Counter(row["id"] + row["n"] for row in flow.rows("append")) == Counter(
        ["a1", "a2", "b1", "b1", "b2"]
    )


def test_a_resync_from_before_a_switch_does_not_repair_it(service: Service, tmp_path: Path) -> None:
    flow = Flow(service, layout_in(tmp_path), start="snapshot")

    def step() -> Phase:
        service.admin.advance_clock(40)
        flow.drain_all()
        return flow.snapshot().phase

    flow.put("a", 1)
    while step() is not Phase.DONE:
        pass
    flow.put("a", 2)  # not drained, and not kept for a day
    service.admin.advance_clock(30 * 3600)
    flow.put("b", 1)
    flow.switch_to_the_stream_of_the_table()
    flow.drain_all()
    table = BotoTableClient(flow.table, service.clients)
    resync_after_gap(flow.source, flow.layout, table, clock=flow.now)
    flow.snapshot()
    (note,) = gap_notes("orders", flow.layout)
    assert note.is_open


def test_what_comes_late_after_the_announcement_does_not_win(
    service: Service, tmp_path: Path
) -> None:
    flow = Flow(service, layout_in(tmp_path), start="snapshot")
    flow.put("a", 1)
    flow.put("b", 1)
    flow.put("unchanged", 1)
    flow.hold()
    flow.put("a", 2)
    flow.put("a", 3)
    flow.delete("b")
    flow.put("b", 2)
    flow.deliver([1, 3])
    flow.drain()
    flow.apply("merge")
    assert flow.snapshot().waits_for  # announced: the epoch is raised
    flow.deliver([0, 1])
    flow.drain()
    flow.apply("merge")
    assert flow.current() == {"a": "3", "b": "2", "unchanged": "1"}
    flow.service.admin.advance_clock(120)
    flow.put("a", 4)
    flow.put("late", 1)
    flow.deliver([1])
    for _ in range(8):
        report = flow.snapshot()
        flow.drain_all()
        flow.apply("merge")
        flow.service.admin.advance_clock(5)
        if report.phase is Phase.DONE:
            break
    assert report.phase is Phase.DONE
    flow.deliver()
    flow.drain_all()
    flow.apply("merge")
    assert flow.current() == flow.items() == {"a": "4", "b": "2", "late": "1", "unchanged": "1"}
    by_event = {
        (row[Log.EVENT_NAME], split_version(row[Log.VERSION])[0])
        for row in flow.log_rows().to_pylist()
    }
    assert {epoch for name, epoch in by_event if name == "SNAPSHOT"} == {2}
    assert {epoch for name, epoch in by_event if name != "SNAPSHOT"} == {1, 2}


def test_equal_times_are_counted(flow: Flow) -> None:
    flow.disable()
    flow.precision = "MILLISECOND"
    flow.enable()
    for n in range(40):  # some of them in one millisecond
        flow.put("a", n)
    report = flow.drain_all()[-1]
    assert report.arrival.is_coarse
    times = Counter(one[8:26] for one in flow.log_rows()[Log.VERSION].to_pylist())
    assert report.arrival.tied == sum(count - 1 for count in times.values())


WRITES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3) | st.none()), min_size=1, max_size=9
)


@settings(max_examples=60 if LONG else 3)
@given(writes=WRITES, data=st.data())
def test_any_disorder_gives_the_last_write_and_each_event_once(
    service: Service, writes: list[tuple[str, int | None]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        flow = Flow(service, layout_in(Path(folder)))
        flow.hold()
        made = 0
        for key, n in writes:
            before = flow.items()
            flow.delete(key) if n is None else flow.put(key, n)
            made += flow.items() != before
        left = made
        while left:
            order = data.draw(st.lists(st.integers(0, left - 1), min_size=1, max_size=left + 2))
            flow.deliver(order)
            left -= len(set(order))
            if data.draw(st.booleans()):
                flow.split()
            elif len(flow.open_shards()) > 1 and data.draw(st.booleans()):
                flow.merge()
            if data.draw(st.booleans()):
                flow.new_process()
            flow.drain()
            if data.draw(st.booleans()):
                flow.apply()
        flow.drain_all()
        flow.apply()
        if not made:
            return
        assert flow.current() == flow.items()
        assert set(flow.landed().values()) == {1}
        assert len(flow.landed()) == len(flow.rows("append")) == made
        now = {row["id"]: row["n"] for row in flow.rows("history") if row["_dz_is_current"]}
        assert now == flow.items()
