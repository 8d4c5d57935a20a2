"""What a Kinesis source stores: epochs by the clock of the service, owner, malformed records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster.changelog import erased_events
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.drain.process_state import load_state
from datazone_dagster.errors import SourceMismatchError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.model.version import EPOCH_DIGITS, split_version
from datazone_dagster.pipeline import DrainSettings, open_erasure
from datazone_dagster.process.memory import resident_bytes
from datazone_dagster.source import kinesis_wire
from datazone_dagster.source.wire import NotAStreamRecordError
from datazone_dagster.testing import ScriptedStream
from tests.drain.earlier_log import logs_without_owner
from tests.drain.kinesis_flow import FIRST, Flow, Service, layout_in


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with LocalDynamoDB(shards=1) as server:
        yield Service(server)


@pytest.fixture
def flow(service: Service, tmp_path: Path) -> Flow:
    return Flow(service, layout_in(tmp_path))


def hand_over(flow: Flow, seconds: float) -> None:
    """Drain and take the snapshot until it is done."""
    for _ in range(12):
        flow.drain_all()
        flow.apply("merge")
        if flow.snapshot().phase is Phase.DONE:
            return
        flow.service.admin.advance_clock(seconds)
    raise AssertionError("the snapshot was not done")


def test_what_comes_late_does_not_win_where_the_clock_is_behind(
    service: Service, tmp_path: Path
) -> None:
    behind = timedelta(minutes=10)
    flow = Flow(service, layout_in(tmp_path), start="snapshot", clock_behind=behind)
    flow.put("a", 1)
    flow.hold()
    for n in (2, 3):
        flow.put("a", n)
    flow.put("late", 1)
    flow.deliver([1])
    flow.drain()
    flow.snapshot()  # announced: the epoch is raised
    flow.deliver([0])
    flow.drain()
    flow.apply("merge")
    assert flow.current() == {"a": "3"}
    hand_over(flow, 300)
    flow.deliver()
    flow.drain_all()
    flow.apply("merge")
    assert flow.current() == flow.items() == {"a": "3", "late": "1"}
    by_name = {
        (row[Log.EVENT_NAME], split_version(row[Log.VERSION])[0])
        for row in flow.log_rows().to_pylist()
    }
    assert by_name == {("INSERT", 1), ("MODIFY", 1), ("SNAPSHOT", 2)}


def test_a_base_of_an_earlier_version_is_read() -> None:
    base = SnapshotBase(3, 2, FIRST, repairs=False, announced_served_at=FIRST)
    assert SnapshotBase.from_json(base.to_json()) == base
    text = f'{{"batch": 3, "epoch": 2, "announced_at": "{FIRST.isoformat()}", "repairs": false}}'
    assert SnapshotBase.from_json(text) == SnapshotBase(3, 2, FIRST, repairs=False)


def test_what_is_malformed_and_late_keeps_the_epoch_before(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> ChangeRecord:
        raise NotAStreamRecordError("not known to this version")

    flow = Flow(service, layout_in(tmp_path), start="snapshot")
    flow.put("a", 1)
    flow.hold()
    for n in (2, 3):
        flow.put("a", n)
    flow.deliver([1])
    flow.drain()
    flow.snapshot()
    flow.deliver([0])
    with monkeypatch.context() as older_version:
        older_version.setattr(kinesis_wire, "_change", refuse)
        assert flow.drain().malformed == 1
    flow.apply("merge")
    assert flow.redrive("merge").waiting == 0
    assert flow.current() == {"a": "3"}
    hand_over(flow, 40)
    assert flow.current() == flow.items()


@pytest.mark.parametrize("noted", [True, False])
def test_a_record_without_an_order_alone_in_its_batch_is_redriven(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    def refuse(_: object) -> ChangeRecord:
        raise NotAStreamRecordError("not known to this version")

    flow.put("a", 1)
    flow.drain()
    flow.put("a", 2)
    with monkeypatch.context() as older_version:
        older_version.setattr(kinesis_wire, "_change", refuse)
        older_version.setattr(kinesis_wire, "_salvaged_number", lambda _: None)
        assert flow.drain().malformed == 1
    flow.put("b", 1)
    flow.drain()
    flow.apply("merge")
    assert flow.current() == {"a": "1", "b": "1"}
    if not noted:
        monkeypatch.setattr("datazone_dagster.changelog.batch_epoch.landed_in", lambda *_: None)
    assert flow.redrive("merge").waiting == 0
    assert flow.current() == {"a": "2", "b": "1"}


def test_a_drain_with_a_small_budget_keeps_the_numbers_of_fewer_changes() -> None:
    most = {}
    for mebibytes in (256, 512):
        client = ScriptedStream("orders")
        settings = DrainSettings(memory_budget=resident_bytes() // 2 + (mebibytes << 20))
        kept = [load_state(client, settings).known.most for _ in range(2)]  # the first one failed
        assert kept[0] == kept[1]
        most[mebibytes] = kept[0]
    assert most[256] < most[512]


def test_an_erased_change_that_could_not_be_parsed_is_not_quarantined_again(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> ChangeRecord:
        raise NotAStreamRecordError("not known to this version")

    flow.put("b", 1)
    flow.drain()
    monkeypatch.setattr(kinesis_wire, "_change", refuse)
    flow.put("a", 1)
    assert flow.drain().malformed == 1
    assert open_erasure(flow.source, ["id=a"], flow.layout, clock=flow.now).run().done
    assert len(flow.log_rows()) == 1
    for new_process in (False, True):
        if new_process:
            flow.new_process()
        flow.again(1)
        report = flow.drain()
        assert (report.malformed, report.arrival.repeated) == (0, 1)
    assert len(flow.log_rows()) == 1


def test_an_erasure_stores_numbers_of_events_and_none_of_a_scanned_row(
    service: Service, tmp_path: Path
) -> None:
    """The event id of a scanned row is a hash of its key."""
    flow = Flow(service, layout_in(tmp_path), start="snapshot")
    flow.put("a", 1)
    hand_over(flow, 40)
    flow.delete("a")
    flow.drain_all()
    landed = {
        row[Log.VERSION][EPOCH_DIGITS:]
        for row in flow.log_rows().to_pylist()
        if row[Log.EVENT_NAME] != "SNAPSHOT"
    }
    assert len(landed) == 2
    assert len(flow.log_rows()) == 3
    assert open_erasure(flow.source, ["id=a"], flow.layout, clock=flow.now).run().done
    log = ChangeLog(flow.layout, "orders").open()
    assert log is not None
    assert erased_events.from_text(log.properties[erased_events.PROPERTY]) == landed
    assert erased_events.TABLE_PROPERTY not in log.properties


def test_an_erasure_says_how_many_changes_are_no_longer_recognised(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erased_events, "KEPT_NUMBERS", 2)
    for n in range(5):
        flow.put("a", n)
    flow.put("b", 1)
    flow.drain_all()
    assert _forgotten(flow, "b") == []
    (text,) = _forgotten(flow, "a")
    assert text.startswith("A second delivery of 4 older changes")
    log = ChangeLog(flow.layout, "orders").open()
    assert log is not None
    assert len(erased_events.erased_in(log.properties)) == 2


def _forgotten(flow: Flow, key: str) -> list[str]:
    report = open_erasure(flow.source, [f"id={key}"], flow.layout, clock=flow.now).run()
    assert report.done
    return [one for one in report.unreachable if "second delivery" in one]


def test_numbers_of_a_stream_of_dynamodb_are_dropped_after_two_days() -> None:
    now = datetime(2026, 1, 10, tzinfo=timezone.utc)
    old, new = (
        erased_events.number_of(now - timedelta(days=days), f"event {days}") for days in (3, 1)
    )
    of_table = erased_events.KEPT_DAYS[erased_events.TABLE_PROPERTY]
    assert erased_events.with_erased([old], [new], now, of_table) == (frozenset([new]), 0)
    of_kinesis = erased_events.KEPT_DAYS[erased_events.PROPERTY]
    assert erased_events.with_erased([old], [new], now, of_kinesis) == (frozenset([old, new]), 0)
    properties = {
        erased_events.PROPERTY: erased_events.to_text([old]),
        erased_events.TABLE_PROPERTY: erased_events.to_text([new]),
    }
    assert erased_events.erased_in(properties) == {old, new}


def test_a_log_that_has_no_owner_yet_goes_on_with_the_same_stream_of_kinesis(
    flow: Flow,
) -> None:
    """The ARN of that stream names no table, neither the one stored nor the one found."""
    with logs_without_owner():
        flow.put("a", 1)
        flow.drain_all()
    flow.put("b", 1)
    flow.drain_all()
    flow.apply("merge")
    assert flow.current() == {"a": "1", "b": "1"}
    log = ChangeLog(flow.layout, "orders").open()
    assert log is not None
    assert log.owner is not None


def test_a_log_of_an_earlier_version_goes_on_with_kinesis_of_the_same_table(
    flow: Flow, service: Service
) -> None:
    kinesis = flow.source
    flow.switch_to_the_stream_of_the_table()
    with logs_without_owner():
        flow.put("a", 1)
        flow.drain()
    other = Flow(service, flow.layout)
    with pytest.raises(SourceMismatchError, match=f"{flow.table}.*{other.table}"):
        other.drain()
    flow.source = kinesis
    flow.new_process()
    flow.put("a", 2)
    flow.drain_all()
    flow.apply("merge")
    assert flow.current() == {"a": "2"}
    log = ChangeLog(flow.layout, "orders").open()
    assert log is not None
    assert log.owner is not None
    assert log.owner.table_name == flow.table
