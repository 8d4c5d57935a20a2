"""The run: chunks of the change log, each through the function and into every dataset once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.append_order import hold_back, let_in, waiting_keys
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.maintain_dataset import maintained
from datazone_dagster.apply.pacing import ChunkCost, Following
from datazone_dagster.apply.prepare import Preparation
from datazone_dagster.apply.progress import advanced
from datazone_dagster.apply.tables import dataset_table, read_lookups, setting_ignored
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.log_errors import check_head
from datazone_dagster.changelog.maintain_log import RETENTION_HOURS
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, ChunkReport, MergeCounts
from datazone_dagster.process import crash_points

REOPEN_AFTER = timedelta(hours=RETENTION_HOURS) / 3
"""How long a run reads one version of the change log: the files of it are there for a while only,
and one chunk more has to fit."""


class ApplyRun:
    """One run of one transform."""

    def __init__(
        self,
        transform: Transform,
        layout: Layout,
        settings: ApplySettings,
        clock: Clock,
        on_chunk: Callable[[ChunkReport], None] | None,
        logger: logging.Logger,
        *,
        only: str | None = None,
        target: Layout | None = None,
    ) -> None:
        self._transform = transform
        self._layout = layout
        self._target = target or layout
        self._clock = clock
        self._on_chunk = on_chunk
        self._logger = logger
        self._change_log = ChangeLog(layout, transform.source.name)
        self._datasets: dict[str, Dataset] = {
            output: dataset
            for output, dataset in transform.outputs.items()
            if only in (None, dataset.id)
        }
        self._tables = {
            output: dataset_table(dataset, transform, self._target)
            for output, dataset in self._datasets.items()
        }
        self._sizes = ChunkSizes(settings)
        self._linger_seconds = settings.linger_seconds
        self._last: ChunkCost | None = None
        self._upkeep = settings.maintenance
        attributes = next(iter(self._tables.values())).attributes()
        limit = self._sizes.frame_memory_bytes
        self._function = Function(transform, attributes, limit, logger)
        self._preparation = Preparation(transform, self._function, self._sizes, logger)
        self._reports = {
            output: ApplyReport(
                dataset_id=dataset.id,
                source=transform.source.name,
                uri=self._target.dataset(dataset.id),
                position=self._tables[output].position(),
                head=0,
            )
            for output, dataset in self._datasets.items()
        }

    def run(self) -> dict[str, ApplyReport]:
        """Apply up to the head of the change log, and what lands meanwhile."""
        started_seconds = time.monotonic()
        following = Following(self._change_log, self._linger_seconds)
        log = following.first()
        while log is not None and self._applied_to_head(log):
            log = following.next(log, self._last)
        if log is None:
            self._maintain()
        duration_seconds = time.monotonic() - started_seconds
        return {
            report.dataset_id: self._finished(output, report, duration_seconds)
            for output, report in self._reports.items()
        }

    def _applied_to_head(self, log: ChangeLogSnapshot) -> bool:
        """Apply up to this head; False if another run is faster."""
        for output, report in self._reports.items():
            check_head(log.head, report.position)
            self._reports[output] = replace(report, head=log.head)
        try:
            self._apply_to_head(log)
        except ConcurrentWriterError as error:
            self._logger.info("This run of %s gives way: %s", self._transform.name, error)
            return False
        return True

    def _apply_to_head(self, log: ChangeLogSnapshot) -> None:
        """Datasets that are behind catch up with the others first, then all go on together."""
        head, opened_at = log.head, self._clock()
        lookups: dict[str, pa.Table] | None = None
        while True:
            positions = sorted({report.position for report in self._reports.values()})
            start = positions[0]
            end = positions[1] if len(positions) > 1 else head
            if start >= head:
                return
            lookups = read_lookups(self._transform, self._layout) if lookups is None else lookups
            while log.has_rows(start, end):
                start = self._apply_chunk(log, start, end, lookups)
                if self._clock() - opened_at >= REOPEN_AFTER:
                    log, opened_at = self._reopened(head), self._clock()
            self._skip_to(start, end)

    def _reopened(self, head: int) -> ChangeLogSnapshot:
        """The change log as it is now: the same batches, perhaps in other files."""
        log = self._change_log.open()
        if log is None or log.head < head:
            raise ConcurrentWriterError(
                f"The change log at {self._change_log.uri} was removed or replaced by an older one "
                "while it was read.",
                safe="What was applied before is in the datasets, with their positions.",
                hint="Restore the newest one: others end behind those positions.",
            )
        return log

    def _maintain(self) -> None:
        """Tables that this run has merged into, now that no change waits."""
        for output, report in self._reports.items():
            if report.chunks:
                dataset = self._datasets[output]
                done = maintained(
                    self._layout,
                    dataset,
                    self._upkeep,
                    self._clock,
                    self._logger,
                    memory_bytes=self._sizes.left_bytes(),
                )
                self._reports[output] = replace(report, maintenance=done)

    def _skip_to(self, start: int, end: int) -> None:
        """Batches without rows leave nothing to commit, only the report to move."""
        for output, report in self._reports.items():
            if start <= report.position < end:
                self._reports[output] = replace(report, position=end)

    def _apply_chunk(
        self, log: ChangeLogSnapshot, start: int, end: int, lookups: Mapping[str, pa.Table]
    ) -> int:
        """The next chunk of a range that has changes, into the datasets that stand at its start.

        Returns:
            Where they stand now.
        """
        started_seconds = time.monotonic()
        now = self._clock()
        behind = {
            output: report for output, report in self._reports.items() if report.position <= start
        }
        waiting = {output: self._waiting_keys(output) for output in behind}
        prepared = self._preparation.next_chunk(
            log,
            start,
            end,
            behind,
            lookups,
            may_refuse=any(
                waiting[output] or self._datasets[output].contract.may_refuse for output in behind
            ),
        )
        chunk, taken = prepared.facts, prepared.taken
        prepared_seconds = time.monotonic()
        counts = MergeCounts()
        for output, report in behind.items():
            dataset = self._datasets[output]
            quarantine, table = Quarantine(self._target, dataset.id), self._tables[output]
            mine = let_in(taken, table, output) if dataset.contract.may_refuse else taken
            if dataset.mode == "append":
                mine = hold_back(mine, waiting[output], output)
            quarantined = quarantine.put(mine.refused, now)
            crash_points.reach(crash_points.AFTER_QUARANTINE)
            written = table.apply(
                mine.changes,
                mine.rows[output],
                after_batch=report.position,
                through_batch=chunk.last_batch,
                now=now,
                attributes=self._function.attributes,
            )
            counts += written.counts
            self._reports[output] = advanced(
                report,
                chunk,
                mine.rows[output],
                counts=written.counts,
                quarantined=quarantined + written.quarantined,
                table_version=written.table_version,
                new_columns=written.added_columns,
            )
        committed_seconds = time.monotonic()
        work_seconds = prepared_seconds - started_seconds
        merge_seconds = committed_seconds - prepared_seconds
        self._sizes.measured(
            chunk.decoded_bytes, work_seconds, merge_seconds, collapsed=prepared.collapsed
        )
        stored_bytes = log.stored_bytes(start, chunk.last_batch)
        self._last = ChunkCost(stored_bytes, work_seconds, merge_seconds)
        if self._on_chunk is not None:
            self._on_chunk(
                ChunkReport(
                    transform=self._transform.name,
                    first_batch=chunk.first_batch,
                    last_batch=chunk.last_batch,
                    head=max(report.head for report in self._reports.values()),
                    records=chunk.records,
                    counts=counts,
                    duration_seconds=committed_seconds - started_seconds,
                )
            )
        return chunk.last_batch

    def _waiting_keys(self, output: str) -> set[str]:
        """The keys that later changes wait behind, in append mode."""
        dataset = self._datasets[output]
        if dataset.mode != "append":
            return set()
        # Those of the chunk itself, if it came once before, are decided anew.
        position = self._reports[output].position
        quarantine = Quarantine(self._target, dataset.id)
        return waiting_keys(
            quarantine.waiting(self._tables[output].redriven(), through_batch=position)
        )

    def _finished(self, output: str, report: ApplyReport, duration_seconds: float) -> ApplyReport:
        facts = self._tables[output].facts()
        if facts is None:
            return replace(report, duration_seconds=duration_seconds)
        ignored = setting_ignored(self._datasets[output], facts)
        if ignored is not None:
            self._logger.warning("%s", ignored)
        return replace(
            report,
            row_count=facts.row_count,
            table_version=facts.version,
            columns=facts.columns,
            unexpected_columns=facts.unexpected,
            deletion_vectors=facts.deletion_vectors,
            rows_hidden=facts.deleted_rows,
            files=facts.files,
            size_bytes=facts.size_bytes,
            setting_ignored=ignored,
            duration_seconds=duration_seconds,
        )
