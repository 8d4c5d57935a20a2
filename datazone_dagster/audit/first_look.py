"""The scan of an audit: pages of chosen segments, at the rate of a snapshot's scan."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from datazone_dagster.errors import SnapshotError, ThrottledError
from datazone_dagster.model.table_scan import ScanPage, TableClient
from datazone_dagster.snapshot.rate import TokenBucket
from datazone_dagster.snapshot.scan import Until

SEGMENTS_PER_SAMPLE = 10
"""Least number of segments that a sample draws, where the table has so many."""

_PAUSE_SECONDS = (0.02, 1.0)


def drawn_segments(total: int, share: float, seed: int) -> list[int]:
    """Return the segments of a sample; all of them for a share of 1."""
    if share >= 1:
        return list(range(total))
    count = max(1, round(share * total))
    return sorted(random.Random(seed).sample(range(total), count))


@dataclass
class FirstLook:
    """Reads the pages of some segments, several at once.

    Args:
        client: Client of the table.
        segments: Segments to read.
        total: Number of segments of the table.
        bucket: Rate of the reads.
        workers: Number of pages that are read at once.
        until: When to give up.
    """

    client: TableClient
    segments: Sequence[int]
    total: int
    bucket: TokenBucket
    workers: int
    until: Until
    read_units: float = 0.0
    _ready: deque[tuple[int, str | None]] = field(default_factory=deque)
    _flying: dict[Future[ScanPage], tuple[int, str | None, float]] = field(default_factory=dict)

    def pages(self) -> Iterator[ScanPage]:
        """Yield the pages, in no order; at most `workers` are in memory besides the yielded one.

        Raises:
            SourceError: A page can't be read.
            SnapshotError: The audit was told to stop.
        """
        self._ready.extend((one, None) for one in self.segments)
        with ThreadPoolExecutor(self.workers, "audit") as pool:
            while self._ready or self._flying:
                require_time(self.until)
                self._start(pool)
                if not self._flying:
                    wait_for(self.bucket, self.until)
                    continue
                done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
                for future in done:
                    page = self._page_of(future)
                    if page is not None:
                        yield page

    def _start(self, pool: ThreadPoolExecutor) -> None:
        while (
            self._ready
            and len(self._flying) < self.workers
            and not self.bucket.wait_seconds(self.until.monotonic())
        ):
            segment, key = self._ready.popleft()
            taken = self.bucket.start(self.until.monotonic())
            future = pool.submit(self.client.scan_page, segment, self.total, key, consistent=True)
            self._flying[future] = (segment, key, taken)

    def _page_of(self, future: Future[ScanPage]) -> ScanPage | None:
        segment, key, taken = self._flying.pop(future)
        now = self.until.monotonic()
        try:
            page = future.result()
        except ThrottledError:
            self.bucket.throttled(taken, now)
            self._ready.append((segment, key))
            return None
        self.bucket.finish(taken, page.read_units, now)
        self.read_units += page.read_units
        if page.next_key is not None:
            self._ready.append((segment, page.next_key))
        return page


def wait_for(bucket: TokenBucket, until: Until) -> None:
    """Wait until the bucket allows a read.

    Raises:
        SnapshotError: The audit was told to stop.
    """
    shortest, longest = _PAUSE_SECONDS
    while seconds := bucket.wait_seconds(until.monotonic()):
        require_time(until)
        until.pause(min(longest, max(shortest, seconds)))


def require_time(until: Until) -> None:
    """Check that the audit may go on.

    Raises:
        SnapshotError: It was told to stop, or its time is up.
    """
    if until.reached():
        raise SnapshotError(
            "The audit was stopped before its end.",
            safe="It only reads; nothing was changed.",
            hint="Start it again, with a smaller sample if it takes too long.",
        )
