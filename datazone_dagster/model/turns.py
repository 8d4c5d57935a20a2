"""Turns of the transforms that share a run: who is next, when to pause, when to end. Pure.

A turn is one chunk, or a look that found nothing to do. Between two turns of one transform, every
other one has at most one: a slow transform costs the others the time of one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum


class Turn(Enum):
    """What a transform did in its turn: a chunk, or nothing; `WAITS` if it has a few changes."""

    WORKED = "worked"
    WAITS = "waits"
    IDLE = "idle"


class Turns:
    """Turns of one run. All times are seconds of one clock.

    Args:
        names: Transforms, in the order of their first turns.
        now_seconds: Start of the run.
        pause_seconds: Pause after a round in which nobody had anything to do.
        idle_seconds: Time without changes for anybody after which the run ends; not before each
            transform has had its first turn.
        longest_seconds: Time after its start at which the run ends.
    """

    def __init__(
        self,
        names: Iterable[str],
        now_seconds: float,
        *,
        pause_seconds: float,
        idle_seconds: float = math.inf,
        longest_seconds: float = math.inf,
    ) -> None:
        self._order = list(names)
        self._unseen = set(self._order)
        self._wakes_seconds: dict[str, float] = {}
        self._paused: set[str] = set()
        self._pause_seconds = pause_seconds
        self._idle_seconds = idle_seconds
        self._busy_seconds = now_seconds
        self._ends_seconds = now_seconds + longest_seconds

    @property
    def left(self) -> tuple[str, ...]:
        """Transforms that are not over."""
        return tuple(self._order)

    def next(self, now_seconds: float) -> str | float | None:
        """Return whose turn it is, or the seconds to pause first; None: all are over."""
        if not self._order:
            return None
        ready = [one for one in self._order if self._wakes_seconds.get(one, 0.0) <= now_seconds]
        if not ready:
            wakes_seconds = min(self._wakes_seconds[one] for one in self._order)
            return min(wakes_seconds - now_seconds, self._pause_seconds)
        due = [one for one in ready if one not in self._paused]
        if not due:
            self._paused.clear()
            return self._pause_seconds
        return due[0]

    def took(self, name: str, turn: Turn, now_seconds: float) -> None:
        """Record a turn: the transform is the last in the order now."""
        self._to_the_end(name)
        if turn is not Turn.IDLE:
            self.count_as_busy(now_seconds)
        if turn is Turn.WORKED:
            self._paused.clear()
        else:
            self._paused.add(name)

    def rest(self, name: str, until_seconds: float, *, counts: bool = False) -> None:
        """Leave a transform out until a time.

        Args:
            name: The transform.
            until_seconds: The time.
            counts: Whether the run does not count as idle meanwhile.
        """
        self._to_the_end(name)
        if counts:
            self.count_as_busy(until_seconds)
        self._wakes_seconds[name] = until_seconds

    def count_as_busy(self, now_seconds: float) -> None:
        """Count the time without changes from this moment on."""
        self._busy_seconds = max(self._busy_seconds, now_seconds)

    def is_over(self, name: str) -> None:
        """Leave a transform out for the rest of the run."""
        self._unseen.discard(name)
        self._order.remove(name)
        self._paused.discard(name)

    def end_by(self, seconds: float) -> None:
        """End the run at this time, unless it ends earlier."""
        self._ends_seconds = min(self._ends_seconds, seconds)

    def must_end(self, now_seconds: float) -> bool:
        """Return whether a run that stays must end: its time is over, or nobody has any changes."""
        is_idle = not self._unseen and now_seconds - self._busy_seconds >= self._idle_seconds
        return is_idle or now_seconds >= self._ends_seconds

    def _to_the_end(self, name: str) -> None:
        self._unseen.discard(name)
        self._order.remove(name)
        self._order.append(name)
