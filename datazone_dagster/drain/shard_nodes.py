"""The shards that a drain has left unfinished, and their parents, for a picture. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.shard import StreamDescription, parents_in
from datazone_dagster.model.shard_tree import NodeState, ShardNode

PARENTS_SHOWN = 200
"""Unfinished shards whose parents are shown as well."""


def shard_nodes(
    stream: StreamDescription,
    reached: Checkpoint,
    *,
    ready: Collection[str],
    failing: Collection[str],
) -> tuple[ShardNode, ...]:
    """Return the unfinished shards and their parents, by their ids, which begin with their time.

    The parents of many shards are left out: the picture has no room for them.

    Args:
        stream: Stream as listed.
        reached: Checkpoint after the drain.
        ready: Ids of the shards whose parents were finished.
        failing: Ids of the shards that could not be read.
    """
    known = reached.rows_of_stream(stream.stream_arn)
    rows = known.rows
    shown = {*known.unfinished}
    shown |= {name for name, row in known.noted.items() if row.gap is not None and row.gap.is_open}
    if len(shown) <= PARENTS_SHOWN:
        shown |= {
            parent
            for name in shown
            for parent in parents_in(rows[name].parent_shard_id)
            if parent in rows
        }
    parents = {name: parents_in(rows[name].parent_shard_id) for name in shown}
    return tuple(
        ShardNode(
            name,
            next((parent for parent in parents[name] if parent in shown), None),
            _state(rows, name, ready, failing, stream.open_ids),
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
    unread = [one for one in parents_in(row.parent_shard_id) if one in rows]
    if name not in ready and not all(rows[one].is_done for one in unread):
        return "waiting"
    return "open" if name in listed_open else "ending"
