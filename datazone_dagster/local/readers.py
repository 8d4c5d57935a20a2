"""Optional limit of two readers per shard: a client that exceeds it is throttled."""

from __future__ import annotations

import threading

from datazone_dagster.local.service_errors import ServiceError

READERS_MAX = 2
_ACTIVE_SECONDS = 1.0


class ReaderLimit:
    """Tracks the readers of each shard within the last second. Thread safe.

    A reader is a chain of iterators that began with one GetShardIterator call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[int, dict[str, float]] = {}

    def admit(self, shard: int, reader: str, now: float) -> None:
        """Admit a reader to a shard and record the read.

        Args:
            shard: Number of the shard.
            reader: Id of the chain of iterators.
            now: Server time in seconds since 1970.

        Raises:
            ServiceError: `LimitExceededException`: two other readers read this shard just now.
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
