"""Two writers at once: one loses the commit race and logs it; nothing is doubled or lost."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.changelog import maintain_log
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.drain import checkpoint_update
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ChunkReport, MaintenanceReport
from datazone_dagster.pipeline import (
    ApplySettings,
    DrainSettings,
    apply_transform,
    drain_once,
    drain_tick,
)
from datazone_dagster.process import crash_points
from datazone_dagster.rows.maintenance_plan import THOROUGH
from datazone_dagster.rows.table_maintenance import maintain
from datazone_dagster.testing import FixedClock, ScriptedStream, at_point
from tests.faults.child import Role, start
from tests.faults.ledger import record
from tests.faults.orders import (
    SOURCE,
    current_rows,
    event_ids,
    expected_rows,
    flow,
    ids,
    landed_event_ids,
    order,
)
from tests.faults.world import OrdersTable, catch_up
from tests.faults.world import assert_exactly_once as assert_table_exactly_once
from tests.new_process import NewProcess

SMALL_CHUNKS = ApplySettings(chunk_bytes=1)
BATCH_BY_BATCH = DrainSettings(budget_bytes=100, max_workers=1)
BATCHES = 70
"""More batches than one group of files, so that the change log has files to join."""


def write(stream: ScriptedStream, start: int) -> None:
    for number in range(start, start + 9):
        stream.put(order(number % 5, ("placed", "hidden", "paid")[number % 3], number))


def drain(stream: ScriptedStream, layout: Layout) -> None:
    drain_once(SOURCE, NewProcess(stream), layout)


def apply(layout: Layout) -> None:
    apply_transform(flow, layout, settings=SMALL_CHUNKS)


def lost_race(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = (record.getMessage() for record in caplog.records)
    return [message for message in messages if "lost the commit race" in message]


def assert_exactly_once(stream: ScriptedStream, layout: Layout, *, fault: str) -> None:
    for _ in range(3):
        drain(stream, layout)
        apply_transform(flow, layout)
    assert landed_event_ids(layout) == ids(stream.changes)
    entry = record(fault, 1, ids(stream.changes), event_ids(layout))
    assert (entry.lost, entry.doubled) == (0, 0)
    assert current_rows(layout) == expected_rows(stream.changes)


@pytest.fixture
def positions_saved_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is followed by a save of the checkpoint, as once in a minute."""
    monkeypatch.setattr(checkpoint_update, "POSITIONS_SAVED_EVERY", timedelta(0))


@pytest.mark.parametrize("point", [crash_points.AFTER_READ, crash_points.AFTER_CHANGE_LOG_COMMIT])
def test_two_drains_at_once_without_a_save(layout: Layout, point: str) -> None:
    """Positions are in the commits: a drain that another one overtakes after its own is none."""
    stream = ScriptedStream(shards=2, page_records=3)
    write(stream, 0)
    drain(stream, layout)
    write(stream, 100)

    def another() -> None:
        write(stream, 200)
        drain(stream, layout)

    with at_point(point, another):
        report = drain_once(SOURCE, NewProcess(stream), layout)
    assert report.lost_race is (point == crash_points.AFTER_READ)
    assert_exactly_once(stream, layout, fault=f"two drains at once without a save, {point}")


@pytest.mark.usefixtures("positions_saved_always")
@pytest.mark.parametrize("point", [crash_points.AFTER_READ, crash_points.AFTER_CHANGE_LOG_COMMIT])
def test_two_drains_at_once(layout: Layout, caplog: pytest.LogCaptureFixture, point: str) -> None:
    """A sensor evaluation that timed out goes on in the code server while the next one starts."""
    caplog.set_level(logging.INFO)
    stream = ScriptedStream(shards=2, page_records=3)
    write(stream, 0)
    drain(stream, layout)
    write(stream, 100)

    def another() -> None:
        write(stream, 200)
        drain(stream, layout)

    with at_point(point, another):
        report = drain_once(SOURCE, NewProcess(stream), layout)
    assert report.lost_race
    (line,) = lost_race(caplog)
    assert line.startswith("Drain of orders lost the commit race: ")
    assert_exactly_once(stream, layout, fault=f"two drains at once, {point}")


@pytest.mark.usefixtures("positions_saved_always")
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(
    "point",
    [
        crash_points.AFTER_READ,
        crash_points.AFTER_CHANGE_LOG_COMMIT,
        crash_points.AFTER_CHECKPOINT_COMMIT,
    ],
)
def test_another_drain_commits_in_the_middle_of_a_tick(
    layout: Layout, caplog: pytest.LogCaptureFixture, point: str, nth: int
) -> None:
    """Each batch of a tick reuses the open tables of the batch before."""
    caplog.set_level(logging.INFO)
    stream = ScriptedStream(shards=2, page_records=3)
    write(stream, 0)

    def another() -> None:
        write(stream, 200)
        drain(stream, layout)

    with at_point(point, another, nth=nth):
        report = drain_tick(SOURCE, NewProcess(stream), layout, settings=BATCH_BY_BATCH)
    assert report.lost_race
    assert report.batches == nth - (point == crash_points.AFTER_READ)
    assert_exactly_once(stream, layout, fault=f"two drains at once, {point} of a tick")


