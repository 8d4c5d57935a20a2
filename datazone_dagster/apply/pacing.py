"""Pacing: when a run takes its next chunk while the drain lands more, and when the run ends.

A merge has a fixed cost, regardless of its rows. So a run that has reached the head goes on with
newly landed changes, and waits until the next chunk is worth its merge. A run waits only under
heavy traffic: a stream with little traffic is applied at once, and no change waits for long. A run
ends when no changes are left; one that stays ends after a time without changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.process.shutdown import shutdown_requested

LONGEST_WAIT_SECONDS = 6.0
"""Longest time that a landed change waits for further changes."""

WORTH_SHARE = 0.1
"""Share of a chunk's fixed time at which a run stops waiting for a larger chunk."""

QUIET_SECONDS = 0.6
"""Time without a new batch after which a run stops waiting."""

LOOK_EVERY_SECONDS = 0.2
"""Interval of checks for new batches; each check asks for the next log entry."""

REMOTE_LOOK_EVERY_SECONDS = 3.0
"""The same in an object store, where each check is a request that is paid for."""

REMOTE_MERGE_EVERY_SECONDS = 40.0
"""Time that a small chunk waits for further changes in an object store: a merge writes three
objects there, however small it is."""

HOPELESS_SHARE = 0.5
"""Share of a chunk's time for its merge, expected after the longest wait, above which a run does
not wait: too little is landing to make a difference."""


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a run stays that goes on while its stream has traffic.

    Args:
        idle_seconds: Time without a new batch after which the run ends.
        max_seconds: Time after its start at which the run ends; another one goes on.
        told_to_end: Function that returns whether somebody has asked the run to end.
    """

    idle_seconds: float
    max_seconds: float
    told_to_end: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """Cost of the last chunk of a run.

    Args:
        stored_bytes: Size of the chunk as stored in the change log.
        work_seconds: Time from the change log to rows that are ready to be merged.
        merge_seconds: Time from there to the last commit.
        superseded: Share of its changes that a later one of their key superseded before they were
            parsed. Where keys repeat, every chunk parses most of them again, however small it is.
    """

    stored_bytes: int
    work_seconds: float
    merge_seconds: float
    superseded: float = 0.0

    def merge_share(self, stored_bytes: float) -> float:
        """Return the merge's share of the time of a chunk with this many bytes."""
        work_seconds = self.work_seconds * stored_bytes / max(self.stored_bytes, 1)
        return self.merge_seconds / max(work_seconds + self.merge_seconds, 1e-6)

    def fixed_share(self, stored_bytes: float) -> float:
        """Return the share of a chunk's time that a larger chunk would save, about.

        That is its merge, and the work that it repeats for the keys of the chunk before.
        """
        fixed_seconds = self.merge_seconds + self.work_seconds * self.superseded
        work_seconds = self.work_seconds * (1 - self.superseded)
        work_seconds *= stored_bytes / max(self.stored_bytes, 1)
        return fixed_seconds / max(work_seconds + fixed_seconds, 1e-6)


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


def is_enough(waiting: Waiting, last: ChunkCost, *, wait_seconds: float = 0.0) -> bool:
    """Return whether to take the waiting changes as a chunk now. Pure.

    Args:
        waiting: The changes.
        last: Cost of the last chunk.
        wait_seconds: Time that changes wait which are not worth their merge.
    """
    if waiting.age_seconds < wait_seconds and last.merge_share(waiting.stored_bytes) > WORTH_SHARE:
        return False
    if waiting.age_seconds >= LONGEST_WAIT_SECONDS or waiting.quiet_seconds >= QUIET_SECONDS:
        return True
    if last.fixed_share(waiting.stored_bytes) <= WORTH_SHARE:
        return True
    expected_bytes = waiting.stored_bytes * LONGEST_WAIT_SECONDS / max(waiting.age_seconds, 1e-3)
    return last.merge_share(expected_bytes) > HOPELESS_SHARE


