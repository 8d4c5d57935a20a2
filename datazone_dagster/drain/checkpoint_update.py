"""Checkpoint after a drain: shard outcomes in, updated checkpoint out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, ShardState, with_gap

LATEST_RECORDED_EVERY = timedelta(minutes=10)
"""Interval at which the checkpoint is written only to record idle shards as read to the latest."""


def updated_checkpoint(
    checkpoint: Checkpoint,
    outcomes: Sequence[ShardOutcome],
    now: datetime,
    served_at: datetime | None = None,
) -> Checkpoint:
    """Return the checkpoint after everything that was read is committed.

    Args:
        checkpoint: Checkpoint of the plan.
        outcomes: Outcomes of the planned shards.
        now: Start of the drain: later changes may not have been read.
        served_at: The same moment by the clock of the service, if known. The earlier of the two
            counts: a clock that is ahead must not claim changes that are still to come.
    """
    read_at = now if served_at is None else min(now, served_at)
    return checkpoint.with_shards(*(_updated_row(outcome, now, read_at) for outcome in outcomes))


def _updated_row(outcome: ShardOutcome, now: datetime, read_at: datetime) -> ShardCheckpoint:
    row = replace(outcome.row, sequence_number=outcome.sequence_number)
    if outcome.event_time_seconds is not None:
        row = replace(
            row, event_time=datetime.fromtimestamp(outcome.event_time_seconds, timezone.utc)
        )
    if outcome.at_latest or outcome.ended:
        row = replace(row, tip_at=max(read_at, row.tip_at or read_at))
    if outcome.gap is not None:
        row = with_gap(row, outcome.gap, now)
    if outcome.ended:
        row = replace(row, state=ShardState.FINISHED)
    return row


def is_worth_saving(
    saved: Checkpoint, current: Checkpoint, awaited: datetime | None = None
) -> bool:
    """Return whether the checkpoint differs from the saved one in something that must be saved.

    Args:
        saved: Checkpoint as saved last.
        current: Checkpoint after the drain.
        awaited: Time that a snapshot or an audit waits for the drain to pass; None: none waits.
    """
    if awaited is not None and not saved.has_passed(awaited) and current.has_passed(awaited):
        return True
    if replace(saved, shards={}) != replace(current, shards={}):
        return True
    if saved.shards.keys() != current.shards.keys():
        return True
    return any(_differs(saved.shards[key], row) for key, row in current.shards.items())


def _differs(saved: ShardCheckpoint, current: ShardCheckpoint) -> bool:
    if replace(saved, tip_at=None) != replace(current, tip_at=None):
        return True
    if saved.tip_at is None or current.tip_at is None:
        return saved.tip_at is not current.tip_at
    return current.tip_at - saved.tip_at >= LATEST_RECORDED_EVERY