def test_the_batches_of_a_tick_open_their_tables_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    for table in (ChangeLog, CheckpointTable):
        original = table.open_or_create

        def open_or_create(self: Any, original: Any = original) -> Any:
            opened.append(self.uri)
            return original(self)

        monkeypatch.setattr(table, "open_or_create", open_or_create)
    stream = ScriptedStream(shards=2, page_records=3)
    write(stream, 0)
    report = drain_tick(SOURCE, NewProcess(stream), layout, settings=BATCH_BY_BATCH)
    assert (report.batches, len(opened)) == (3, 2)
    monkeypatch.undo()
    assert_exactly_once(stream, layout, fault="a tick of several batches")


def test_another_drain_commits_while_this_one_opens_its_tables(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other drain's checkpoint must not seem to be ahead of the change log."""
    stream = ScriptedStream(shards=2, page_records=3)
    write(stream, 0)
    opened: list[str] = []

    def drain_before_the_second(table: type, name: str) -> None:
        original = getattr(table, name)

        def open_it(self: Any) -> Any:
            opened.append(table.__name__)
            if len(opened) == 2:
                drain(stream, layout)
            return original(self)

        monkeypatch.setattr(table, name, open_it)

    drain_before_the_second(ChangeLog, "open_or_create")
    drain_before_the_second(CheckpointTable, "known_or_created")
    drain(stream, layout)
    assert len(opened) == 4
    monkeypatch.undo()
    assert_exactly_once(stream, layout, fault="two drains at once, between two tables")


@pytest.mark.parametrize(
    "point",
    [
        crash_points.AFTER_QUARANTINE,
        crash_points.BEFORE_DATASET_COMMIT,
        crash_points.AFTER_TOMBSTONES,
        crash_points.AFTER_DATASET_COMMIT,
    ],
)
def test_two_runs_at_once(layout: Layout, caplog: pytest.LogCaptureFixture, point: str) -> None:
    caplog.set_level(logging.INFO)
    stream = ScriptedStream(shards=2, page_records=3)
    for number in range(4):
        write(stream, 100 * number)
        drain(stream, layout)
    with at_point(point, lambda: apply(layout), nth=2):
        apply(layout)
    (line,) = lost_race(caplog)
    assert line.startswith("This run of flow lost the commit race: ")
    assert_exactly_once(stream, layout, fault=f"two runs at once, {point}")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, ScriptedStream]:
    """A change log with files to join, and no batch applied."""
    layout = Layout(str(tmp_path_factory.mktemp("long-log") / "lakehouse"))
    stream = ScriptedStream(shards=2, page_records=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datazone_dagster.drain.batch.maintain_once", lambda *_: False)
        for number in range(BATCHES):
            stream.put(order(number % 5, "placed", number))
            drain(stream, layout)
    assert ChangeLog(layout, SOURCE.name).open_or_create().head == BATCHES
    return layout, stream


@pytest.fixture
def long_log(layout: Layout, made_once: tuple[Layout, ScriptedStream]) -> ScriptedStream:
    """A copy of that change log in `layout`; the value is its stream."""
    original, stream = made_once
    shutil.copytree(original.uri, layout.uri)
    return copy.deepcopy(stream)


def maintain_once(layout: Layout) -> None:
    log = ChangeLog(layout, SOURCE.name).open_or_create()
    if log.is_checkpoint_due:
        log.maintain_once()
    assert log.maintain_once(), "there was nothing to join"


@pytest.mark.parametrize(
    "point", [crash_points.AFTER_QUARANTINE, crash_points.BEFORE_DATASET_COMMIT]
)
def test_a_run_while_the_change_log_is_compacted(
    layout: Layout, long_log: ScriptedStream, point: str
) -> None:
    with at_point(point, lambda: maintain_once(layout), nth=3):
        apply_transform(flow, layout, settings=ApplySettings(chunk_bytes=4000))
    assert_exactly_once(long_log, layout, fault=f"change log joined in a run, {point}")


def test_a_run_that_outlasts_the_files_it_started_with(
    layout: Layout, long_log: ScriptedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are joined after the first chunk, and the old ones are deleted hours later."""
    monkeypatch.setattr(maintain_log, "RETENTION_HOURS", 0)
    clock, before = FixedClock(), data_files(layout)
    chunks: list[ChunkReport] = []

    def hours_pass(chunk: ChunkReport) -> None:
        chunks.append(chunk)
        if len(chunks) == 1:
            maintain_once(layout)
            ChangeLog(layout, SOURCE.name).open_or_create().delete_orphan_files()
            clock.advance(timedelta(hours=4))

    settings = ApplySettings(chunk_bytes=4000)
    (report, _) = apply_transform(
        flow, layout, settings=settings, clock=clock, on_chunk=hours_pass
    ).values()
    assert len(before - data_files(layout)) > BATCHES // 2
    assert len(chunks) > 2
    assert report.position == BATCHES
    assert_exactly_once(long_log, layout, fault="change log joined and old files deleted in a run")


def test_a_run_whose_change_log_is_removed_stops(
    layout: Layout, long_log: ScriptedStream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock, log_path = FixedClock(), Path(layout.change_log(SOURCE.name))
    moved_path = log_path.with_name("moved")

    def move_log(chunk: ChunkReport) -> None:
        if not moved_path.exists():
            log_path.rename(moved_path)
            clock.advance(timedelta(hours=4))

    settings = ApplySettings(chunk_bytes=4000)
    apply_transform(flow, layout, settings=settings, clock=clock, on_chunk=move_log)
    (line,) = lost_race(caplog)
    assert "was removed or replaced" in line
    assert not log_path.exists()
    moved_path.rename(log_path)
    assert_exactly_once(long_log, layout, fault="change log gone in a run")


def data_files(layout: Layout) -> set[Path]:
    return set(Path(layout.change_log(SOURCE.name)).glob("bucket=*/*.parquet"))


def test_a_drain_while_the_change_log_is_compacted(
    layout: Layout, long_log: ScriptedStream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(long_log, 500)
    with at_point(crash_points.AFTER_READ, lambda: maintain_once(layout)):
        report = drain_once(SOURCE, NewProcess(long_log), layout)
    assert report.lost_race
    assert lost_race(caplog)
    assert_exactly_once(long_log, layout, fault="change log joined in a drain")


@pytest.mark.parametrize(
    "point",
    [
        crash_points.BEFORE_DATASET_COMMIT,
        crash_points.AFTER_TOMBSTONES,
        crash_points.BEFORE_LOG_ENTRY,
        crash_points.AFTER_DATASET_COMMIT,
    ],
)
def test_a_run_while_its_datasets_are_maintained(layout: Layout, point: str) -> None:
    stream = ScriptedStream(shards=2, page_records=3)
    for number in range(5):
        write(stream, 100 * number)
        drain(stream, layout)
        apply(layout)
    write(stream, 600)
    drain(stream, layout)
    done: list[MaintenanceReport | None] = []

    def maintained() -> None:
        done.extend(
            maintain(layout, dataset_id, THOROUGH, datetime.now(timezone.utc))
            for dataset_id in ("current", "events")
        )

    with at_point(point, maintained):
        apply(layout)
    assert any(report is not None and report.files_joined for report in done)
    assert_exactly_once(stream, layout, fault=f"datasets maintained in a run, {point}")


def test_maintenance_commits_after_a_run_that_only_added_files(layout: Layout) -> None:
    stream = ScriptedStream(shards=2, page_records=3)
    for number in range(5):
        write(stream, 100 * number)
        drain(stream, layout)
        apply(layout)
    write(stream, 600)
    drain(stream, layout)
    with at_point(crash_points.AFTER_DATA_FILES, lambda: apply(layout)):
        report = maintain(layout, "events", THOROUGH, datetime.now(timezone.utc))
    assert report is not None
    assert not report.lost_race
    assert (report.files_joined, report.files) == (5, 2)
    assert_exactly_once(stream, layout, fault="a run during maintenance")


@pytest.mark.parametrize(
    "roles",
    [
        ["worker", "worker"],
        pytest.param(["sensor", "sensor", "run", "run"], marks=pytest.mark.faults),
    ],
)
def test_processes_that_all_do_the_same(
    server: LocalDynamoDB,
    layout: Layout,
    tmp_path_factory: pytest.TempPathFactory,
    roles: list[Role],
) -> None:
    table = OrdersTable(server.endpoint_url, seed=12)
    table.create()
    home = tmp_path_factory.mktemp("overlap")
    table.write(20)
    processes = [
        start(server.endpoint_url, layout, role=role, home=str(home / f"{role}-{number}"))
        for number, role in enumerate(roles)
    ]
    # Traffic during some seconds of real overlap.
    until = time.monotonic() + 3 * len(roles) / 2
    while time.monotonic() < until:
        table.write(4)
        if table.dice.random() < 0.05:
            table.end_a_shard()
    alive = [process.is_alive() for process in processes]
    for process in processes:
        process.kill()
        process.join()
    assert all(alive), "one did not survive the others"
    catch_up(server.endpoint_url, layout)
    assert_table_exactly_once(
        table, layout, fault=f"at once: {', '.join(roles)}", injected=len(roles)
    )
