"""Parts of a drain, where several processes drain one source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from datazone_dagster.model.shard_set import ShardSet


@dataclass(frozen=True)
class SetPart:
    """Part of a drain run: the shards of a set.

    Args:
        shards: The set.
        is_first: Whether the table of the client is compared with that of the change log first.
    """

    shards: ShardSet
    is_first: bool = False


@dataclass(frozen=True)
class StreamPart:
    """Part of the sensor, where drain runs read the shards.

    Args:
        sets: Number of sets.
        read_at: Time at which a set was last read to the latest positions, by the name of the sets
            that have a run; None: not since the run began.
        reported_batch: Last batch that the sensor has reported; None: it has reported none yet.
        run_since: Time at which the run of a set was requested, or the first one of those in a row
            that never began, by the name of the set.
        unknown_shards: Shards that the service did not know when a run read them.
        shard_errors: Shards that a run could not read last, and why; the first few of each.
        between_runs: Names of sets whose run has just ended as planned: they get the next one.
    """

    sets: int
    read_at: Mapping[str, datetime | None] = field(default_factory=dict)
    reported_batch: int | None = None
    run_since: Mapping[str, datetime] = field(default_factory=dict)
    unknown_shards: frozenset[str] = frozenset()
    shard_errors: tuple[tuple[str, str], ...] = ()
    between_runs: frozenset[str] = frozenset()


DrainPart = SetPart | StreamPart
