"""A checkpoint that others save is read again in part, and always equals what is in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog import checkpoint_parts, checkpoints
from datazone_dagster.changelog.checkpoint_files import checkpoint_of, file_in, file_of
from datazone_dagster.changelog.checkpoint_rows import rows_of
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, ShardState
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Gap
from tests.examples import examples

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIMES = st.sampled_from([None, NOW, NOW.replace(year=2027)])
NOTE = GapNote(Gap("arn", "a", "lost"), NOW)
ROWS = st.lists(
    st.builds(
        ShardCheckpoint,
        st.just("arn"),
        st.sampled_from("abcdef"),
        st.just(NOW),
        st.sampled_from([None, "a"]),
        st.sampled_from(ShardState),
        st.sampled_from([None, 1, 10**39]),
        TIMES,
        TIMES,
        TIMES,
        st.sampled_from([None, NOTE, replace(NOTE, accepted_at=NOW, accepted_by="me")]),
    ),
    unique_by=lambda row: row.shard_id,
)


def by_key(rows: list[ShardCheckpoint]) -> Mapping[tuple[str, str], ShardCheckpoint]:
    return {(row.stream_arn, row.shard_id): row for row in rows}


def own_gap(row: ShardCheckpoint) -> ShardCheckpoint:
    """Return a row whose gap is of its own shard."""
    gap = row.gap and replace(row.gap, gap=replace(row.gap.gap, shard_id=row.shard_id))
    return replace(row, gap=gap)


@settings(max_examples=examples(60), deadline=None)
@given(ROWS, ROWS)
def test_a_file_after_another_has_its_rows_in_its_order(
    before: list[ShardCheckpoint], after: list[ShardCheckpoint]
) -> None:
    before, after = list(map(own_gap, before)), list(map(own_gap, after))
    first = Checkpoint(1, 1, "arn", by_key(before))
    second = Checkpoint(2, 3, "arn", by_key(after))
    known = file_of(first.shards, first, rows_of(first, before))
    file = file_in(rows_of(second, after), [known])
    assert list(file.rows.items()) == list(second.shards.items())
    if after:
        assert checkpoint_of([file]) == second
    kept = {key for key, row in second.shards.items() if first.shards.get(key) == row}
    if not known.is_done:
        assert all(file.rows[key] is known.rows[key] for key in kept)


def test_of_what_another_process_saved_only_what_moved_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_parts, "FEW_ROWS", 4)
    rows = [ShardCheckpoint("arn", f"d{n}", NOW, state=ShardState.FINISHED) for n in range(40)]
    rows += [ShardCheckpoint("arn", f"r{n}", NOW) for n in range(9)]
    other = CheckpointTable(Layout(str(tmp_path), {"timeout": "30s"}), "orders")
    own = CheckpointTable(Layout(str(tmp_path)), "orders")
    assert own.table is not other.table
    other.open_or_create().save(Checkpoint(1, 1, "arn", by_key(rows)))
    first = own.open_or_create().checkpoint

    read: list[str] = []
    real = checkpoints._rows_in

    def rows_in(table: KeptTable, file: LiveFile) -> pa.Table:
        read.append(file.path)
        return real(table, file)

    monkeypatch.setattr(checkpoints, "_rows_in", rows_in)
    moved = replace(rows[-1], sequence_number=7)
    others = other.open_or_create()
    others.save_changes(replace(others.checkpoint.with_shards(moved), batch=2))
    read.clear()
    second = own.open_or_create().checkpoint
    assert len(read) == 1
    assert second == others.checkpoint
    same = [key for key, row in second.shards.items() if row is first.shards[key]]
    assert len(same) == len(rows) - 1
