"""Outcome of reading one shard in a drain. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.errors import SourceError
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.report import Gap


@dataclass(slots=True)
class ShardOutcome:
    """Facts about what one drain read of a shard; the records themselves went to the sink."""

    row: ShardCheckpoint
    records: int = 0
    record_bytes: int = 0
    malformed: int = 0
    created_from_seconds: int | None = None
    created_to_seconds: int | None = None
    sequence_number: int | None = None
    event_time_seconds: int | None = None
    ended: bool = False
    at_latest: bool = False
    calls: int = 0
    body_bytes: int = 0
    error: SourceError | None = None
    gap: Gap | None = None
