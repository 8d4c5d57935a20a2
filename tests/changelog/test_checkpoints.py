from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog import checkpoint_parts, checkpoints
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, ShardState
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Gap
from tests.examples import examples

TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(timezone.utc))
NUMBERS = st.integers(0, 10**40 - 1)
GAPS = st.builds(
    GapNote,
    st.builds(
        Gap,
        st.just("arn"),
        st.just("s"),
        st.text(min_size=1, max_size=9),
        st.none() | NUMBERS,
        st.none() | TIMES,
        st.none() | TIMES,
    ),
    TIMES,
    st.none() | st.text(max_size=5),
    st.none() | TIMES,
    st.none() | st.text(max_size=5),
)
SHARDS = st.builds(
    ShardCheckpoint,
    st.just("arn"),
    st.just("s"),
    TIMES,
    st.none() | st.text(max_size=9),
    st.sampled_from(ShardState),
    st.none() | NUMBERS,
    st.none() | TIMES,
    st.none() | TIMES,
    st.none() | TIMES,
    st.none() | GAPS,
)


def checkpoints_in(root: Path) -> CheckpointTable:
    return CheckpointTable(Layout(str(root)), "orders")


@settings(max_examples=examples(15), deadline=None)
@given(SHARDS, st.integers(0, 2**60), st.integers(1, 10**6))
def test_a_saved_checkpoint_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, row: ShardCheckpoint, batch: int, epoch: int
) -> None:
    root = tmp_path_factory.mktemp("checkpoint")
    checkpoint = Checkpoint(batch, epoch, "arn", {("arn", "s"): row})
    checkpoints_in(root).open_or_create().save(checkpoint)
    saved = checkpoints_in(root).open()
    assert saved is not None
    assert saved.checkpoint == checkpoint


def test_saving_replaces_all_rows_and_a_stale_snapshot_loses_the_race(tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=timezone.utc)
    rows = {("arn", name): ShardCheckpoint("arn", name, now) for name in "ab"}
    one = checkpoints_in(tmp_path).open_or_create()
    other = checkpoints_in(tmp_path).open_or_create()
    one.save(Checkpoint(1, 1, "arn", rows))
    with pytest.raises(ConcurrentWriterError):
        other.save(Checkpoint(2, 1, "arn", {("arn", "a"): rows["arn", "a"]}))
    one.save(Checkpoint(3, 1, "arn", rows))
    assert len(DeltaTable(tmp_path / "_checkpoints" / "orders").to_pyarrow_table()) == 2


def test_a_drain_whose_checkpoint_is_not_the_newest_is_told(tmp_path: Path) -> None:
    one = checkpoints_in(tmp_path).open_or_create()
    one.save(Checkpoint(1, 1, "arn", {}))
    one.require_newest()
    other = checkpoints_in(tmp_path).open_or_create()
    other.save(Checkpoint(2, 1, "arn", {}))
    other.require_newest()
    with pytest.raises(ConcurrentWriterError, match="saved the checkpoint"):
        one.require_newest()
    with pytest.raises(ConcurrentWriterError):
        one.save(Checkpoint(1, 1, "arn", {}))


NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def large(root: Path, done: int, reading: int) -> Checkpoint:
    """Save and return a checkpoint of many finished shards."""
    rows = [
        ShardCheckpoint("arn", f"d{number}", NOW, state=ShardState.FINISHED)
        for number in range(done)
    ]
    rows += [ShardCheckpoint("arn", f"r{number}", NOW) for number in range(reading)]
    checkpoint = Checkpoint(1, 1, "arn").with_shards(*rows)
    checkpoints_in(root).open_or_create().save(checkpoint)
    return checkpoint


def files(root: Path) -> set[str]:
    return set(DeltaTable(root / "_checkpoints" / "orders").file_uris())


