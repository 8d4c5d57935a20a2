"""Positions are in the commits of batches: no row is read to find them, and none is lost."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.landed_notes import landed_in, note_of
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table_state import forget
from datazone_dagster.model.checkpoint import Landed
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import drain_once
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, ScriptedStream, crash_at
from tests.changelog.test_change_log import ARN, log_in, shard

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1", start="trim_horizon")
NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)

POSITIONS = st.builds(
    Landed,
    st.sampled_from(["arn:1", "arn:2"]),
    st.text(max_size=5),
    st.none() | st.text(max_size=5),
    st.integers(1, 9),
    st.integers(0, 10**40),
    st.none() | st.datetimes(timezones=st.just(timezone.utc)),
)


@given(st.lists(st.lists(POSITIONS, max_size=3), max_size=4))
def test_notes_return_what_they_were_made_of(batches: list[list[Landed]]) -> None:
    notes = [note_of(number, landed) for number, landed in enumerate(batches, 1)]
    for start in range(len(batches) + 1):
        expected = [one for landed in batches[start:] for one in landed]
        assert landed_in(notes, start, len(batches)) == expected
    assert landed_in(notes, 0, len(batches) + 1) is None
    assert landed_in([{"other": 1}], 0, 0) == []


def without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no Parquet file be opened, except Delta checkpoints."""

    def refuse(self: TableStore, path: str, size_bytes: int | None = None) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(TableStore, "open", refuse)


def positions(log: ChangeLogSnapshot, after: int) -> list[tuple[str, int | None]]:
    return [(one.shard_id, one.sequence_number) for one in log.landed_since(after)]


def test_a_new_process_has_the_positions_from_the_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = Landed(ARN, "s", None, 1, 10**22 + 9, NOW)
    with log_in(tmp_path).begin(1) as writer:
        writer.put(shard(1, 2))
        writer.commit([reached])
    forget(str(tmp_path / "_changelog" / "orders"))
    without_reading(monkeypatch)
    assert log_in(tmp_path).landed_since(0) == [reached]


def test_without_a_note_the_rows_tell(tmp_path: Path) -> None:
    """As from an earlier version of the library, or where the entry is gone."""
    log_in(tmp_path).append(1, [shard(1, 2), shard(3, name="t")])
    with log_in(tmp_path).begin(1) as writer:
        writer.put(shard(4))
        writer.commit([Landed(ARN, "s", None, 1, 10**22 + 4, NOW)])
    found = dict(sorted(positions(log_in(tmp_path), 0)))
    assert found == {"s": 10**22 + 4, "t": 10**22 + 3}
    assert positions(log_in(tmp_path), 1) == [("s", 10**22 + 4)]


def saves(layout: Layout) -> int:
    saved = CheckpointTable(layout, SOURCE.name).table.now()
    return 0 if saved is None else saved.transaction(f"drain/{SOURCE.name}")


def test_positions_alone_are_saved_now_and_then_and_never_when_idle(tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream(shards=2)
    times = iter(range(1000))
    began = datetime.now(timezone.utc)

    def tick(seconds: int) -> None:
        drain_once(SOURCE, stream, layout, clock=lambda: began + timedelta(seconds=seconds))

    def put() -> None:
        stream.put({"id": {"S": f"k{next(times)}"}})

    put()
    tick(0)
    first = saves(layout)
    assert first
    for seconds in range(5, 40, 5):
        put()
        tick(seconds)
        tick(seconds + 1)
    settled = saves(layout)
    assert settled - first <= 1  # the other shard was read to its latest position for once
    put()
    tick(120)
    assert saves(layout) == settled + 1


def test_a_batch_landed_before_a_crash_moves_the_positions_of_the_next_process(
    tmp_path: Path,
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream(shards=1)
    stream.put({"id": {"S": "a"}})
    drain_once(SOURCE, stream, layout)
    for number in range(3):
        stream.put({"id": {"S": f"b{number}"}})
        with pytest.raises(Crash), crash_at(crash_points.AFTER_CHANGE_LOG_COMMIT):
            drain_once(SOURCE, stream, layout)
        for uri in (layout.change_log(SOURCE.name), layout.checkpoint(SOURCE.name)):
            forget(uri)
    drain_once(SOURCE, stream, layout)
    log = ChangeLog(layout, SOURCE).open_or_create()
    saved = CheckpointTable(layout, SOURCE.name).open_or_create()
    assert log.record_count() == 4
    (row,) = up_to_date(saved.checkpoint, log, NOW).shards.values()
    assert row.sequence_number == max(int(one.sequence_number) for one in stream.changes)
