"""The run: each chunk of the change log passes through the function, once into every dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.apply.append_order import defer_later_changes, fit_contract, keys_waited_for
from datazone_dagster.apply.applied_parts import not_applied
from datazone_dagster.apply.bucket_run import BucketRun
from datazone_dagster.apply.chunk import ChunkFacts, FunctionResult
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.apply.dataset_start import start_of
from datazone_dagster.apply.expectations import Expectations
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.maintain_dataset import MaintenanceInRun
from datazone_dagster.apply.pacing import ChunkCost, Following, Stay
from datazone_dagster.apply.prepare import Preparation
from datazone_dagster.apply.progress import advanced, chunk_report, first_report, with_table
from datazone_dagster.apply.tables import (
    LookupReads,
    dataset_table,
    partition_columns,
    setting_ignored,
)
from datazone_dagster.changelog.followed_log import require_followed
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.log_errors import replaced_error, truncated_error
from datazone_dagster.changelog.maintain_log import RETENTION_HOURS
from datazone_dagster.dataset.dataset_table import ChunkWritten
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.errors import ConcurrentWriterError, StoreUnavailableError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.quarantine_policy import keeps_order, needs_every_column
from datazone_dagster.model.report import ApplyReport, ChunkReport, MergeCounts
from datazone_dagster.model.run_report import RunReport
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.turns import Turn
from datazone_dagster.process import crash_points
from datazone_dagster.rows.removal_policy import merges_left

REOPEN_AFTER = timedelta(hours=RETENTION_HOURS) / 3
"""Time for which a run reads one version of the change log: its files are retained for a limited
time, and one more chunk has to fit in."""

REPORT_EVERY_SECONDS = 30.0
"""Shortest time between two reports of a run that stays; its first chunk is reported at once."""


class ApplyRun:
    """One run of one transform, for all of its datasets or `only` those of these ids."""

    def __init__(
        self,
        transform: Transform,
        layout: Layout,
        settings: ApplySettings,
        clock: Clock,
        on_chunk: Callable[[ChunkReport], None] | None,
        logger: logging.Logger,
        *,
        only: Collection[str] | None = None,
        target: Layout | None = None,
        change_log: ChangeLog | None = None,
        bucket: KeyBucket = WHOLE,
    ) -> None:
        self._transform = transform
        self._layout = layout
        self._target = target or layout
        self._clock = clock
        self._on_chunk = on_chunk
        self._logger = logger
        self._change_log = change_log or ChangeLog(layout, transform.source, bucket=bucket)
        self._datasets: dict[str, Dataset] = {
            output: dataset
            for output, dataset in transform.outputs.items()
            if only is None or dataset.id in only
        }
        self._sizes = ChunkSizes(settings, logger)
        limit = self._sizes.frame_memory_bytes
        self._tables = {
            output: dataset_table(dataset, transform, self._target, limit, bucket, clock)
            for output, dataset in self._datasets.items()
        }
        self._linger_seconds = settings.linger_seconds
        self._last_cost: ChunkCost | None = None
        self._reported_seconds = time.monotonic()
        self._has_reported = self._has_lost_race = False
        self._lookups = LookupReads(transform, layout)
        self._maintenance = MaintenanceInRun(
            layout, self._datasets, settings.maintenance, clock, logger, bucket
        )
        self.bucket_run = BucketRun(bucket, self._tables, logger, clock)
        # Before the change log is opened: what is read from it may have keys erased meanwhile.
        progress = {output: table.progress() for output, table in self._tables.items()}
        state, *_ = [table.state(look=False) for table in self._tables.values()]
        self._function = Function(transform, state, limit, logger)
        self._partition_by = {
            output: partition_columns(dataset, self._tables[output].facts(look=False))
            for output, dataset in self._datasets.items()
        }
        self._expectations = Expectations(
            self._datasets, self._tables, limit, logger, show_rows=settings.show_rows
        )
        self._preparation = Preparation(
            transform, self._function, self._sizes, self._partition_by, self._expectations, logger
        )
        self._progress = progress
        self._starts: dict[str, SnapshotBase] = {}
        self._reports = {
            output: first_report(dataset, transform, self._target, progress[output].position)
            for output, dataset in self._datasets.items()
        }

    def run(self) -> dict[str, ApplyReport]:
        """Apply up to the head of the change log, and batches that land meanwhile."""
        return dict(list(self.steps())[-1].datasets)

    def steps(self, stay: Stay | None = None) -> Iterator[RunReport]:
        """Apply as `run` does; while the run stays, yield what was applied since the last report.

        The last report comes at the end of the run, also if nothing was applied since.
        """
        log, remote = self._change_log, self._layout.is_remote
        following = Following(log, self._linger_seconds, stay, remote=remote)
        yield from (one for one in self.turns(following) if not isinstance(one, Turn))

    def turns(self, following: Following) -> Iterator[RunReport | Turn]:
        """Apply as `steps` does; yield also what was done, after each chunk and before a pause."""
        self._reported_seconds = time.monotonic()
        try:
            yield from self._followed(following)
        except Exception as error:
            # What is committed is told, whatever ended the run but a store that does not answer.
            if self._has_applied() and not isinstance(error, StoreUnavailableError):
                yield self._report()
            raise
        self.bucket_run.save(self._reports, self._progress, self._starts, at_once=True)
        yield self._report(ended=True)

    def _followed(self, following: Following) -> Iterator[RunReport | Turn]:
        log = following.first()
        while log is not None and (yield from self._applied_to_head(log, following)):
            for _ in following.wait(log, self._last_cost):
                if self._maintenance.is_due:
                    self._maintain()
                self.bucket_run.save(self._reports, self._progress, self._starts)
                if self._must_report(following):
                    yield self._report()
                yield Turn.WAITS if following.some_wait else Turn.IDLE
            log = following.found
        if log is None:
            self._maintain()

    def look(self) -> dict[str, ApplyReport]:
        """Return the reports of the datasets as they are, without applying anything."""
        log = self._change_log.open()
        head = 0 if log is None else log.head
        return {
            report.dataset_id: self._finished(output, replace(report, head=head), 0.0)
            for output, report in self._reports.items()
        }

    def _report(self, *, ended: bool = False) -> RunReport:
        """Return what was applied since the last report."""
        now_seconds = time.monotonic()
        duration_seconds = now_seconds - self._reported_seconds
        found = {
            report.dataset_id: self._finished(output, report, duration_seconds)
            for output, report in self._reports.items()
        }
        self._reports = {output: one.at_its_position() for output, one in self._reports.items()}
        self._lookups.forget_versions()
        self._reported_seconds, self._has_reported = now_seconds, True
        return RunReport(found, ended, self._has_lost_race)

    def _has_applied(self) -> bool:
        return any(report.chunks for report in self._reports.values())

    def _must_report(self, following: Following) -> bool:
        if not following.stays or not self._has_applied():
            return False
        waited_seconds = time.monotonic() - self._reported_seconds
        return not self._has_reported or waited_seconds >= REPORT_EVERY_SECONDS

    def _applied_to_head(
        self, log: ChangeLogSnapshot, following: Following
    ) -> Generator[RunReport | Turn, None, bool]:
        """Apply up to this head; return False if another run came first, or this one must end."""
        self._function.change_log = log.table_id
        for output, report in self._reports.items():
            made_from = self._tables[output].state(look=False).change_log
            require_followed(log, self._tables[output].uri, report.position, made_from)
            start = report.position or self._start(output, log)
            if start < log.truncated_through:
                raise truncated_error(log.uri, log.name, start, log.truncated_through)
            self._reports[output] = replace(report, head=log.head, position=start)
            if not report.position:
                self._progress[output] = self._progress[output]._replace(position=start)
        self.bucket_run.lay_out(log)
        try:
            for _ in self.bucket_run.steps(self._apply_to_head(log), self._function):
                if self._must_report(following):
                    yield self._report()
                yield Turn.WORKED
                if following.stays and following.must_end():
                    return False
        except ConcurrentWriterError as error:
            name = self._transform.name
            self._logger.info("This run of %s lost the commit race: %s", name, error)
            self._has_lost_race = True
            self.bucket_run.lost(self._progress, self._starts)
            return False
        return True

    def _start(self, output: str, log: ChangeLogSnapshot) -> int:
        """Return the batch after which a dataset without a position begins."""
        rebuilds = self._target is not self._layout
        dataset, state = self._datasets[output], log.snapshot
        start = start_of(state, log.truncated_through, dataset, rebuilds=rebuilds)
        if start is None:
            return 0
        self._starts[output] = start
        at = f"{start.announced_at:%Y-%m-%d %H:%M:%S} UTC"
        self._logger.info(
            "Dataset %s begins with the snapshot announced at %s (after batch %d), not with the "
            "first change of the source.",
            *(dataset.id, at, start.batch),
        )
        return start.batch

    def _apply_to_head(self, log: ChangeLogSnapshot) -> Iterator[None]:
        """Let datasets that are behind catch up with the others, then apply to all together.

        Yields after each chunk.
        """
        head, opened_at = log.head, self._clock()
        lookups: Mapping[str, pa.Table] | None = None
        while True:
            positions = sorted({report.position for report in self._reports.values()})
            start = positions[0]
            end = positions[1] if len(positions) > 1 else head
            if start >= head:
                return
            while log.has_rows(start, end):
                self.bucket_run.make_way()
                lookups = self._lookups.read() if lookups is None else lookups
                start = self._apply_chunk(log, start, end, lookups)
                yield
                if self._clock() - opened_at >= REOPEN_AFTER:
                    log, opened_at = self._reopened(head), self._clock()
            self._skip_to(start, end)

    def _reopened(self, head: int) -> ChangeLogSnapshot:
        """Return the current change log: the same batches, perhaps in other files."""
        log = self._change_log.open()
        if log is None or log.head < head:
            raise replaced_error(self._change_log.uri)
        return log

    def _maintain(self) -> None:
        """Maintain the tables that were merged into since the last time: no change waits now."""
        for output, done in self._maintenance.done(self._sizes.available_bytes()).items():
            self._reports[output] = replace(self._reports[output], maintenance=done)

    def _skip_to(self, start: int, end: int) -> None:
        """Advance the reports past batches without rows, which need no commit."""
        for output, report in self._reports.items():
            if start <= report.position < end:
                self._reports[output] = replace(report, position=end)

    def _apply_chunk(
        self, log: ChangeLogSnapshot, start: int, end: int, lookups: Mapping[str, pa.Table]
    ) -> int:
        """Apply the next chunk of a range that has changes, to the datasets at its start.

        Returns:
            The new position of these datasets.
        """
        started_seconds = time.monotonic()
        now = self._clock()
        behind = {name: one for name, one in self._reports.items() if one.position <= start}
        waiting = {
            output: keys_waited_for(
                self._datasets[output], self._tables[output], self._target, self._progress[output]
            )
            for output in behind
        }
        prepared = self._preparation.next_chunk(
            log,
            start,
            end,
            behind,
            lookups,
            every_column=any(
                needs_every_column(
                    contract_may_refuse=self._datasets[output].contract.may_refuse,
                    some_wait=bool(waiting[output]),
                )
                for output in behind
            ),
        )
        chunk, result = self.bucket_run.through(log, prepared.facts, end), prepared.result
        prepared_seconds = time.monotonic()
        counts = MergeCounts()
        taken = {output: self._accepted(output, result, waiting[output]) for output in behind}
        rule_counts = self._expectations.counted(taken)
        waits = log.record_count() - log.record_count(chunk.last_batch)
        for output, report in behind.items():
            quarantine = Quarantine(self._target, self._datasets[output].id)
            accepted = taken[output]
            quarantined = quarantine.put(accepted.refused, now)
            crash_points.reach(crash_points.AFTER_QUARANTINE)
            written = self._write(output, accepted, chunk, now, waits)
            counts += written.counts
            self._reports[output] = advanced(
                report,
                chunk,
                accepted.rows[output],
                counts=written.counts,
                deletes=written.deletes,
                quarantined=quarantined + written.quarantined,
                table_version=written.table_version,
                new_columns=written.added_columns,
                read=self._function.reads.report,
                expectations=rule_counts[output],
            )
        committed_seconds = time.monotonic()
        self._maintenance.merged_into(behind)
        work_seconds = prepared_seconds - started_seconds
        merge_seconds = committed_seconds - prepared_seconds
        self._sizes.measured(
            chunk.decoded_bytes, work_seconds, merge_seconds, reads_later=prepared.reads_later
        )
        stored_bytes = log.stored_bytes(start, chunk.last_batch)
        self._last_cost = ChunkCost(stored_bytes, work_seconds, merge_seconds, prepared.superseded)
        self._report_chunk(chunk, counts, committed_seconds - started_seconds)
        return chunk.last_batch

    def _write(
        self, output: str, accepted: FunctionResult, chunk: ChunkFacts, now: datetime, waits: int
    ) -> ChunkWritten:
        began = self._progress[output]
        written = self._tables[output].apply(
            accepted.changes,
            accepted.rows[output],
            after_batch=began.position,
            through_batch=chunk.last_batch,
            now=now,
            state=self._function.state,
            known=began,
            empty_through=chunk.first_batch - 1,
            version=function_version(self._transform),
            start=self._starts.get(output),
            merges_left=merges_left(waits, chunk.records),
        )
        self._starts.pop(output, None)
        self._progress[output] = began.moved_to(chunk.last_batch)
        return written

    def _accepted(
        self, output: str, result: FunctionResult, waiting: Collection[str]
    ) -> FunctionResult:
        """Return the result without the changes that go to the dataset's quarantine."""
        dataset = self._datasets[output]
        result = not_applied(result, output, dataset.mode, self._progress[output].ahead)
        facts = dataset, self._tables[output], output, self._partition_by[output]
        result = fit_contract(result, *facts)
        result = self._expectations.accepted(result, output)
        if keeps_order(dataset.mode):
            result = defer_later_changes(result, waiting, output, dataset)
        return result

    def _report_chunk(
        self, chunk: ChunkFacts, counts: MergeCounts, duration_seconds: float
    ) -> None:
        if self._on_chunk is not None:
            name, head = self._transform.name, max(one.head for one in self._reports.values())
            self._on_chunk(chunk_report(name, chunk, head, counts, duration_seconds))

    def _finished(self, output: str, report: ApplyReport, duration_seconds: float) -> ApplyReport:
        if (facts := self._tables[output].facts(look=False)) is None:
            return replace(report, duration_seconds=duration_seconds)
        if (ignored := setting_ignored(self._datasets[output], facts)) is not None:
            self._logger.warning("%s", ignored)
        return replace(
            with_table(report, facts),
            setting_ignored=ignored,
            lookups=self._lookups.versions(),
            duration_seconds=duration_seconds,
        )
