"""Status of a source as its tables show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.model.checkpoint import GapNote
from datazone_dagster.model.log_reach import LogReach
from datazone_dagster.model.snapshot_report import SnapshotReport


@dataclass(frozen=True, slots=True)
class SetProgress:
    """Progress of a set of shards, by the tables alone.

    Args:
        name: Name of the set.
        shards: Number of its unfinished shards.
        last_batch: Last batch that it landed; 0: none.
        read_through: Time before which every change of its shards is landed, by what was recorded
            last; None without shards.
    """

    name: str
    shards: int
    last_batch: int
    read_through: datetime | None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What the change log and the checkpoint of a source show. Times are UTC.

    Args:
        source: Name of the source.
        head_batch: Number of the last batch.
        read_through: Time before which every change is landed or recorded as lost, by the last
            drain that recorded it; None before the first.
        drained_at: Latest time at which a drain is known to have worked: it read a shard to its
            latest position, or landed a batch. None if none is known.
        shards_open: Number of shards that are read.
        snapshot: The last snapshot; None if there never was one.
        gaps: Every gap, open or not.
        reach: How far back the change log reaches.
        sets: Sets of shards that drain runs read; empty where ticks drain.
    """

    source: str
    head_batch: int
    read_through: datetime | None
    drained_at: datetime | None
    shards_open: int
    snapshot: SnapshotReport | None
    gaps: tuple[GapNote, ...]
    reach: LogReach
    sets: tuple[SetProgress, ...] = ()