def read_anew(root: Path) -> Checkpoint:
    """Read as a process does that has not saved."""
    checkpoints_in(root).table.forget()
    checkpoints._files.clear()
    found = checkpoints_in(root).open()
    assert found is not None
    return found.checkpoint


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_rows_of_finished_shards_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: bool
) -> None:
    monkeypatch.setattr(checkpoint_parts, "FEW_ROWS", 4)
    checkpoint = large(tmp_path, 40, 3)
    before = files(tmp_path)
    assert len(before) == 2
    for number in range(1, 5):  # moved positions, and one more finished shard each time
        row = replace(checkpoint.shards["arn", "r0"], sequence_number=number)
        ended = ShardCheckpoint("arn", f"e{number}", NOW, state=ShardState.FINISHED)
        checkpoint = replace(checkpoint.with_shards(row, ended), batch=1 + number)
        if forgotten:
            assert read_anew(tmp_path).batch == number
        checkpoints_in(tmp_path).open_or_create().save(checkpoint)
        assert len(files(tmp_path)) == 2
        assert len(files(tmp_path) & before) == 1
        assert read_anew(tmp_path) == checkpoint
    more = [ShardCheckpoint("arn", f"m{n}", NOW, state=ShardState.FINISHED) for n in range(9)]
    checkpoint = checkpoint.with_shards(*more)
    checkpoints_in(tmp_path).open_or_create().save(checkpoint)
    assert not files(tmp_path) & before, "they go to the file of the others"
    assert read_anew(tmp_path) == checkpoint


GAP = GapNote(Gap("arn", "d0", "lost"), NOW)
CHANGES: dict[str, Callable[[Checkpoint], Checkpoint]] = {
    "a gap": lambda one: one.with_shards(replace(one.shards["arn", "d0"], gap=GAP)),
    "an epoch": lambda one: replace(one, epoch=2),
    "a stream": lambda one: replace(one, stream_arn="other"),
    "a shard left": lambda one: replace(
        one, shards={key: row for key, row in one.shards.items() if key[1] != "d7"}
    ),
    "nothing is read": lambda one: replace(
        one, shards={key: row for key, row in one.shards.items() if key[1][0] == "d"}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_finished_shards_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(checkpoint_parts, "FEW_ROWS", 4)
    checkpoint = large(tmp_path, 40, 3)
    before = files(tmp_path)
    changed = replace(CHANGES[change](checkpoint), batch=2)
    checkpoints_in(tmp_path).open_or_create().save(changed)
    assert not files(tmp_path) & before
    assert read_anew(tmp_path) == changed


def test_a_second_save_by_one_plan_keeps_what_the_first_was_merged_with(tmp_path: Path) -> None:
    rows = [ShardCheckpoint("arn", name, NOW, sequence_number=10) for name in "abc"]
    planned = Checkpoint(1, 1, "arn").with_shards(*rows)
    checkpoints_in(tmp_path).open_or_create().save(planned)
    mine, other = checkpoints_in(tmp_path).open_or_create(), checkpoints_in(tmp_path).open()
    assert other is not None
    others = (
        replace(rows[1], sequence_number=50, state=ShardState.FINISHED),
        replace(rows[2], sequence_number=99, gap=GapNote(Gap("arn", "c", "lost"), NOW)),
        ShardCheckpoint("arn", "d", NOW, "b"),
    )
    other.save_changes(planned.with_shards(*others))
    with_gap = replace(rows[0], gap=GapNote(Gap("arn", "a", "lost"), NOW))
    mine.save_changes(planned.with_shards(with_gap))
    accepted = replace(
        with_gap, gap=replace(GapNote(Gap("arn", "a", "lost"), NOW), accepted_at=NOW)
    )
    last = checkpoints_in(tmp_path).open()
    assert last is not None
    last.save_changes(last.checkpoint.with_shards(accepted))
    mine.save_changes(planned.with_shards(replace(with_gap, sequence_number=70)))
    expected = planned.with_shards(*others, replace(accepted, sequence_number=70))
    assert read_anew(tmp_path) == expected
