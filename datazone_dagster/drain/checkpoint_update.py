"""What a drain's outcomes make of the checkpoint. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.reader import ShardOutcome
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, ShardState, with_gap

TIP_NOTED_EVERY = timedelta(minutes=10)
"""How often the checkpoint is written only to say that idle shards were read to their tip."""


def updated_checkpoint(
    checkpoint: Checkpoint, outcomes: Sequence[ShardOutcome], now: datetime
) -> Checkpoint:
    """The checkpoint once everything that was read is committed.

    Args:
        checkpoint: The plan's.
        outcomes: What was read of each planned shard.
        now: When the drain began: what came later may not have been read.
    """
    return checkpoint.with_shards(*(_updated_row(outcome, now) for outcome in outcomes))


def _updated_row(outcome: ShardOutcome, now: datetime) -> ShardCheckpoint:
    row = replace(outcome.row, sequence_number=outcome.sequence_number)
    if outcome.event_time_seconds is not None:
        row = replace(
            row, event_time=datetime.fromtimestamp(outcome.event_time_seconds, timezone.utc)
        )
    if outcome.at_latest or outcome.ended:
        row = replace(row, tip_at=now)
    if outcome.gap is not None:
        row = with_gap(row, outcome.gap, now)
    if outcome.ended:
        row = replace(row, state=ShardState.FINISHED)
    return row


def is_worth_saving(saved: Checkpoint, current: Checkpoint) -> bool:
    """Whether the table would learn something that it has to know."""
    if replace(saved, shards={}) != replace(current, shards={}):
        return True
    if saved.shards.keys() != current.shards.keys():
        return True
    return any(_differs(saved.shards[place], row) for place, row in current.shards.items())


def _differs(saved: ShardCheckpoint, current: ShardCheckpoint) -> bool:
    if replace(saved, tip_at=None) != replace(current, tip_at=None):
        return True
    if saved.tip_at is None or current.tip_at is None:
        return saved.tip_at is not current.tip_at
    return current.tip_at - saved.tip_at >= TIP_NOTED_EVERY
