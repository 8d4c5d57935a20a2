"""Changes that a table did not send to its Kinesis stream: a gap while it lasts. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from datazone_dagster.model.checkpoint import Checkpoint, with_gap
from datazone_dagster.model.report import Gap
from datazone_dagster.model.shard import StreamDescription

REASON = (
    "the table does not send its changes to the Kinesis stream; changes made meanwhile were "
    "recorded nowhere"
)

EXTENDED_EVERY = timedelta(minutes=10)
"""Interval at which the end of the gap is moved on: each time is a commit."""


def with_unsent(checkpoint: Checkpoint, stream: StreamDescription, now: datetime) -> Checkpoint:
    """Return the checkpoint with a gap on one open shard, if the stream is not sent to."""
    open_ids = sorted(shard.shard_id for shard in stream.shards if shard.is_open)
    row = checkpoint.get(stream.stream_arn, open_ids[0]) if open_ids else None
    if stream.is_ordered or stream.enabled or row is None:
        return checkpoint
    known = row.gap.gap if row.gap is not None and row.gap.is_open else None
    until = known.until if known is not None and REASON in known.reason else None
    if until is not None and now - until < EXTENDED_EVERY:
        return checkpoint
    gap = Gap(
        stream.stream_arn,
        row.shard_id,
        REASON,
        after_sequence_number=row.sequence_number,
        since=row.read_through,
        until=now,
    )
    return checkpoint.with_shards(with_gap(row, gap, now))
