"""Log lines of the chunks of a run: one a chunk, or one in half a minute if the run stays.

Each line is an event in the storage of the Dagster instance. A run that stays commits a chunk a
second, so its lines would be most of what the instance stores.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from datazone_dagster.model.report import ChunkReport, MergeCounts

LOG_EVERY_SECONDS = 30.0


class ChunkLog:
    """Writes the lines. The first chunk has its own, at once.

    Args:
        logger: Logger of the run.
        every_seconds: Shortest time between two lines; 0: each chunk has one.
        monotonic: Monotonic clock, in seconds.
        transform: Name that begins the lines, in a run of several transforms.
    """

    def __init__(
        self,
        logger: logging.Logger,
        every_seconds: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        transform: str = "",
    ) -> None:
        self._logger = logger
        self._every_seconds = every_seconds
        self._prefix = f"{transform}: " if transform else ""
        self._monotonic = monotonic
        self._logged_seconds: float | None = None
        self._waiting: list[ChunkReport] = []

    def take(self, chunk: ChunkReport) -> None:
        """Take a chunk that is committed; write a line if one is due."""
        self._waiting.append(chunk)
        logged, now = self._logged_seconds, self._monotonic()
        if logged is None or now - logged >= self._every_seconds:
            self._write(now)

    def finish(self) -> None:
        """Write what has no line yet."""
        if self._waiting:
            self._write(self._monotonic())

    def _write(self, now: float) -> None:
        chunks, self._waiting, self._logged_seconds = self._waiting, [], now
        counts = sum((one.counts for one in chunks), start=MergeCounts())
        self._logger.info(
            "%sBatches %d to %d of %d%s: %d changes, %d rows inserted, %d updated, %d deleted, "
            "%.2f s.",
            self._prefix,
            chunks[0].first_batch,
            chunks[-1].last_batch,
            chunks[-1].head,
            f" in {len(chunks)} chunks" if len(chunks) > 1 else "",
            sum(one.records for one in chunks),
            counts.inserted,
            counts.updated,
            counts.deleted,
            sum(one.duration_seconds for one in chunks),
        )
