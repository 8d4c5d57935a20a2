"""The shards that a drain has left unfinished, and their parents, for a picture. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.shard_tree import NodeState, ShardNode


def shard_nodes(
    stream: StreamDescription,
    reached: Checkpoint,
    *,
    ready: Collection[str],
    failing: Collection[str],
) -> tuple[ShardNode, ...]:
    """Return the unfinished shards and their parents, by their ids, which begin with their time.

    Args:
        stream: Stream as listed.
        reached: Checkpoint after the drain.
        ready: Ids of the shards whose parents were finished.
        failing: Ids of the shards that could not be read.
    """
    rows = {row.shard_id: row for row in reached.of_stream(stream.stream_arn)}
    shown = {
        name
        for name, row in rows.items()
        if not row.is_done or (row.gap is not None and row.gap.is_open)
    }
    shown |= {parent for name in shown if (parent := rows[name].parent_shard_id) in rows}
    listed_open = {shard.shard_id for shard in stream.shards if shard.is_open}
    return tuple(
        ShardNode(
            name,
            parent if (parent := rows[name].parent_shard_id) in shown else None,
            _state(rows, name, ready, failing, listed_open),
        )
        for name in sorted(shown)
    )


def _state(
    rows: Mapping[str, ShardCheckpoint],
    name: str,
    ready: Collection[str],
    failing: Collection[str],
    listed_open: Collection[str],
) -> NodeState:
    row = rows[name]
    if row.gap is not None and row.gap.is_open:
        return "gap"
    if row.is_done:
        return "finished"
    if name in failing:
        return "failing"
    parent = rows.get(row.parent_shard_id or "")
    if name not in ready and parent is not None and not parent.is_done:
        return "waiting"
    return "open" if name in listed_open else "ending"
