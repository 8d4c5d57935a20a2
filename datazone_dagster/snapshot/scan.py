"""The scan: pages of several segments are read at once, and landed with their resume keys.

A segment has at most one page that is read but not committed, so a killed process reads at most
one page per segment twice, and lands none twice. Segments take turns, so that the load spreads
over the partitions of the table.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.errors import SourceError, ThrottledError
from datazone_dagster.model.snapshot_state import Phase, Scanned, SnapshotState, landed, opened
from datazone_dagster.model.table_scan import ScanPage, TableClient
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot.rate import TokenBucket
from datazone_dagster.snapshot.scanned_records import ScannedRecords

SEGMENT_BYTES = 64 << 20
"""Size of a segment, about: small enough that the load spreads, large enough to be few."""

HIDDEN_KEY_SEGMENT_BYTES = 4 << 20
"""Size of a segment that is landed as one, because its resume keys must not be stored."""

MOST_SEGMENTS = 100_000

COMMIT_BYTES = 32 << 20
"""Size of the items of one commit, about."""

_SHORTEST_WAIT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Until:
    """When a scan stops although it is not complete.

    Args:
        deadline_seconds: Time on the clock of `monotonic`; infinite: none.
        stop: Returns whether someone asked to stop.
        monotonic: Clock that never goes back, in seconds.
        pause: Waits a number of seconds.
    """

    deadline_seconds: float = float("inf")
    stop: Callable[[], bool] = lambda: False
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def reached(self) -> bool:
        """Return whether no further page may be started."""
        return self.stop() or self.monotonic() >= self.deadline_seconds


def segments_for(size_bytes: int, workers: int, *, hide_keys: bool) -> int:
    """Return the number of segments for a table of this size."""
    each = HIDDEN_KEY_SEGMENT_BYTES if hide_keys else SEGMENT_BYTES
    return min(MOST_SEGMENTS, max(2 * workers, -(-size_bytes // each)))


@dataclass(slots=True)
class _Read:
    """Pages of one segment that are read and not committed yet."""

    segment: int
    pages: list[ScanPage]

    @property
    def next_key(self) -> str | None:
        return self.pages[-1].next_key


@dataclass
class Scan:
    """The scan of one snapshot, in one process.

    Args:
        client: Client of the table.
        scan_log: The change log.
        records: Makes the records.
        bucket: Rate of the scan.
        workers: Number of pages that are read at once.
        hide_keys: Whether keys must not be stored: a segment then lands as one.
        on_commit: Called with the state after each commit.
        logger: Logger.
    """

    client: TableClient
    scan_log: ScanLog
    records: ScannedRecords
    bucket: TokenBucket
    workers: int
    hide_keys: bool
    on_commit: Callable[[SnapshotState], None]
    logger: logging.Logger
    _ready: deque[tuple[int, str | None]] = field(default_factory=deque)
    _flying: dict[Future[_Read], tuple[int, str | None, float]] = field(default_factory=dict)
    _read: list[_Read] = field(default_factory=list)
    _stored: SnapshotState | None = None

    def run(self, state: SnapshotState, until: Until) -> SnapshotState:
        """Scan until the last segment is landed, or until told to stop; return the state reached.

        Raises:
            SourceError: A page can't be read. What was read before it is landed.
            ConcurrentWriterError: Another process scans, too.
            StorageError: The lakehouse can't be read or written.
        """
        failed: SourceError | None = None
        self._stored = state
        self._ready.extend(state.open.items())
        with ThreadPoolExecutor(self.workers, "snapshot") as pool:
            while state.phase is Phase.SCANNING:
                stopping = failed is not None or until.reached()
                if not stopping:
                    state = self._begun(state)
                    self._start(pool, state, until)
                if self._read:
                    state = self._committed(state)
                elif self._flying:
                    failed = self._collected(until) or failed
                elif stopping:
                    break
                else:
                    until.pause(max(_SHORTEST_WAIT_SECONDS, self._wait_seconds(until)))
        if failed is not None:
            raise failed
        return state

    def _begun(self, state: SnapshotState) -> SnapshotState:
        """Open further segments; they are stored with the next commit."""
        more = opened(state, 2 * self.workers)
        self._ready.extend((one, None) for one in more.open if one not in state.open)
        return more

    def _start(self, pool: ThreadPoolExecutor, state: SnapshotState, until: Until) -> None:
        """Start as many pages as workers and rate allow."""
        while self._ready and len(self._flying) < self.workers and not self._wait_seconds(until):
            segment, key = self._ready.popleft()
            taken = self.bucket.start(until.monotonic())
            future = pool.submit(self._page, state, segment, key)
            self._flying[future] = (segment, key, taken)

    def _wait_seconds(self, until: Until) -> float:
        return self.bucket.wait_seconds(until.monotonic())

    def _page(self, state: SnapshotState, segment: int, key: str | None) -> _Read:
        pages: list[ScanPage] = []
        while not pages or (self.hide_keys and pages[-1].next_key is not None):
            start = pages[-1].next_key if pages else key
            consistent = state.consistent_reads
            page = self.client.scan_page(segment, state.segments, start, consistent=consistent)
            pages.append(page)
        return _Read(segment, pages)

    def _collected(self, until: Until) -> SourceError | None:
        """Wait for at least one page, and take all that have arrived."""
        done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        failed: SourceError | None = None
        for future in done:
            segment, key, taken = self._flying.pop(future)
            try:
                read = future.result()
            except ThrottledError as error:
                self.bucket.throttled(taken, until.monotonic())
                self._ready.appendleft((segment, key))
                self.logger.info("The scan is throttled and slows down: %s", error)
            except SourceError as error:
                self.bucket.finish(taken, 0.0, until.monotonic())
                self._ready.appendleft((segment, key))
                failed = error
            else:
                units = sum(page.read_units for page in read.pages)
                self.bucket.finish(taken, units, until.monotonic())
                self._read.append(read)
        return failed

    def _committed(self, state: SnapshotState) -> SnapshotState:
        """Land what was read, bounded by bytes; its segments may be read further then."""
        crash_points.reach(crash_points.AFTER_PAGES_READ)
        taken: list[_Read] = []
        size_bytes = 0
        while self._read and size_bytes < COMMIT_BYTES:
            taken.append(self._read.pop(0))
            size_bytes += _size(taken[-1])
        pages = [page for read in taken for page in read.pages]
        after = landed(
            state,
            Scanned(
                resume={read.segment: read.next_key for read in taken},
                rows=sum(len(page.items) + len(page.absent) for page in pages),
                bytes=size_bytes,
                read_units=sum(page.read_units for page in pages),
                at=max(page.at for page in pages),
            ),
        )
        self.scan_log.refresh()
        self.scan_log.land(
            self._stored or state,
            after,
            (records for page in pages for records in self.records.of_page(page)),
        )
        crash_points.reach(crash_points.AFTER_SCAN_COMMIT)
        for read in taken:
            if read.next_key is not None:
                self._ready.append((read.segment, read.next_key))
        self._stored = self.scan_log.state
        assert self._stored is not None
        self.on_commit(self._stored)
        return self._stored


def _size(read: _Read) -> int:
    return sum(item.size_bytes for page in read.pages for item in page.items)