class SharedLooks:
    """Looks at the head of a change log, shared by the runs of a process that follow it in turns.

    Args:
        every_seconds: Interval at which one of them asks the store; the others see what it saw.
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(
        self, every_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._asked_seconds = float("-inf")

    def move_on(self, log: ChangeLogSnapshot) -> None:
        """Advance to the newest version that anybody knows.

        Raises:
            StorageError: The log can't be read.
        """
        now_seconds = self._monotonic()
        ask = now_seconds - self._asked_seconds >= self._every_seconds
        log.move_on(ask=ask)
        if ask:
            self._asked_seconds = now_seconds


def look_every_seconds(*, remote: bool) -> float:
    """Return the interval at which a run looks for new batches."""
    return REMOTE_LOOK_EVERY_SECONDS if remote else LOOK_EVERY_SECONDS


class Following:
    """The change log of a run, followed for as long as there is a next chunk.

    Args:
        log: Change log of the source.
        linger_seconds: Time after its start in which a run still takes newly landed changes; a
            run that stays goes by `stay`.
        stay: How long the run stays; None: it ends as soon as no change waits.
        remote: Whether the lakehouse is in an object store: looks and merges have a price there.
        looks: Looks that the run shares with others; None: it looks by itself.
        monotonic: Monotonic clock, in seconds.
        pause: Sleeps for some seconds.
    """

    def __init__(
        self,
        log: ChangeLog,
        linger_seconds: float,
        stay: Stay | None = None,
        *,
        remote: bool = False,
        looks: SharedLooks | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._log = log
        self._stay = stay
        self._monotonic = monotonic
        self._pause = pause
        self._idle_seconds = 0.0 if stay is None else stay.idle_seconds
        self._until_seconds = monotonic() + (linger_seconds if stay is None else stay.max_seconds)
        self._look_every_seconds = look_every_seconds(remote=remote)
        self._looks = looks or SharedLooks(0.0, monotonic)
        self._wait_seconds = REMOTE_MERGE_EVERY_SECONDS if remote and stay else 0.0
        self._opened_seconds = 0.0
        self.found: ChangeLogSnapshot | None = None
        """The log with the next chunk, after `wait`; None: nothing waits, or the run must end."""
        self.some_wait = False
        """Whether changes wait for more of them, while `wait` yields."""

    def first(self) -> ChangeLogSnapshot | None:
        """Return the current log, or None if nothing was landed yet."""
        self._opened_seconds = self._monotonic()
        return self._log.open()

    def wait(self, log: ChangeLogSnapshot, last: ChunkCost | None) -> Iterator[None]:
        """Wait until the log has the next chunk or the run must end, then set `found`.

        Yields before each pause, so that the caller can do other work in the meantime.

        Args:
            log: The log, applied up to its head. It is advanced.
            last: Cost of the last chunk; None if there was none.

        Raises:
            StorageError: The log can't be read.
        """
        self.found = None
        since_seconds = moved_seconds = idle_since_seconds = self._opened_seconds
        head = seen = log.head
        if last is None and not self.stays:
            return
        while not self.must_end():
            self._opened_seconds = now = self._monotonic()
            self._looks.move_on(log)
            self.some_wait = log.head > head
            if not self.some_wait:
                if now - idle_since_seconds >= self._idle_seconds:
                    return
                since_seconds = now
            else:
                if log.head > seen:
                    seen, moved_seconds = log.head, now
                if last is None or is_enough(
                    Waiting(
                        log.stored_bytes(head, log.head), now - since_seconds, now - moved_seconds
                    ),
                    last,
                    wait_seconds=self._wait_seconds,
                ):
                    self.found = log
                    return
            yield
            self._pause(self._look_every_seconds)

    @property
    def stays(self) -> bool:
        """Whether the run goes on while nothing waits."""
        return self._stay is not None

    def must_end(self) -> bool:
        """Return whether the time of the run is over, or somebody has asked it to end."""
        if self._monotonic() >= self._until_seconds or shutdown_requested():
            return True
        return self._stay is not None and self._stay.told_to_end()
