"""Ticks that listen: they go on draining for a while, so that a change lands within a second.

Dagster's daemon looks for due sensors every five seconds. A tick that listens drains again and
again in the meantime, under the same rules as any other. It keeps a thread of the code server and
one of the daemon, so only a part of them may listen at once; the other sensors tick as ever. It
ends before its time when Dagster has to be told something, when the process must end, or when a
stream with traffic wants its thread and its own stream has none.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dagster import DagsterInstance

from datazone_dagster.dagster_glue.options import LOCAL_TICK_SECONDS
from datazone_dagster.dagster_glue.sensors.dev_guard import DEV_VARIABLE
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings
from datazone_dagster.process.shutdown import ending

SHARE_OF_SERVER = 3
SHARE_OF_DAEMON = 4
"""One of so many threads may listen, of the code server's and of the daemon's: the former also
answers the UI, and the latter evaluates the sensors of every code location."""

LOOK_EVERY_SECONDS = 0.1
"""Interval at which a tick that waits looks whether it must end."""

BUSY_FOR_SECONDS = 60.0
"""Time after its last records in which a stream counts as one with traffic."""

IDLE_UNTIL_SECONDS = 38.0
"""Age up to which a tick of an idle stream listens: each tick is a row of 1.2 KB in Dagster's
storage. Like the default for others, two seconds before the daemon looks for due sensors."""

IDLE_FROM_SECONDS = 10.0
"""Ticks that listen no longer than this do not so without traffic, either."""

DEV_IDLE_UNTIL_SECONDS = 18.0
"""The same in `dagster dev`, whose daemon waits for its ticks before it ends. On SIGTERM to
`dagster dev` the code server gets no signal before that."""

RESERVED_SECONDS = 10.0
"""Time for which a place that an idle stream gave up is for one with traffic: two looks of the
daemon."""


def may_listen(
    instance: DagsterInstance, layout: Layout, settings: DrainSettings, tick_seconds: int
) -> bool:
    """Return whether the ticks of a sensor may listen.

    They may not where sensors are evaluated one after another, in an object store, where each batch
    has a price, and where the user wants fewer drains.
    """
    return (
        settings.listen_seconds > 0
        and not layout.is_remote
        and tick_seconds <= LOCAL_TICK_SECONDS
        and bool(instance.get_settings("sensors").get("use_threads"))
    )


def idle_until_seconds(settings: DrainSettings) -> float:
    """Return the age up to which a tick of a stream without traffic listens, in seconds."""
    if settings.listen_seconds <= IDLE_FROM_SECONDS:
        return settings.listen_seconds
    is_dev = bool(os.environ.get(DEV_VARIABLE))
    return max(settings.listen_seconds, DEV_IDLE_UNTIL_SECONDS if is_dev else IDLE_UNTIL_SECONDS)


def most_listeners(instance: DagsterInstance) -> int:
    """Return how many ticks of this process may listen at once, at least one."""
    threads = min(32, (os.cpu_count() or 1) + 4)  # of an executor whose size is not given
    daemon = instance.get_settings("sensors").get("num_workers") or threads
    return max(1, min(threads // SHARE_OF_SERVER, daemon // SHARE_OF_DAEMON))


class Listeners:
    """The ticks of a process that listen.

    Args:
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Lock()
        self._idle: dict[Place, bool] = {}
        self._wanted = 0
        self._reserved_until_seconds = 0.0

    @contextmanager
    def place(self, most: int, *, busy: bool) -> Iterator[Place | None]:
        """Take a place until the block ends; None: there is none.

        Args:
            most: Number of places.
            busy: Whether the stream has traffic: an idle one makes room for it.
        """
        place = Place(self, self._monotonic)
        with self._changed:
            free = len(self._idle) < most
            if not busy and self._monotonic() < self._reserved_until_seconds:
                free = False
            if free:
                self._idle[place] = not busy
                self._reserved_until_seconds = 0.0
            elif busy:
                self._wanted = min(self._wanted + 1, sum(self._idle.values()))
        try:
            yield place if free else None
        finally:
            with self._changed:
                self._idle.pop(place, None)

    def must_yield(self, place: Place) -> bool:
        """Return whether a place has to be given to a stream with traffic."""
        with self._changed:
            if not self._wanted or not self._idle.get(place):
                return False
            self._wanted -= 1
            self._idle[place] = False  # it leaves now, and no other one has to
            self._reserved_until_seconds = self._monotonic() + RESERVED_SECONDS
            return True

    def set_busy(self, place: Place) -> None:
        """Note that the stream of a place has traffic now."""
        with self._changed:
            self._idle[place] = False


class Place:
    """One tick that listens."""

    def __init__(self, listeners: Listeners, monotonic: Callable[[], float]) -> None:
        self._listeners = listeners
        self._monotonic = monotonic

    def set_busy(self) -> None:
        """Note that the stream has traffic now."""
        self._listeners.set_busy(self)

    def waits(self, seconds: float, until_seconds: float) -> bool:
        """Wait for some seconds; return False if the tick has to end.

        Args:
            seconds: Time until the next drain.
            until_seconds: Time at which the tick ends, on the monotonic clock.
        """
        at_seconds = self._monotonic() + seconds
        while True:
            now = self._monotonic()
            if now >= until_seconds or ending() or self._listeners.must_yield(self):
                return False
            if now >= at_seconds:
                return True
            time.sleep(min(LOOK_EVERY_SECONDS, max(0.0, min(at_seconds, until_seconds) - now)))


LISTENERS = Listeners()
"""Those of this process."""
