"""Pace of the reads of Kinesis shards, whose limits count for all readers together.

A shard serves five calls and 2 MB a second. A call beyond that is refused, and the retries of
botocore would take longer than the wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from datazone_dagster.model.service_limits import KINESIS_SHARD_BYTES, KINESIS_SHARD_READS

LONGEST_WAIT_SECONDS = 5.0
"""Time after which a page of the greatest size is paid for."""

Shard = tuple[str, str]


class ReadPace:
    """When each shard may be read again. Safe to call from several threads.

    Args:
        monotonic: Clock that never goes back, in seconds.
        pause: Waits a number of seconds.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic, self._pause = monotonic, pause
        self._lock = threading.Lock()
        self._shards: dict[str, Shard] = {}
        self._iterators: dict[Shard, str] = {}
        self._next_at: dict[Shard, float] = {}

    def issued(self, iterator: str | None, shard: Shard | None) -> None:
        """Record the iterator that a shard is read with next."""
        if iterator is None or shard is None:
            return
        with self._lock:
            self._shards.pop(self._iterators.get(shard, ""), None)
            self._iterators[shard], self._shards[iterator] = iterator, shard

    def wait(self, iterator: str) -> Shard | None:
        """Wait until the shard of an iterator may be read; return it, None if it is unknown."""
        with self._lock:
            shard = self._shards.get(iterator)
            now = self._monotonic()
            seconds = 0.0 if shard is None else self._next_at.get(shard, 0.0) - now
        if seconds > 0:
            self._pause(min(seconds, LONGEST_WAIT_SECONDS))
        return shard

    def was_read(self, shard: Shard | None, data_bytes: int) -> None:
        """Record a read of a shard."""
        if shard is not None:
            seconds = max(1 / KINESIS_SHARD_READS, data_bytes / KINESIS_SHARD_BYTES)
            with self._lock:
                self._next_at[shard] = self._monotonic() + min(seconds, LONGEST_WAIT_SECONDS)
