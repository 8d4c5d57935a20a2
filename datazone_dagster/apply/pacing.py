"""Pacing: when a run takes its next chunk while the drain lands more, and when the run ends.

A merge has a fixed cost, regardless of its rows. So a run that has reached the head goes on with
newly landed changes, and waits until the next chunk is worth its merge. A run waits only under
heavy traffic: a stream with little traffic is applied at once, no change waits for long, and a
run ends when no changes are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.process.shutdown import shutdown_requested

LONGEST_WAIT_SECONDS = 6.0
"""Longest time that a landed change waits for further changes."""

WORTH_SHARE = 0.1
"""Share of a chunk's time for its merge at which a run stops waiting for a larger chunk."""

QUIET_SECONDS = 0.6
"""Time without a new batch after which a run stops waiting."""

LOOK_EVERY_SECONDS = 0.2
"""Interval of checks for new batches; each check lists the newest log entries."""

HOPELESS_SHARE = 0.5
"""Share of a chunk's time for its merge, expected after the longest wait, above which a run does
not wait: too little is landing to make a difference."""


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """Cost of the last chunk of a run.

    Args:
        stored_bytes: Size of the chunk as stored in the change log.
        work_seconds: Time from the change log to rows that are ready to be merged.
        merge_seconds: Time from there to the last commit.
    """

    stored_bytes: int
    work_seconds: float
    merge_seconds: float

    def merge_share(self, stored_bytes: float) -> float:
        """Return the merge's share of the time of a chunk with this many bytes."""
        work_seconds = self.work_seconds * stored_bytes / max(self.stored_bytes, 1)
        return self.merge_seconds / max(work_seconds + self.merge_seconds, 1e-6)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Changes that have landed but are not applied.

    Args:
        stored_bytes: Size of the changes as stored in the change log.
        age_seconds: Longest time since the first of the changes can have landed.
        quiet_seconds: Time since the head of the change log was last seen to move.
    """

    stored_bytes: int
    age_seconds: float
    quiet_seconds: float


def is_enough(waiting: Waiting, last: ChunkCost) -> bool:
    """Return whether to take the waiting changes as a chunk now. Pure."""
    if waiting.age_seconds >= LONGEST_WAIT_SECONDS or waiting.quiet_seconds >= QUIET_SECONDS:
        return True
    if last.merge_share(waiting.stored_bytes) <= WORTH_SHARE:
        return True
    expected_bytes = waiting.stored_bytes * LONGEST_WAIT_SECONDS / max(waiting.age_seconds, 1e-3)
    return last.merge_share(expected_bytes) > HOPELESS_SHARE


class Following:
    """The change log of a run, followed for as long as there is a next chunk.

    Args:
        log: Change log of the source.
        linger_seconds: Time after its start in which a run still takes newly landed changes.
        monotonic: Monotonic clock, in seconds.
        pause: Sleeps for some seconds.
    """

    def __init__(
        self,
        log: ChangeLog,
        linger_seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._log = log
        self._monotonic = monotonic
        self._pause = pause
        self._until_seconds = monotonic() + linger_seconds
        self._opened_seconds = 0.0

    def first(self) -> ChangeLogSnapshot | None:
        """Return the current log, or None if nothing was landed yet."""
        self._opened_seconds = self._monotonic()
        return self._log.open()

    def next(self, log: ChangeLogSnapshot, last: ChunkCost | None) -> ChangeLogSnapshot | None:
        """Return the log once it has the next chunk; None if nothing waits or the run must end.

        Args:
            log: The log, applied up to its head. It is advanced.
            last: Cost of the last chunk; None if there was none.

        Raises:
            StorageError: The log can't be read.
        """
        since_seconds = moved_seconds = self._opened_seconds
        head = seen = log.head
        while (
            last is not None
            and self._monotonic() < self._until_seconds
            and not shutdown_requested()
        ):
            self._opened_seconds = now = self._monotonic()
            log.move_on()
            if log.head <= head:
                return None
            if log.head > seen:
                seen, moved_seconds = log.head, now
            waiting = Waiting(
                log.stored_bytes(head, log.head), now - since_seconds, now - moved_seconds
            )
            if is_enough(waiting, last):
                return log
            self._pause(LOOK_EVERY_SECONDS)
        return None
