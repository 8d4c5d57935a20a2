"""The limit of two readers a shard, as a switch: a client that breaks it is throttled."""

from __future__ import annotations

import threading

from datazone_dagster.local.service_errors import ServiceError

READERS_MAX = 2
_ACTIVE_SECONDS = 1.0


class ReaderLimit:
    """Remembers who read which shard within the last second. Thread safe.

    A reader is a chain of iterators that began with one GetShardIterator.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[int, dict[str, float]] = {}

    def admit(self, shard: int, reader: str, now: float) -> None:
        """Let a reader read.

        Args:
            shard: The shard's number.
            reader: The chain of iterators.
            now: Server time in seconds since 1970.

        Raises:
            ServiceError: `LimitExceededException`: two others read this shard just now.
        """
        with self._lock:
            seen = self._seen.setdefault(shard, {})
            for other, at in list(seen.items()):
                if now - at > _ACTIVE_SECONDS:
                    del seen[other]
            if reader not in seen and len(seen) >= READERS_MAX:
                raise ServiceError(
                    "LimitExceededException", f"More than {READERS_MAX} readers on one shard"
                )
            seen[reader] = now
