"""Shards of a stream as a drain left them, with their parents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NodeState = Literal["open", "ending", "waiting", "failing", "gap", "finished"]


@dataclass(frozen=True, slots=True)
class ShardNode:
    """One shard.

    Args:
        shard_id: Its id.
        parent_id: Id of its parent, or of one of two; None if it has none, or none that is known.
        state: `open` can grow, `ending` is closed and read to its end, `waiting` is read after its
            parent's end, `failing` could not be read, `gap` has lost changes that nobody accepted,
            `finished` is read completely.
    """

    shard_id: str
    parent_id: str | None
    state: NodeState
