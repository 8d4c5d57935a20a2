"""Redrive: quarantined records pass through the function again and into their dataset.

Records go in their original order, a bounded portion at a time. Each portion is pinned in the
quarantine under a number, committed to the dataset with that number as the version of a separate
Delta transaction, and then marked. If the process dies in between, the next redrive compares
the numbers: records that are in the dataset are only marked, the others are tried again.

A record that violates an expectation stays in the quarantine with that reason, also where the
expectation fails a run: it must not keep the others of its portion back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.append_order import apply_contract, defer_later_changes, waiting_keys
from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk import FunctionResult
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.apply.expectations import Expectations
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.progress import added, added_counts, added_values
from datazone_dagster.apply.reparse import as_changes
from datazone_dagster.apply.tables import dataset_table, read_lookups, require_stream
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.mask_salt import check_salt
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.dataset.passed_records import are_passed
from datazone_dagster.dataset.quarantine import Quarantine, Redrive
from datazone_dagster.dataset.quarantine_rows import RECORD_ID
from datazone_dagster.dataset.repair_fence import RepairFence
from datazone_dagster.dataset.swap_fence import REDRIVE
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.quarantine_policy import keeps_order
from datazone_dagster.model.report import RedriveReport, RuleCount
from datazone_dagster.process import crash_points

_KEYS_OF_A_REASON = 5

ATTEMPTS = 5
"""Attempts at one portion while others write to the dataset or its quarantine."""


class Redriving:
    """One redrive of one dataset."""

    def __init__(
        self,
        transform: Transform,
        dataset: Dataset,
        layout: Layout,
        settings: ApplySettings,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._transform = transform
        self._dataset = dataset
        self._layout = layout
        self._sizes = ChunkSizes(settings, logger)
        self._clock = clock
        self._logger = logger
        self._output = next(name for name, one in transform.outputs.items() if one == dataset)
        limit = self._sizes.frame_memory_bytes
        self._table = dataset_table(dataset, transform, layout, limit)
        self._quarantine = Quarantine(layout, dataset.id)
        self._fence = RepairFence(layout, dataset.id, transform.source.name, clock, REDRIVE)
        # Most records of a quarantine may still fail: that is no sign of a broken function.
        self._function = Function(
            transform, self._table.state(), limit, logger, quarantine_limit=1.0
        )
        self._expectations = Expectations(
            {self._output: dataset},
            {self._output: self._table},
            limit,
            logger,
            show_rows=settings.show_rows,
            is_redrive=True,
        )
        self._tried: set[str] = set()
        self._still_failing: set[str] = set()

    def look(self) -> RedriveReport:
        """Report the waiting records, without redriving them."""
        waiting = self._quarantine.waiting(self._table.redriven(), columns=(Log.KEYS, Log.REASON))
        reasons = _reasons(waiting)
        return RedriveReport(
            self._dataset.id,
            waiting=len(waiting),
            reasons=reasons,
            keys=tuple(_first_keys(waiting, reason) for reason, _ in reasons),
        )

    def run(self) -> RedriveReport:
        """Redrive the waiting records of batches that the dataset has passed."""
        require_stream(self._transform, self._dataset.id, "redriven")
        try:
            return self._run(read_lookups(self._transform, self._layout).tables)
        finally:
            self._fence.lower()

    def _run(self, lookups: Mapping[str, pa.Table]) -> RedriveReport:
        report, failures = RedriveReport(self._dataset.id), 0
        while True:
            began_seconds = time.monotonic()
            try:
                done = self._next_portion(lookups, report)
            except ConcurrentWriterError as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise
                self._logger.info("A portion of the redrive is tried again: %s", error)
                self._fence.lost(failures, time.monotonic() - began_seconds)
                continue
            failures = 0
            if done is None:
                left = self.look()
                return replace(report, waiting=left.waiting, reasons=left.reasons, keys=left.keys)
            report = done

    def _next_portion(
        self, lookups: Mapping[str, pa.Table], report: RedriveReport
    ) -> RedriveReport | None:
        """Redrive one more portion; return the report, or None if nothing is left to try."""
        erasures = self._table.progress().erasures
        redrive = self._quarantine.start_redrive()
        if redrive is None:
            return None
        finished_redrive, now = self._table.redriven(), self._clock()
        portion = self._due(redrive, finished_redrive)
        if not len(portion):
            redrive.mark(finished_redrive, now)
            return None
        result = self._evaluated(redrive.read(portion), lookups)
        counts = self._expectations.counted({self._output: result} if result.rows else {})
        if len(result.changes):
            redrive.pin(result.changes, finished_redrive, now)
            crash_points.reach(crash_points.AFTER_REDRIVE_PIN)
            written = self._table.redrive(
                result.changes,
                result.rows[self._output],
                after_redrive=finished_redrive,
                number=redrive.number,
                now=now,
                state=self._function.state,
                erasures=erasures,
            )
            report = replace(
                report,
                redriven=report.redriven + len(result.changes),
                counts=report.counts + written.counts,
                sibling_values=added_values(
                    report.sibling_values,
                    self._function.reads.report,
                    result.rows[self._output],
                ),
                mismatches=added(report.mismatches, self._function.reads.report.mismatches),
                expectations=added_counts(
                    report.expectations,
                    _as_written(
                        self._dataset, counts[self._output], len(result.rows[self._output])
                    ),
                ),
            )
        # From here on the portion is decided: trying it again would change nothing.
        self._tried.update(portion[RECORD_ID].to_pylist())
        self._still_failing.update(waiting_keys(result.refused, self._dataset))
        try:
            if len(result.changes):
                redrive.mark(redrive.number, now)
            self._quarantine.put_again(result.refused, now)
        except ConcurrentWriterError as error:
            self._logger.info("The next redrive will mark the records of this one: %s", error)
        return report

    def _due(self, redrive: Redrive, finished_redrive: int) -> pa.Table:
        """Return the oldest waiting records, up to the size of a chunk, without their images.

        Only batches that the dataset has passed count: the others are still to be applied, and a
        run of the transform may take their records then. A bucket that is behind does not keep the
        records of others.
        """
        records = redrive.records(finished_redrive)
        table = dataset_state(self._layout, self._dataset.id).now()
        passed = are_passed(table, self._transform.source.name, records)
        tried = pc.is_in(records[RECORD_ID], pa.array(list(self._tried), pa.string()))
        records = records.filter(pc.and_not(passed, tried))
        sizes = pc.add(pc.fill_null(records[Log.SIZE_BYTES], 0), 1024)
        fitting = pc.less(pc.cumulative_sum(sizes), self._sizes.full_bytes)
        return records.slice(0, max(1, pc.sum(fitting).as_py() or 0))

    def _evaluated(self, portion: pa.Table, lookups: Mapping[str, pa.Table]) -> FunctionResult:
        log = ChangeLog(self._layout, self._transform.source).open()
        masks = Masks.of(self._transform.source)
        if log is not None and masks is not None:
            check_salt(self._transform.source.name, log, masks.salt_fingerprint)
        changes = as_changes(
            portion,
            masks,
            lambda batch: None if log is None else log.epoch_of(batch),
        )
        changes, refused = keyed(changes)
        if not len(changes):
            return FunctionResult(changes, {}, refused)
        location = f"{len(portion)} quarantined records"
        result = self._function.evaluate([self._output], changes, lookups, location)
        result = apply_contract(result, self._table, self._output)
        result = self._expectations.accepted(result, self._output)
        result = replace(result, refused=pa.concat_tables([refused, result.refused]))
        if keeps_order(self._dataset.mode):
            result = defer_later_changes(result, self._still_failing, self._output, self._dataset)
        return result


def _as_written(dataset: Dataset, counts: Iterable[RuleCount], rows: int) -> tuple[RuleCount, ...]:
    """Return the counts; those of expectations that fail a run are of the rows that were written.

    Their violations would say that a run failed. The quarantine shows what stayed there, and why.
    """
    fails = {rule for rule, one in dataset.expect if one.on_violation == "fail"}
    return tuple(
        replace(one, rows=rows, violations=0, example_key=None) if one.rule in fails else one
        for one in counts
    )


def _reasons(waiting: pa.Table) -> tuple[tuple[str, int], ...]:
    counted = waiting.group_by(Log.REASON).aggregate([([], "count_all")])
    found = zip(counted[Log.REASON].to_pylist(), counted["count_all"].to_pylist(), strict=True)
    return tuple(sorted(found, key=lambda item: (-item[1], item[0] or "")))


def _first_keys(waiting: pa.Table, reason: str) -> tuple[str, ...]:
    keys = waiting[Log.KEYS].filter(pc.equal(waiting[Log.REASON], reason)).drop_null()
    return tuple(keys.slice(0, _KEYS_OF_A_REASON).to_pylist())
