"""Shards that leave the checkpoint: nothing needs them any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.service_limits import RETENTION
from datazone_dagster.model.shard import Shard, StreamDescription, parents_in_all

FEW_SHARDS = 1_000
"""Rows of a checkpoint that is looked through each time."""


def parents_of(shards: Iterable[Shard | ShardCheckpoint]) -> set[str]:
    """Return the ids of the parents of these shards."""
    return parents_in_all([shard.parent_shard_id for shard in shards])


def pruned(checkpoint: Checkpoint, stream: StreamDescription, *, now: datetime) -> Checkpoint:
    """Return the checkpoint without shards that are done, unlisted, childless and two days old.

    Of many shards some are always two days old: they leave together, a twentieth at a time.
    """
    before = now - 2 * RETENTION
    rows = checkpoint.shards
    old = {
        key
        for key, row in rows.items()
        if row.read_through <= before and row.is_done and row.gap is None
    }
    if not old or (len(rows) > FEW_SHARDS and len(old) < len(rows) // 20):
        return checkpoint
    needed = {shard.shard_id for shard in stream.shards}
    needed |= parents_of(stream.shards) | parents_of(checkpoint.unfinished)
    remaining = {key: row for key, row in rows.items() if key not in old or row.shard_id in needed}
    return replace(checkpoint, shards=remaining)
