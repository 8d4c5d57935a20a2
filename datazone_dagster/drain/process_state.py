"""What a process keeps from one drain of a client to the next. All of it is a hint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from datazone_dagster.drain.polling import Activities
from datazone_dagster.drain.reader import IteratorCache
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.model.batch_size import PRESSURE_LOW, BatchSize, SizeLimits
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.process.memory import release_memory, resident_bytes, retain_freed_memory

SMALLEST_BATCH_BYTES = 2 << 20
BATCH_SHARE_OF_MEMORY = 8
"""A batch is no larger than this part of the memory budget: runs hold at least one of them."""

BATCH_SECONDS = 4.0
"""How long a batch should take where commits are cheap: what it holds is seen only then."""

CLEAN_UP_FIRST_SECONDS = 60.0
"""After the first drain of a process: when it deletes replaced files for the first time."""


@dataclass(slots=True)
class ProcessState:
    """What the next drain begins with.

    Args:
        size: How large a batch is to be.
        base_bytes: What the process held before its first drain.
        clean_up_at_seconds: When replaced files are deleted again.
        iterators: Where the last drain stands in each shard.
        activities: Which shards had records lately.
    """

    size: BatchSize
    base_bytes: int
    clean_up_at_seconds: float = field(
        default_factory=lambda: time.monotonic() + CLEAN_UP_FIRST_SECONDS
    )
    iterators: IteratorCache = field(default_factory=dict)
    activities: Activities = field(default_factory=dict)


_kept: WeakKeyDictionary[StreamClient, ProcessState] = WeakKeyDictionary()


def taken(client: StreamClient, settings: DrainSettings) -> ProcessState:
    """What the last drain left; the size stays even if this one does not go through.

    Only a drain that goes through leaves its iterators to the next one (`leave`): they stand
    behind everything that was read, also behind records that move no position.
    """
    limits = SizeLimits(
        smallest_bytes=SMALLEST_BATCH_BYTES,
        largest_bytes=max(SMALLEST_BATCH_BYTES, settings.memory_budget // BATCH_SHARE_OF_MEMORY),
        target_seconds=BATCH_SECONDS,
    )
    kept = _kept.pop(client, None)
    if kept is None or kept.size.limits != limits:
        retain_freed_memory()
        kept = ProcessState(BatchSize.first(limits), resident_bytes())
    _kept[client] = ProcessState(kept.size, kept.base_bytes, kept.clean_up_at_seconds)
    return kept


def leave(client: StreamClient, kept: ProcessState) -> None:
    """Leave all of it to the next drain."""
    _kept[client] = kept


def memory_pressure(kept: ProcessState, settings: DrainSettings) -> float:
    """Which share of the memory left to drains is in use."""
    left = max(settings.memory_budget - kept.base_bytes, settings.memory_budget // 4)

    def in_use() -> float:
        return max(0.0, (resident_bytes() - kept.base_bytes) / left)

    share = in_use()
    if share > PRESSURE_LOW:
        # Freed memory that the C library holds would make batches small for good.
        release_memory()
        share = in_use()
    return share
