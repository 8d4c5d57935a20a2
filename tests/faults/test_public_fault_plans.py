"""The public testing module: fault plans in memory and a failing store, as users script them."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.drain import checkpoint_update
from datazone_dagster.errors import (
    DefinitionError,
    ExpiredIteratorError,
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    StorageError,
    ThrottledError,
    TrimmedDataError,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard import TRIM_HORIZON
from datazone_dagster.pipeline import apply_transform, backlog, drain_once
from datazone_dagster.process import crash_points
from datazone_dagster.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    ScriptedStream,
    answer_lost,
    commit_fails,
    full_disk,
    read_only,
    run_transform,
    storage_fails_at,
)
from tests.faults.orders import SOURCE, event_ids, flow, ids, order


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.THROTTLING, ThrottledError),
        (FaultKind.LIMIT_EXCEEDED, ThrottledError),
        (FaultKind.INTERNAL_ERROR, ServiceUnavailableError),
        (FaultKind.CONNECTION_RESET, ServiceUnavailableError),
        (FaultKind.ANSWER_LOST, ServiceUnavailableError),
        (FaultKind.EXPIRED_ITERATOR, ExpiredIteratorError),
        (FaultKind.TRIMMED, TrimmedDataError),
        (FaultKind.NOT_FOUND, ShardNotFoundError),
    ],
)
def test_a_plan_applies_to_the_calls_of_a_scripted_stream(
    kind: FaultKind, error: type[SourceError]
) -> None:
    stream = ScriptedStream(
        shards=2, faults=FaultPlan([Fault("GetShardIterator", kind, shard=1, first=2)])
    )
    first, second = stream.shard_ids()

    def ask(shard_id: str) -> str:
        return stream.shard_iterator(stream.stream_arn, shard_id, TRIM_HORIZON)

    assert ask(second)
    assert ask(first)
    with pytest.raises(error, match=kind.value):
        ask(second)
    assert ask(second)


def test_a_plan_that_needs_a_server_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"slow.*LocalDynamoDB"):
        ScriptedStream(faults=FaultPlan([Fault("GetRecords", FaultKind.SLOW)]))


def write_and_drain(stream: ScriptedStream, layout: Layout, number: int) -> None:
    for _ in range(3):
        stream.put(order(number % 5, "paid", 100 + number))
        stream.put(order(number % 5, "placed", 100 + number))
        drain_once(SOURCE, stream, layout)


def test_a_transform_under_a_plan_and_a_failing_store(layout: Layout) -> None:
    plan = FaultPlan(
        [
            Fault("GetRecords", FaultKind.THROTTLING, every=3, times=None),
            Fault("GetShardIterator", FaultKind.NO_ANSWER, first=2, every=4, times=3),
        ]
    )
    stream = ScriptedStream(shards=2, page_records=2, faults=plan)
    for number in range(12):
        stream.put(order(number % 5, "placed", number))
        if number % 4 == 3:
            stream.split()
        point = crash_points.AFTER_READ if number % 2 else crash_points.AFTER_CHANGE_LOG_COMMIT
        with storage_fails_at(point), pytest.raises(StorageError, match="Scripted"):
            write_and_drain(stream, layout, number)
        apply_transform(flow, layout)
    stream.faults = None
    while not drain_once(SOURCE, stream, layout).caught_up:
        pass
    apply_transform(flow, layout)
    assert event_ids(layout) == ids(stream.changes)


def test_a_stream_that_stays_unreadable_ends_a_run_of_a_transform(layout: Layout) -> None:
    stream = ScriptedStream(
        faults=FaultPlan([Fault("GetRecords", FaultKind.INTERNAL_ERROR, times=None)])
    )
    stream.put(order(1, "placed", 1))
    with pytest.raises(SourceError, match="InternalServerError in GetRecords"):
        run_transform(flow, stream, layout.uri)


def heads(layout: Layout) -> dict[str, int]:
    """Return the latest batch in each kind of table."""
    saved = CheckpointTable(layout, SOURCE.name).open()
    unapplied = backlog(SOURCE.name, "current", layout)
    return {
        "change log": unapplied.head_batch,
        "checkpoint": 0 if saved is None else saved.checkpoint.batch,
        "dataset": unapplied.position,
    }


@pytest.mark.parametrize(("fails", "committed"), [(commit_fails, 0), (answer_lost, 1)])
@pytest.mark.parametrize("to", ["change log", "checkpoint", "dataset"])
def test_a_failed_commit_stores_nothing_and_a_lost_answer_everything(
    layout: Layout, fails: Any, committed: int, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_update, "POSITIONS_SAVED_EVERY", timedelta(0))
    stream = ScriptedStream()

    def write_and_run(number: int) -> None:
        stream.put(order(1, "placed", number))
        drain_once(SOURCE, stream, layout)
        apply_transform(flow, layout)

    write_and_run(0)
    before = heads(layout)
    with fails(to), pytest.raises(StorageError, match=f"Scripted: .*{to}") as found:
        write_and_run(1)
    assert found.value.safe
    assert heads(layout)[to] == before[to] + committed
    write_and_run(2)
    assert len(set(heads(layout).values())) == 1
    assert event_ids(layout) == ids(stream.changes)


def test_the_second_commit_can_be_the_one_that_fails(layout: Layout) -> None:
    stream = ScriptedStream()
    with commit_fails("change log", nth=2):
        stream.put(order(1, "placed", 1))
        drain_once(SOURCE, stream, layout)
        stream.put(order(1, "placed", 2))
        with pytest.raises(StorageError):
            drain_once(SOURCE, stream, layout)
        assert drain_once(SOURCE, stream, layout).batch == 2


def test_an_unknown_kind_of_table_is_refused() -> None:
    with (
        pytest.raises(DefinitionError, match="change log, checkpoint, dataset"),
        answer_lost(
            "tabel"  # type: ignore[arg-type]  # that is the point
        ),
    ):
        pass


def test_files_can_be_written_after_a_full_disk(tmp_path: Path) -> None:
    with full_disk(file_bytes=10):
        (tmp_path / "small").write_bytes(b"x" * 10)
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "large").write_bytes(b"x" * 11)
    (tmp_path / "large").write_bytes(b"x" * 11)


def test_a_directory_can_be_written_again_after_it_was_read_only(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True, mode=0o750)
    (below / "old").touch()
    try:
        with read_only(tmp_path / "a"):
            for act in ((below / "new").touch, (below / "old").unlink, (tmp_path / "a/c").mkdir):
                with pytest.raises(PermissionError):
                    act()
    except DefinitionError as error:
        pytest.skip(str(error))
    assert stat.S_IMODE(below.stat().st_mode) == 0o750
    (below / "old").unlink()
    below.rmdir()


def test_a_missing_directory_can_not_be_read_only(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="no directory"), read_only(tmp_path / "none"):
        pass
