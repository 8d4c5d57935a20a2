"""State that a process caches from one drain of a client to the next. All of it is a hint."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from datazone_dagster.changelog.known_events import KnownEvents
from datazone_dagster.drain.polling import Activities
from datazone_dagster.drain.reader import IteratorCache
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.size_policy import (
    PRESSURE_LOW,
    BatchSize,
    batch_limits,
    batch_memory_share,
    known_changes,
    retains_freed_memory,
)
from datazone_dagster.process import container
from datazone_dagster.process.memory import (
    bound_arrow_threads,
    release_memory,
    resident_bytes,
    retain_freed_memory,
    return_freed_memory,
    reuse_arrow_memory,
)

CLEAN_UP_FIRST_SECONDS = 60.0
"""Time from a process's first drain to its first deletion of replaced files."""


@dataclass(slots=True)
class ProcessState:
    """State that the next drain begins with.

    Args:
        size: Size of the next batch.
        base_bytes: Resident memory of the process before its first drain.
        clean_up_at_seconds: Time of the next deletion of replaced files, on the monotonic clock.
        iterators: Shard iterators at the positions that the last drain reached.
        activities: Recent activity of the shards.
        known: Changes that landed lately, where one may arrive again.
    """

    size: BatchSize
    base_bytes: int
    clean_up_at_seconds: float = field(
        default_factory=lambda: time.monotonic() + CLEAN_UP_FIRST_SECONDS
    )
    iterators: IteratorCache = field(default_factory=dict)
    activities: Activities = field(default_factory=dict)
    known: KnownEvents = field(default_factory=KnownEvents)


_states: WeakKeyDictionary[StreamClient, ProcessState] = WeakKeyDictionary()


def load_state(
    client: StreamClient, settings: DrainSettings, logger: logging.Logger | None = None
) -> ProcessState:
    """Return the state that the last drain saved; its size stays even if this drain fails.

    Only a successful drain passes its iterators on (`save_state`): they are past everything that
    was read, including records that move no position.

    Args:
        client: Client of the stream.
        settings: Bounds of the drain.
        logger: Logger of the drain, which is told of a memory budget that a person should know of.
    """
    budget_bytes = container.reported(settings.memory, logger).bytes
    limits = batch_limits(budget_bytes)
    state = _states.pop(client, None)
    if state is None or state.size.limits != limits:
        reuse_arrow_memory()
        bound_arrow_threads()
        base_bytes = resident_bytes()
        if retains_freed_memory(budget_bytes, base_bytes):
            retain_freed_memory()
        else:
            return_freed_memory()
        known = KnownEvents(known_changes(budget_bytes, base_bytes))
        state = ProcessState(BatchSize.first(limits), base_bytes, known=known)
    _states[client] = ProcessState(
        state.size,
        state.base_bytes,
        state.clean_up_at_seconds,
        known=KnownEvents(state.known.most),
    )
    return state


def save_state(client: StreamClient, state: ProcessState) -> None:
    """Pass the full state on to the next drain."""
    _states[client] = state


def take_over_state(client: StreamClient, former: StreamClient) -> None:
    """Pass on what a client's successor may know: sizes, and when replaced files are deleted."""
    state = _states.pop(former, None)
    if state is not None:
        _states[client] = ProcessState(
            state.size,
            state.base_bytes,
            state.clean_up_at_seconds,
            known=KnownEvents(state.known.most),
        )


def activities_of(client: StreamClient) -> Activities:
    """Return the recent activity of a client's shards; empty if none is known."""
    state = _states.get(client)
    return {} if state is None else state.activities


def memory_pressure(state: ProcessState, settings: DrainSettings) -> float:
    """Return the share of the memory available to drains that is in use."""

    def in_use() -> float:
        return batch_memory_share(settings.memory.bytes, state.base_bytes, resident_bytes())

    share = in_use()
    if share > PRESSURE_LOW:
        # Freed memory that the C library retains would make batches small for good.
        release_memory()
        share = in_use()
    return share
