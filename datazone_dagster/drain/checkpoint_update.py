"""Checkpoint after a drain: shard outcomes in, updated checkpoint out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.model.checkpoint import (
    LATEST_RECORDED_EVERY,
    Checkpoint,
    Landed,
    ShardCheckpoint,
    ShardState,
    with_gap,
)

POSITIONS_SAVED_EVERY = timedelta(minutes=1)
POSITIONS_SAVED_BATCHES = 20
"""Time and batches after which positions alone are saved."""


def updated_checkpoint(
    checkpoint: Checkpoint,
    outcomes: Sequence[ShardOutcome],
    now: datetime,
    read_at: datetime | None,
) -> Checkpoint:
    """Return the checkpoint after everything that was read is committed.

    Args:
        checkpoint: Checkpoint of the plan.
        outcomes: Outcomes of the planned shards.
        now: Start of the drain by the clock of the service: later changes may not have been read.
        read_at: Time up to which a shard that was read to its latest position is read; None: it is
            not known.
    """
    return checkpoint.with_shards(*(_updated_row(outcome, now, read_at) for outcome in outcomes))


def _updated_row(outcome: ShardOutcome, now: datetime, read_at: datetime | None) -> ShardCheckpoint:
    row, seconds = outcome.row, outcome.event_time_seconds
    # Not at its end, which may be read hours later: its children have changes of that time.
    tip_at = read_at if outcome.at_latest or outcome.vanished else None
    times = [time for time in (row.tip_at, tip_at) if time is not None]
    row = ShardCheckpoint(  # a stream may have ten thousand: `replace` takes five times as long
        row.stream_arn,
        row.shard_id,
        row.unread_from,
        row.parent_shard_id,
        ShardState.FINISHED if outcome.ended else row.state,
        outcome.sequence_number,
        row.event_time if seconds is None else datetime.fromtimestamp(seconds, timezone.utc),
        max(times, default=None),
        row.skip_before,
        row.gap,
    )
    return row if outcome.gap is None else with_gap(row, outcome.gap, now)


def moved_positions(reached: Checkpoint, outcomes: Sequence[ShardOutcome]) -> list[Landed]:
    """Return the positions of the shards that have moved, for the note of the commit.

    Args:
        reached: Checkpoint after everything that was read is committed.
        outcomes: Outcomes of the planned shards.
    """
    rows = (reached.shards[one.row.stream_arn, one.row.shard_id] for one in outcomes)
    return [
        Landed(
            row.stream_arn,
            row.shard_id,
            row.parent_shard_id,
            reached.epoch,
            row.sequence_number,
            row.event_time,
        )
        for row, outcome in zip(rows, outcomes, strict=True)
        if row.sequence_number is not None and row.sequence_number != outcome.row.sequence_number
    ]


def positions_due(
    saved: Checkpoint,
    current: Checkpoint,
    *,
    landed: bool,
    moved: bool,
    saved_at: datetime | None,
    now: datetime,
) -> bool:
    """Return whether positions alone are a reason to save the checkpoint.

    The commit of a batch notes the positions that it reaches, so they are saved now and then only:
    a new process reads the notes since the last save. Without a batch there is no note, so
    positions that have moved past skipped records are saved at once.

    Args:
        saved: Checkpoint as saved last.
        current: Checkpoint after the drain.
        landed: Whether the drain landed a batch.
        moved: Whether it moved a position.
        saved_at: Time of the last save; None if there was none.
        now: Time of the drain by the clock of this machine. Clocks may differ: a save in the future
            is no recent one.
    """
    if not landed:
        return moved
    if saved_at is None or current.batch - saved.batch >= POSITIONS_SAVED_BATCHES:
        return True
    return not timedelta(0) <= now - saved_at < POSITIONS_SAVED_EVERY


def is_worth_saving(
    saved: Checkpoint,
    current: Checkpoint,
    awaited: datetime | None = None,
    *,
    positions: bool = True,
) -> bool:
    """Return whether the checkpoint differs from the saved one in something that must be saved.

    Args:
        saved: Checkpoint as saved last.
        current: Checkpoint after the drain.
        awaited: Time that a snapshot or an audit waits for the drain to pass; None: none waits.
        positions: Whether positions alone are a reason: see `positions_due`.
    """
    if awaited is not None and not saved.has_passed(awaited) and current.has_passed(awaited):
        return True
    if replace(saved, shards={}, batch=0) != replace(current, shards={}, batch=0):
        return True
    if saved.shards.keys() != current.shards.keys():
        return True
    if positions and saved.batch != current.batch:
        return True
    return any(
        row is not saved.shards[key] and _differs(saved.shards[key], row, positions)
        for key, row in current.shards.items()
    )


def _differs(saved: ShardCheckpoint, current: ShardCheckpoint, positions: bool) -> bool:
    if positions:
        same = replace(saved, tip_at=current.tip_at)
    else:
        number, time = current.sequence_number, current.event_time
        same = replace(saved, tip_at=current.tip_at, sequence_number=number, event_time=time)
    if same != current:
        return True
    if saved.tip_at is None or current.tip_at is None:
        return saved.tip_at is not current.tip_at
    return current.tip_at - saved.tip_at >= LATEST_RECORDED_EVERY
