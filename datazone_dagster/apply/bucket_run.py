"""Runs of one bucket of the keys: they share the tables with runs of the other buckets.

A batch need not have changes of a bucket's keys. Its position moves past such batches together with
the next chunk, or in a commit without rows: at the end of a run, and now and then while it stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from datazone_dagster.apply.chunk import ChunkFacts
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.pacing import Stay
from datazone_dagster.changelog.empty_ranges import surely_lacks
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.changelog.slot_parts import BY_SLOTS, ranges_for, ranges_in
from datazone_dagster.dataset.dataset_progress import Progress
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.swap_fence import MakesWayError
from datazone_dagster.errors import ConcurrentWriterError, SchemaChangeError
from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.model.run_report import RunReport
from datazone_dagster.model.snapshot_base import SnapshotBase

SAVE_EVERY_SECONDS = 20.0
"""Shortest time between two commits that only move the position of a bucket without changes."""

ATTEMPTS = 20
"""Runs in one go of a bucket that loses races to other buckets."""


class BucketRun:
    """What a run of one bucket does besides; nothing if the bucket has every key.

    Args:
        bucket: Bucket of the run.
        tables: Tables of the datasets, by output.
        logger: Logger of lost races.
        clock: Returns the current time.
    """

    def __init__(
        self,
        bucket: KeyBucket,
        tables: Mapping[str, DatasetTable],
        logger: logging.Logger,
        clock: Clock,
    ) -> None:
        self._bucket = bucket
        self._tables = tables
        self._logger = logger
        self._clock = clock
        self._makes_way = False
        self._saved_seconds = time.monotonic()
        self._log: ChangeLogSnapshot | None = None
        self.lost_to_others = False
        """Whether the run ended because another bucket changed the columns or properties."""

    def lay_out(self, log: ChangeLogSnapshot) -> None:
        """Have batches of the change log laid out for buckets from now on."""
        self._log = log
        ranges = ranges_for(self._bucket.of)
        if self._bucket.is_whole or ranges_in(log.properties) >= ranges:
            return
        try:
            log.set_property(BY_SLOTS, str(ranges), "Laying out the change log by buckets")
        except ConcurrentWriterError as error:
            self._logger.info("The next run lays out the change log by buckets: %s", error)

    def make_way(self) -> None:
        """Check that no rebuild is about to be swapped in, before a chunk is read for nothing.

        Raises:
            MakesWayError: One is, as far as this process knows.
        """
        for table in self._tables.values():
            table.make_way(self._clock())

    def through(self, log: ChangeLogSnapshot, chunk: ChunkFacts, end: int) -> ChunkFacts:
        """Return the facts of a chunk, with the end of its range if no more changes are in it."""
        if self._bucket.is_whole or log.has_rows(chunk.last_batch, end):
            return chunk
        return replace(chunk, last_batch=end)

    def save(
        self,
        reports: Mapping[str, ApplyReport],
        progress: dict[str, Progress],
        begins: MutableMapping[str, SnapshotBase],
        *,
        at_once: bool = False,
    ) -> None:
        """Store the positions of batches without changes, if that is due, of idle buckets as well.

        Args:
            reports: Reports of the datasets, with the positions that the run has reached.
            progress: Progress that the tables have stored; it is moved.
            begins: Outputs that begin with a snapshot, and have no position yet; they get one.
            at_once: Whether it is due in any case.
        """
        now_seconds = time.monotonic()
        if self._bucket.is_whole or not (
            at_once or now_seconds - self._saved_seconds >= SAVE_EVERY_SECONDS
        ):
            return
        for output, report in reports.items():
            table = self._tables[output]
            try:
                known = progress[output] = _moved(progress[output], table, report.position)
                stored, at = _stored(output, known, begins), report.position
                if at > known.position and table.pass_to(at, stored, self._clock()):
                    progress[output] = known.moved_to(at)
                    begins.pop(output, None)
                if self._log is not None:
                    is_empty = partial(surely_lacks, self._log)
                    table.pass_idle(report.position, is_empty, self._clock())
            except ConcurrentWriterError as error:
                self._logger.info("The position is stored by a later run: %s", error)
        self._saved_seconds = now_seconds

    def steps(self, chunks: Iterator[None], function: Function) -> Iterator[None]:
        """Apply chunks; one that does not fit the columns of another bucket has lost a race.

        Raises:
            ConcurrentWriterError: Another bucket has added columns of items meanwhile, or a rebuild
                is about to be swapped in.
            SchemaChangeError: A column changed to a type that the table can't take.
        """
        try:
            yield from chunks
        except MakesWayError:
            self._makes_way = True
            raise
        except SchemaChangeError as error:
            if all(table.knows_columns(function.state) for table in self._tables.values()):
                raise
            raise ConcurrentWriterError(f"Another bucket came first: {error.what}") from error

    def lost(self, progress: Mapping[str, Progress], begins: Collection[str]) -> None:
        """Find out to whom a run has lost a race: to a run of this bucket, or to others."""
        has_others = not (self._bucket.is_whole or self._makes_way)
        self.lost_to_others = has_others and all(
            table.progress() == _stored(output, progress[output], begins)
            for output, table in self._tables.items()
        )


def _moved(known: Progress, table: DatasetTable, position: int) -> Progress:
    """Return the progress, as far as a run of another bucket has moved it to a position."""
    found = table.progress(look=False)
    is_moved = known.position < found.position <= position
    return found if is_moved and known.moved_to(found.position) == found else known


def _stored(output: str, progress: Progress, begins: Collection[str]) -> Progress:
    return progress._replace(position=0) if output in begins else progress


class _Run(Protocol):
    @property
    def bucket_run(self) -> BucketRun: ...

    def steps(self, stay: Stay | None = None) -> Iterator[RunReport]: ...


def bucket_steps(make: Callable[[], _Run], stay: Stay | None) -> Iterator[RunReport]:
    """Yield the steps of a run, which begins anew if it has lost a race to another bucket.

    Args:
        make: Function that returns a new run: it reads the tables as they are by then.
        stay: How long each run stays.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        run = make()
        for report in run.steps(stay):
            if report.ended and attempts_left and run.bucket_run.lost_to_others:
                if any(one.chunks for one in report.datasets.values()):
                    yield replace(report, ended=False)
                break
            yield report
        else:
            return
