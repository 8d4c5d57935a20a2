"""Changes that a table did not send to its Kinesis stream: a gap while it lasts. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, with_gap
from datazone_dagster.model.report import Gap
from datazone_dagster.model.shard import StreamDescription

REASON = (
    "the table does not send its changes to the Kinesis stream; changes made meanwhile were "
    "recorded nowhere"
)

RESUMED = "the table sends its changes again since the end of the gap"
"""Reason that is added once the destination is seen on again: the gap does not grow any more."""

EXTENDED_EVERY = timedelta(minutes=10)
"""Interval at which the end of the gap is moved on: each time is a commit."""


def with_unsent(checkpoint: Checkpoint, stream: StreamDescription, now: datetime) -> Checkpoint:
    """Return the checkpoint with a gap on one open shard, if the stream is not sent to.

    Its end is moved on once more when the stream is sent to again: a snapshot that began before
    then does not repair it, nor one that has closed it meanwhile.
    """
    if stream.is_ordered:
        return checkpoint
    rows = checkpoint.of_stream(stream.stream_arn)
    if stream.enabled:
        return checkpoint.with_shards(*(_ended(row, now) for row in rows if _grows(row)))
    open_ids = sorted(shard.shard_id for shard in stream.shards if shard.is_open)
    row = checkpoint.get(stream.stream_arn, open_ids[0]) if open_ids else None
    if row is None:
        return checkpoint
    growing = row.gap.gap if row.gap is not None and row.gap.is_open and _grows(row) else None
    until = growing.until if growing is not None else None
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
    return checkpoint.with_shards(with_gap(_with_reason_to_grow(row), gap, now))


def _grows(row: ShardCheckpoint) -> bool:
    """Return whether the last gap of a shard is of a destination that was off when last seen."""
    return row.gap is not None and REASON in row.gap.gap.reason and not _is_resumed(row.gap)


def _is_resumed(note: GapNote) -> bool:
    return RESUMED in note.gap.reason


def _ended(row: ShardCheckpoint, now: datetime) -> ShardCheckpoint:
    """Return a shard whose gap grows with its end; what closed it before does not count."""
    note = row.gap
    assert note is not None, "it grows"
    gap = replace(note.gap, reason=f"{note.gap.reason}; {RESUMED}", until=now)
    if note.is_open:
        return replace(row, gap=replace(note, gap=gap))
    return replace(row, gap=GapNote(replace(gap, since=note.gap.until), now))


def _with_reason_to_grow(row: ShardCheckpoint) -> ShardCheckpoint:
    """Return the shard, whose open gap grows again."""
    if row.gap is None or not _is_resumed(row.gap):
        return row
    gap = replace(row.gap.gap, reason=row.gap.gap.reason.replace(f"; {RESUMED}", ""))
    return replace(row, gap=replace(row.gap, gap=gap))
