"""Batches of a scan next to those of drains: real tables, several handles."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.checkpoint import GapNote
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.report import Gap
from datazone_dagster.model.snapshot_state import (
    SCAN_SHARD_ID,
    Phase,
    Scanned,
    SnapshotState,
    announced,
    landed,
    opened,
    scan_started,
    wanted,
)
from datazone_dagster.model.source_identity import SourceIdentity
from tests.changelog.test_change_log import record, shard
from tests.examples import examples

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def change_log(root: Path) -> ChangeLog:
    return ChangeLog(Layout(str(root)), "orders")


def log_in(root: Path) -> ChangeLogSnapshot:
    return change_log(root).open_or_create()


def scanning(root: Path, *, epoch: int = 2, segments: int = 1000) -> SnapshotState:
    """Announce a snapshot and start its scan."""
    log_in(root)
    state = announced(wanted("start"), epoch=epoch, at=NOW, consistent_reads=True, table_id="t")
    ScanLog(change_log(root)).move(None, state, only_now=True)
    started = opened(scan_started(state, segments=segments, at=NOW), segments)
    ScanLog(change_log(root)).move(state, started)
    return started


def scanned_row(number: int) -> ChangeRecord:
    return record(number)._replace(event_id=f"s{number}", event_name="SNAPSHOT", sequence_number=0)


def land(root: Path, state: SnapshotState, *numbers: int) -> SnapshotState:
    """Land scanned rows as one batch that completes the next segment."""
    segment = min(state.open)
    after = landed(state, Scanned({segment: None}, len(numbers), 10, 1.0, NOW))
    rows = [scanned_row(number) for number in numbers]
    ScanLog(change_log(root)).land(state, after, [ShardRecords("", SCAN_SHARD_ID, None, rows)])
    reached = ScanLog(change_log(root)).state
    assert reached is not None
    return reached


def events(root: Path) -> dict[int, list[str]]:
    log = log_in(root)
    return {
        chunk.first_batch: chunk.rows[Log.EVENT_ID].to_pylist()
        for chunk in log.chunks(0, log.head, 1)
    }


def begun(log: ChangeLogSnapshot, *numbers: int, epoch: int = 2) -> BatchWriter:
    """Begin a batch of a drain: its file is written, but not committed."""
    writer = log.begin(epoch)
    writer.put(shard(*numbers))
    writer.finish()
    return writer


def test_a_batch_of_scanned_rows_and_its_state_are_one_commit(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    before = DeltaTable(change_log(tmp_path).uri).version()
    reached = land(tmp_path, state, 1, 2)
    table = DeltaTable(change_log(tmp_path).uri)
    assert table.version() == before + 1
    assert table.transaction_version("drain/orders") == 1
    assert table.transaction_version("scan/orders") == 1
    assert (reached.rows, reached.last_scan_batch, reached.segments_done) == (2, 1, 1)
    assert events(tmp_path) == {1: ["s1", "s2"]}


def test_a_drain_in_flight_over_an_announcement_loses_the_race(tmp_path: Path) -> None:
    log_in(tmp_path).append(1, [shard(1)])
    log = log_in(tmp_path)
    writer = begun(log, 2, epoch=1)
    state = announced(wanted("start"), epoch=2, at=NOW, consistent_reads=True, table_id="t")
    ScanLog(change_log(tmp_path)).move(None, state, only_now=True)
    with pytest.raises(ConcurrentWriterError):
        writer.commit()
    assert events(tmp_path) == {1: ["e1"]}


def test_a_drain_in_flight_over_another_owner_loses_the_race(tmp_path: Path) -> None:
    """The table was made again: what was read of the old one has no place after it."""
    scanning(tmp_path)
    log = log_in(tmp_path)
    writer = begun(log, 1, epoch=2)
    log_in(tmp_path).record_owner(SourceIdentity("orders", table_id="again"))
    state = log_in(tmp_path).snapshot
    assert state is not None
    land(tmp_path, state, 1)
    with pytest.raises(ConcurrentWriterError):
        writer.commit()


def test_the_put_itself_refuses_an_append_over_an_announcement(tmp_path: Path) -> None:
    """Without our own fence: the second one, should the first ever fail."""
    log = log_in(tmp_path)
    writer = begun(log, 2, epoch=1)
    state = announced(wanted("start"), epoch=2, at=NOW, consistent_reads=True, table_id="t")
    ScanLog(change_log(tmp_path)).move(None, state, only_now=True)
    writer.finish()
    assert writer._finished is not None
    with pytest.raises(ConcurrentWriterError, match="metadata in version 1"):
        log._head._append(writer._finished, 1, None)
    assert log_in(tmp_path).head == 0


def test_an_announcement_over_a_batch_that_it_did_not_see_loses_the_race(tmp_path: Path) -> None:
    log_in(tmp_path)
    scan_log = ScanLog(change_log(tmp_path))
    log_in(tmp_path).append(1, [shard(1)])
    state = announced(wanted("start"), epoch=2, at=NOW, consistent_reads=True, table_id="t")
    with pytest.raises(ConcurrentWriterError):
        scan_log.move(None, state, only_now=True)
    assert log_in(tmp_path).snapshot is None


def test_a_drain_that_lost_to_scans_only_takes_the_next_number(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    log = log_in(tmp_path)
    writer = begun(log, 1, 2)
    state = land(tmp_path, state, 1)
    land(tmp_path, state, 2)
    assert writer.commit() == 3
    assert log.head == 3
    assert events(tmp_path) == {1: ["s1"], 2: ["s2"], 3: ["e1", "e2"]}
    files = list(Path(change_log(tmp_path).uri).rglob("*.zstd.parquet"))
    assert len(files) == 3, "the file under the old number is deleted"
    assert log.append(2, [shard(3)]) == 4, "the handle continues"
    positions = log_in(tmp_path).landed_since(0)
    assert {one.shard_id for one in positions} == {"s"}
    assert max(one.sequence_number or 0 for one in positions) == 10**22 + 3


def test_a_drain_that_lost_to_a_drain_and_a_scan_has_lost(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    writer = begun(log_in(tmp_path), 1)
    log_in(tmp_path).append(2, [shard(1)])
    land(tmp_path, state, 1)
    with pytest.raises(ConcurrentWriterError):
        writer.commit()
    assert events(tmp_path) == {1: ["e1"], 2: ["s1"]}


def test_a_drain_that_lost_to_a_property_and_a_scan_has_lost(tmp_path: Path) -> None:
    """Whatever the property: an erasure stores one before it removes rows."""
    state = scanning(tmp_path)
    writer = begun(log_in(tmp_path), 1)
    log_in(tmp_path).set_property("datazone.test", "1", "Testing")
    land(tmp_path, state, 1)
    with pytest.raises(ConcurrentWriterError):
        writer.commit()
    assert events(tmp_path) == {1: ["s1"]}


def test_a_drain_that_lost_to_removed_files_and_a_scan_has_lost(tmp_path: Path) -> None:
    """As an erasure removes them, or a truncation: by a commit that sets no property."""
    state = scanning(tmp_path)
    log_in(tmp_path).append(2, [shard(1)])
    writer = begun(log_in(tmp_path), 2)
    table = DeltaTable(change_log(tmp_path).uri)
    table.delete()
    land(tmp_path, state, 1)
    with pytest.raises(ConcurrentWriterError):
        writer.commit()
    assert events(tmp_path) == {2: ["s1"]}


def test_a_scan_that_lost_to_a_drain_takes_the_next_number(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    scan_log = ScanLog(change_log(tmp_path))
    log_in(tmp_path).append(2, [shard(1)])
    after = landed(state, Scanned({0: '{"id":{"S":"1"}}'}, 1, 10, 1.0, NOW))
    scan_log.land(state, after, [ShardRecords("", SCAN_SHARD_ID, None, [scanned_row(7)])])
    assert events(tmp_path) == {1: ["e1"], 2: ["s7"]}
    assert scan_log.state == replace(after, last_scan_batch=2)
    assert scan_log.head == 2


def test_one_of_two_scans_at_once_has_lost(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    scan_log = ScanLog(change_log(tmp_path))
    land(tmp_path, state, 1)
    after = landed(state, Scanned({0: None}, 1, 10, 1.0, NOW))
    with pytest.raises(ConcurrentWriterError, match="Another process"):
        scan_log.land(state, after, [ShardRecords("", SCAN_SHARD_ID, None, [scanned_row(1)])])
    assert events(tmp_path) == {1: ["s1"]}
    assert len(list(Path(change_log(tmp_path).uri).rglob("*.zstd.parquet"))) == 1


def test_a_gap_note_from_a_stale_handle_does_not_bring_back_an_old_state(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    log = log_in(tmp_path)
    reached = land(tmp_path, state, 1)
    note = GapNote(Gap("arn", "shard", "lost"), NOW)
    log.record_gaps([note])
    assert log_in(tmp_path).snapshot == reached
    assert log_in(tmp_path).gaps == (note,)


def test_a_scan_without_rows_moves_the_state_only(tmp_path: Path) -> None:
    state = scanning(tmp_path, segments=1)
    after = landed(state, Scanned({0: None}, 0, 0, 0.5, NOW))
    ScanLog(change_log(tmp_path)).land(state, after, [])
    log = log_in(tmp_path)
    assert log.head == 0
    assert log.snapshot is not None
    assert log.snapshot.phase is Phase.SCANNED


def test_many_scans_without_a_drain_leave_delta_checkpoints(tmp_path: Path) -> None:
    state = scanning(tmp_path)
    for number in range(30):
        state = land(tmp_path, state, number)
    log = Path(change_log(tmp_path).uri) / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    assert len(events(tmp_path)) == 30


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no change log"):
        ScanLog(change_log(tmp_path))


STEP = st.sampled_from(
    ["begin", "commit", "scan", "scan later", "scan now", "maintain", "property"]
)


@settings(max_examples=examples(25), deadline=None)
@given(steps=st.lists(STEP, min_size=4, max_size=16), data=st.data())
def test_interleaved_drains_and_scans_lose_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("log")
    state = scanning(root)
    drains: list[tuple[ChangeLogSnapshot, BatchWriter, int]] = []
    scans: list[tuple[ScanLog, SnapshotState, int]] = []
    lost: set[int] = set()  # another commit than a scan's came after they began
    drained: list[str] = []
    scanned: list[str] = []
    for number, step in enumerate(steps, 1):
        if step == "begin":
            log = log_in(root)
            drains.append((log, begun(log, number), number))
        elif step == "commit" and drains:
            log, writer, own = drains.pop(data.draw(st.integers(0, len(drains) - 1)))
            positions = log_in(root).landed_since(0)
            if own in lost:
                with pytest.raises(ConcurrentWriterError):
                    writer.commit()
                assert log_in(root).landed_since(0) == positions
            else:
                assert writer.commit() == log.head
                drained.append(f"e{own}")
                lost.update(other for _, _, other in drains)
        elif step == "scan":
            positions = log_in(root).landed_since(0)
            state = land(root, state, number)
            scanned.append(f"s{number}")
            assert log_in(root).landed_since(0) == positions
        elif step == "scan later":
            scans.append((ScanLog(change_log(root)), state, number))
        elif step == "scan now" and scans:
            scan_log, based_on, own = scans.pop()
            after = landed(based_on, Scanned({min(based_on.open): None}, 1, 10, 1.0, NOW))
            rows = [ShardRecords("", SCAN_SHARD_ID, None, [scanned_row(own)])]
            try:
                scan_log.land(based_on, after, rows)
            except ConcurrentWriterError:
                assert based_on != state
            else:
                assert based_on == state
                assert scan_log.state is not None
                state = scan_log.state
                scanned.append(f"s{own}")
        elif step in ("maintain", "property"):
            log = log_in(root)
            before = log.version
            if step == "maintain":
                log.maintain_once()
            else:
                log.set_property("datazone.test", str(number), "Testing")
            if log.version != before:
                lost.update(own for _, _, own in drains)
    found = events(root)
    assert list(found) == list(range(1, len(drained) + len(scanned) + 1))
    flat = [event for batch in found.values() for event in batch]
    assert [event for event in flat if event[0] == "e"] == drained
    assert [event for event in flat if event[0] == "s"] == scanned
    assert state.rows == len(scanned)
    for _, writer, _ in drains:
        writer.__exit__(None, None, None)
