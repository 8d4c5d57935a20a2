from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

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
