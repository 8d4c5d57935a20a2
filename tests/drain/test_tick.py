"""A tick: batch after batch until the source is caught up or a limit stops it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable

from datazone_dagster.changelog import checkpoints, compaction, maintain_log
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.drain import DrainSettings, drain_tick, process_state
from datazone_dagster.errors import ServiceUnavailableError, SourceError, ThrottledError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream
from tests.new_process import NewProcess

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")
SMALL = DrainSettings(budget_bytes=1, max_workers=1)


def stream_of(records: int) -> ScriptedStream:
    stream = ScriptedStream(page_records=2)
    for number in range(records):
        stream.put({"id": {"S": str(number)}})
    return stream


def landed(layout: Layout) -> list[str]:
    log = ChangeLog(layout, SOURCE.name).open()
    assert log is not None
    return [
        event
        for chunk in log.chunks(0, log.head, 1 << 30)
        for event in chunk.rows[Log.EVENT_ID].to_pylist()
    ]


def test_a_tick_continues_until_the_source_is_caught_up(tmp_path: Path) -> None:
    stream, layout = stream_of(7), Layout(str(tmp_path))
    report = drain_tick(SOURCE, stream, layout, settings=SMALL)
    assert (report.caught_up, report.batch, report.batches, report.records) == (True, 4, 4, 7)
    assert landed(layout) == [change.event_id for change in stream.changes]
    assert report.get_records_calls == stream.calls["GetRecords"]


def test_children_are_read_in_the_tick_that_ended_their_parent(tmp_path: Path) -> None:
    stream, layout = stream_of(3), Layout(str(tmp_path))
    stream.split()
    for number in range(3, 9):
        stream.put({"id": {"S": str(number)}})
    report = drain_tick(SOURCE, stream, layout)
    assert (report.caught_up, report.records) == (True, 9)


def test_a_shard_at_its_latest_position_is_asked_once_meanwhile(
    tmp_path: Path,
) -> None:
    stream, layout = ScriptedStream(page_records=2, shards=2), Layout(str(tmp_path))
    assert drain_tick(SOURCE, stream, layout).caught_up
    number = 0
    while len(stream.changes) < 20:
        item = {"id": {"S": str(number)}}
        number += 1
        if stream.shard_index(item) == 0:
            stream.put(item)
    asked: Counter[str] = Counter()

    def count(operation: str, shard_id: str, _: int) -> None:
        asked.update([shard_id] if operation == "GetRecords" else [])

    stream.faults = count
    two_pages = DrainSettings(budget_bytes=stream.changes[0].size_bytes * 3, max_workers=1)
    report = drain_tick(SOURCE, stream, layout, settings=two_pages)
    assert report.caught_up
    assert report.batches >= 5
    busy, idle = stream.shard_ids()
    assert asked == {busy: 11, idle: 1}


@pytest.mark.parametrize("error", [ThrottledError("scripted"), ServiceUnavailableError("scripted")])
def test_records_landed_before_a_failing_call_count_and_are_reported(
    tmp_path: Path, error: SourceError
) -> None:
    stream, layout = stream_of(9), Layout(str(tmp_path))
    stream.faults = lambda operation, _, count: (
        error if operation == "GetRecords" and count == 3 else None
    )
    report = drain_tick(SOURCE, stream, layout, settings=SMALL)
    assert not report.caught_up
    assert (report.batches, report.records) == (2, 4)
    assert len(report.shard_errors) == 1
    stream.faults = None
    assert drain_tick(SOURCE, stream, layout, settings=SMALL).records == 5
    assert landed(layout) == [change.event_id for change in stream.changes]


def test_the_report_of_earlier_batches_survives_a_later_batch_that_fails(
    tmp_path: Path,
) -> None:
    stream, layout = stream_of(9), Layout(str(tmp_path))
    stream.faults = lambda operation, _, count: (
        ServiceUnavailableError("scripted")
        if operation == "DescribeStream" and count == 3
        else None
    )
    report = drain_tick(SOURCE, stream, layout, settings=SMALL)
    assert (report.batches, report.records, report.caught_up) == (2, 4, False)


def test_no_batch_begins_when_the_time_is_spent(tmp_path: Path) -> None:
    stream, layout = stream_of(9), Layout(str(tmp_path))
    spent = DrainSettings(budget_seconds=0.0, budget_bytes=1, max_workers=1)
    report = drain_tick(SOURCE, stream, layout, settings=spent)
    assert (report.batches, report.records, report.caught_up) == (0, 0, False)


def test_replaced_files_of_both_tables_are_deleted_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)
    monkeypatch.setattr(maintain_log, "RETENTION_HOURS", 0)
    monkeypatch.setattr(checkpoints, "RETENTION_HOURS", 0)
    stream, layout = stream_of(30), Layout(str(tmp_path))
    assert drain_tick(SOURCE, stream, layout, settings=SMALL).batches == 15
    uris = (layout.change_log(SOURCE.name), layout.checkpoint(SOURCE.name))
    assert all(files_on_disk(uri) > len(DeltaTable(uri).file_uris()) for uri in uris)
    monkeypatch.setattr(process_state, "CLEAN_UP_FIRST_SECONDS", 0.0)
    stream.put({"id": {"S": "one more"}})
    drain_tick(SOURCE, NewProcess(stream), layout)
    assert all(files_on_disk(uri) == len(DeltaTable(uri).file_uris()) for uri in uris)


def files_on_disk(uri: str) -> int:
    found = Path(uri).rglob("*.parquet")
    return sum("_delta_log" not in path.parts for path in found)
