"""Switches of a source to another kind of stream, or to another stream of Kinesis. Pure.

The client of the new stream can't read the old one, so its unread rest is a gap at once. A stream
that comes back after that has another name in our tables, as one that was made again: with its own
shards, positions and epoch. Its old shards stay done, and no position of them is used again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from datazone_dagster.drain.restarts import replaced_reason
from datazone_dagster.drain.unread_times import unread_since
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, ShardState, with_gap
from datazone_dagster.model.report import Gap
from datazone_dagster.model.shard import is_kinesis, is_switch, next_restart

SKIP_MARGIN = timedelta(seconds=60)
"""Time before the end of what was drained from which on Kinesis is read again after a switch."""


def name_after_switch(checkpoint: Checkpoint, stream_arn: str) -> str:
    """Return our name of the stream to read: a new one if another was read since."""
    last = checkpoint.stream_arn
    came_back = bool(last) and is_switch(last, stream_arn) and checkpoint.of_stream(stream_arn)
    return next_restart(stream_arn) if came_back else stream_arn


def ended_by_switch(checkpoint: Checkpoint, new_arn: str, now: datetime) -> Checkpoint:
    """Return the checkpoint with the shards of the streams read before ended, as gaps.

    The gaps end now, not when the new stream was made: a snapshot from before now does not show
    what was lost.
    """
    ended = []
    for row in checkpoint.shards.values():
        if row.is_done or not is_switch(row.stream_arn, new_arn):
            continue
        gap = Gap(
            row.stream_arn,
            row.shard_id,
            replaced_reason(row.stream_arn, new_arn),
            after_sequence_number=row.sequence_number,
            since=unread_since(row, checkpoint),
            until=now,
        )
        ended.append(replace(with_gap(row, gap, now), state=ShardState.FINISHED))
    return checkpoint.with_shards(*ended)


def landed_before_switch(checkpoint: Checkpoint, new_arn: str) -> datetime | None:
    """Return the time before which a stream of Kinesis is not read; None: there is no such.

    The table's own stream has every change, in order. What it landed is final: read again from
    Kinesis with a new epoch, an old change would win against a newer one that Kinesis failed to
    get. The time is no later than the last change that landed, as the stream may have been disabled
    after it, and no later than the start of an open gap, which Kinesis may fill.

    Args:
        checkpoint: Checkpoint before the switch.
        new_arn: Stream that is switched to.
    """
    old_arn = checkpoint.stream_arn
    rows = checkpoint.of_stream(old_arn)
    unread = [unread_since(row, checkpoint) for row in rows if not row.is_done]
    landed = [row.event_time for row in rows if row.event_time is not None]
    lost = [row.gap.gap.since for row in rows if row.gap is not None and row.gap.is_open]
    if is_kinesis(old_arn) or not is_kinesis(new_arn) or not unread or not landed:
        return None
    known = [since for since in lost if since is not None]
    if len(known) < len(lost):
        return None
    return min([max(landed), *unread, *known]) - SKIP_MARGIN


def skipping(rows: Iterable[ShardCheckpoint], before: datetime | None) -> list[ShardCheckpoint]:
    """Return the rows of a new stream, of which changes older than this time are skipped."""
    return [row if before is None else replace(row, skip_before=before) for row in rows]
