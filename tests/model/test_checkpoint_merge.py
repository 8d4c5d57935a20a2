"""Merging checkpoints: the same in any order, and never behind either of the two."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, ShardState
from datazone_dagster.model.checkpoint_merge import merged, with_changes
from datazone_dagster.model.report import Gap

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIMES = st.integers(0, 4).map(lambda hours: START + timedelta(hours=hours))
STAGE = [ShardState.TRIMMED_ANCESTOR, ShardState.READING, ShardState.FINISHED]


@st.composite
def notes(draw: st.DrawFn, shard_id: str) -> GapNote:
    gap = Gap(
        "arn",
        shard_id,
        draw(st.sampled_from(["trimmed", "vanished", "trimmed; vanished"])),
        draw(st.none() | st.integers(0, 3)),
        draw(st.none() | TIMES),
        draw(st.none() | TIMES),
    )
    accepted = draw(st.none() | TIMES)
    return GapNote(gap, draw(TIMES), None if accepted is None else "me", accepted)


@st.composite
def rows(draw: st.DrawFn, shard_id: str) -> ShardCheckpoint:
    return ShardCheckpoint(
        "arn",
        shard_id,
        draw(TIMES),
        draw(st.none() | st.just("parent")),
        draw(st.sampled_from(STAGE)),
        draw(st.none() | st.integers(0, 5)),
        draw(st.none() | TIMES),
        draw(st.none() | TIMES),
        draw(st.none() | TIMES),
        draw(st.none() | notes(shard_id)),
    )


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    ids = draw(st.sets(st.sampled_from(["a", "b", "c"])))
    return Checkpoint(
        draw(st.integers(0, 5)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(["", "arn", "arn#2"])),
        {("arn", name): draw(rows(name)) for name in sorted(ids)},
    )


def rank(row: ShardCheckpoint) -> tuple[int, int]:
    return STAGE.index(row.state), -1 if row.sequence_number is None else row.sequence_number


@given(checkpoints(), checkpoints())
def test_the_order_of_two_does_not_matter(one: Checkpoint, other: Checkpoint) -> None:
    assert merged(one, other) == merged(other, one)


@given(checkpoints())
def test_a_checkpoint_merged_with_itself_is_itself(one: Checkpoint) -> None:
    assert merged(one, one) == one


@given(checkpoints(), checkpoints())
def test_the_result_is_behind_neither(one: Checkpoint, other: Checkpoint) -> None:
    both = merged(one, other)
    for part in (one, other):
        assert both.batch >= part.batch
        assert both.epoch >= part.epoch
        for key, row in part.shards.items():
            found = both.shards[key]
            assert rank(found)[0] >= rank(row)[0]
            assert rank(found)[1] >= rank(row)[1]
            assert row.tip_at is None or (found.tip_at is not None and found.tip_at >= row.tip_at)
            assert row.gap is None or found.gap is not None
    assert merged(both, one) == both or one.gap_notes()


@given(checkpoints(), checkpoints())
def test_a_gap_that_is_open_stays_open_unless_that_very_gap_was_accepted(
    one: Checkpoint, other: Checkpoint
) -> None:
    both = merged(one, other)
    for key, row in one.shards.items():
        if row.gap is None or not row.gap.is_open:
            continue
        found = both.shards[key].gap
        assert found is not None
        assert found.is_open or found.detected_at == row.gap.detected_at


@given(checkpoints(), checkpoints(), checkpoints())
def test_positions_and_states_of_three_are_the_same_in_any_order(
    one: Checkpoint, two: Checkpoint, three: Checkpoint
) -> None:
    def facts(found: Checkpoint) -> object:
        shards = {key: replace(row, gap=None) for key, row in found.shards.items()}
        return found.batch, found.epoch, shards

    assert facts(merged(merged(one, two), three)) == facts(merged(one, merged(two, three)))


def row(shard_id: str, number: int | None = None, **more: object) -> ShardCheckpoint:
    return ShardCheckpoint("arn", shard_id, START, sequence_number=number, **more)  # type: ignore[arg-type]  # fields


def of(*shards: ShardCheckpoint, batch: int = 1) -> Checkpoint:
    return Checkpoint(batch, 1, "arn", {("arn", one.shard_id): one for one in shards})


def test_a_process_saves_what_it_changed_and_brings_back_no_row_that_another_dropped() -> None:
    base = of(row("a", 1), row("b", 1), row("old", 9, state=ShardState.FINISHED))
    mine = base.with_shards(row("a", 5))
    newest = of(row("a", 1), row("b", 7), batch=4)
    assert with_changes(newest, base, mine) == of(row("a", 5), row("b", 7), batch=4)


def test_a_process_that_drops_a_row_does_not_keep_it_for_others() -> None:
    old = row("old", 9, state=ShardState.FINISHED)
    base = of(row("a", 1), old)
    newest = of(row("a", 3), old, batch=2)
    assert with_changes(newest, base, of(row("a", 1))) == of(row("a", 3), batch=2)
    moved = replace(old, tip_at=START)
    newest = of(row("a", 3), moved, batch=2)
    assert with_changes(newest, base, of(row("a", 1))) == newest
