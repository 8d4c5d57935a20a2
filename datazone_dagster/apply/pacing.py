"""When a run takes the next chunk while the drain lands more, and when it ends.

Each merge costs the same again, whatever is in it. So a run that has come to the head goes on
with what landed meanwhile, and lets the next chunk become worth its merge. Only where much is
landing: a stream with little traffic is applied at once, nothing waits for long, and a run for
which nothing is left ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.process.shutdown import shutdown_requested

LONGEST_WAIT_SECONDS = 6.0
"""No change that has landed waits longer than this for others."""

WORTH_SHARE = 0.1
"""Of a chunk's time, what its merge may take: a chunk for which it takes less is not waited for."""

QUIET_SECONDS = 0.6
"""A head that has not moved for so long is not waited for."""

LOOK_EVERY_SECONDS = 0.2
"""Looking costs a listing of the newest log entries."""

HOPELESS_SHARE = 0.5
"""Where merging would still take more than this of a chunk after the longest wait, there is none:
what lands is too little to make a difference."""


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """What the last chunk of this run took.

    Args:
        stored_bytes: What it covered, as it is stored in the change log.
        work_seconds: From there to rows that are ready to be merged.
        merge_seconds: From there to the last commit.
    """

    stored_bytes: int
    work_seconds: float
    merge_seconds: float

    def merge_share(self, stored_bytes: float) -> float:
        """Of the time of a chunk with so many bytes, what merging would take."""
        work_seconds = self.work_seconds * stored_bytes / max(self.stored_bytes, 1)
        return self.merge_seconds / max(work_seconds + self.merge_seconds, 1e-6)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What has landed and is not applied.

    Args:
        stored_bytes: As it is stored in the change log.
        age_seconds: Since the first of it can have landed, at most.
        quiet_seconds: Since the head of the change log was seen to move.
    """

    stored_bytes: int
    age_seconds: float
    quiet_seconds: float


def is_enough(waiting: Waiting, last: ChunkCost) -> bool:
    """Whether what waits becomes a chunk now, and more is not waited for. Pure."""
    if waiting.age_seconds >= LONGEST_WAIT_SECONDS or waiting.quiet_seconds >= QUIET_SECONDS:
        return True
    if last.merge_share(waiting.stored_bytes) <= WORTH_SHARE:
        return True
    coming = waiting.stored_bytes * LONGEST_WAIT_SECONDS / max(waiting.age_seconds, 1e-3)
    return last.merge_share(coming) > HOPELESS_SHARE


class Following:
    """The change log of a run, which moves on as long as there is a next chunk.

    Args:
        log: Of the source.
        linger_seconds: How long after its start a run still goes on with what has landed since.
        monotonic: Seconds, for waits.
        pause: Waits some seconds.
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
        """The log as it is now, or None if nothing was landed yet."""
        self._opened_seconds = self._monotonic()
        return self._log.open()

    def next(self, log: ChangeLogSnapshot, last: ChunkCost | None) -> ChangeLogSnapshot | None:
        """The log when it has the next chunk; None if nothing waits, or the run is to end.

        Args:
            log: To whose head the datasets stand. It is moved on.
            last: What the last chunk took; None: there was none.

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
