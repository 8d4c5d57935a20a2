"""States of the sets of shards of a source, as its sensor sees them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SetState:
    """State of one set of shards.

    Args:
        name: Name of the set, such as `2-of-4`.
        shards: Number of its unfinished shards.
        last_batch: Last batch that it landed; 0: none.
        has_run: Whether a run reads it, or is queued or starting.
        read_at: Time at which its run has last read all shards to their latest position; None: not
            since it began.
        run_since: Time at which its run was requested; None: it has none, or that is not known.
        unread_since: Time of its first unread change, a lower bound; None: no shard can be read.
        is_between_runs: Whether it has no run, and the last one has just ended as planned.
    """

    name: str
    shards: int
    last_batch: int
    has_run: bool
    read_at: datetime | None
    run_since: datetime | None = None
    unread_since: datetime | None = None
    is_between_runs: bool = False


@dataclass(frozen=True, slots=True)
class KnownSets:
    """Sets of a source whose shards can't be listed now, and the last batch of its change log."""

    sets: tuple[SetState, ...] = ()
    head_batch: int = 0
