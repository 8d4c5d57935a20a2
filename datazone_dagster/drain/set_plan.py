"""Plan of a drain of one set of shards: the checkpoint tells all, and nothing is listed. Pure."""

from __future__ import annotations

from datetime import datetime

from datazone_dagster.drain.plan import DrainPlan, ShardRead, parent_is_done, start_of
from datazone_dagster.drain.unread_times import unread_since
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.shard_set import ShardSet


def stream_of_checkpoint(checkpoint: Checkpoint) -> StreamDescription:
    """Return the stream that is read, with no shard listed."""
    return StreamDescription(checkpoint.stream_arn, view_type="", enabled=True, shards=())


def plan_set(checkpoint: Checkpoint, shards: ShardSet, now: datetime) -> DrainPlan:
    """Plan a drain of the shards of a set that are in the checkpoint.

    Whoever has finished their parents: the checkpoint says so only after the commit of their last
    records. A shard that the service does not know counts as failing: whether it is gone is for
    the sensor to say, which has the listing.

    Args:
        checkpoint: Checkpoint of everything landed so far, by every set.
        shards: The set.
        now: Start of the drain by the clock of the service.
    """
    stream = stream_of_checkpoint(checkpoint)
    rows = [
        row
        for row in checkpoint.of_stream(checkpoint.stream_arn)
        if not row.is_done and shards.has(row.shard_id)
    ]
    ready = [row for row in rows if parent_is_done(row, checkpoint)]
    return DrainPlan(
        checkpoint=checkpoint,
        reads=tuple(
            ShardRead(
                row,
                start_of(row, stream, now),
                closed=False,
                listed_open=True,
                unread_since=unread_since(row, checkpoint) if row.sequence_number is None else None,
            )
            for row in ready
        ),
        waiting=len(rows) - len(ready),
        shards_open=len(ready),
    )
