"""Lower bounds for the times of changes that are not read yet, by the lineage of shards. Pure.

A shard may be listed long after it was opened: after an outage, or if it is one of thousands. Its
first change is no older than the last one of its parents, and than the time up to which they had
been read while they were open.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, ShardState
from datazone_dagster.model.shard import Shard, parents_in


def opened_after(shard: Shard, known: Mapping[str, ShardCheckpoint], now: datetime) -> datetime:
    """Return a time before which a newly listed shard was not open.

    Args:
        shard: Shard that the first listing of its stream did not have.
        known: Rows of the stream by shard id, those of the same listing included.
        now: Time of the listing; the result where a parent is not known, or older than our start.
    """
    parents = [known.get(one) for one in parents_in(shard.parent_shard_id)]
    read = [
        one.read_through
        for one in parents
        if one is not None and one.state is not ShardState.TRIMMED_ANCESTOR
    ]
    return min(now, max(read)) if read and len(read) == len(parents) else now


def unread_since(row: ShardCheckpoint, checkpoint: Checkpoint) -> datetime:
    """Return a lower bound for the time of the first change of a shard that is not read.

    That of a shard which is read to its end is the time at which it was last known to be open: the
    first changes of its children are no older.
    """
    if row.sequence_number is not None or row.tip_at is not None:
        return row.read_through
    parents = (checkpoint.get(row.stream_arn, one) for one in parents_in(row.parent_shard_id))
    ours = [
        one for one in parents if one is not None and one.state is not ShardState.TRIMMED_ANCESTOR
    ]
    return max([row.unread_from, *(unread_since(one, checkpoint) for one in ours)])
