"""A redrive: quarantined records through the function once more, and back into their dataset.

Records go in the order in which they came, a bounded part at a time. Each part is pinned in
the quarantine under a number, committed to the dataset with that number as the version of its
own Delta transaction, and then marked. Whatever dies in between, the next redrive compares
the numbers: what is in the dataset is only marked, what is not is taken again.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.append_order import hold_back, waiting_keys
from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.apply.function import Function, FunctionResult
from datazone_dagster.apply.reparse import as_changes
from datazone_dagster.apply.tables import dataset_table, read_lookups
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.quarantine import RECORD_ID, Quarantine, Redrive
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import RedriveReport
from datazone_dagster.process import crash_points

ATTEMPTS = 5
"""Tries of one part while others write to the dataset or its quarantine."""


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
        self._sizes = ChunkSizes(settings)
        self._clock = clock
        self._logger = logger
        self._output = next(name for name, one in transform.outputs.items() if one == dataset)
        self._table = dataset_table(dataset, transform, layout)
        self._quarantine = Quarantine(layout, dataset.id)
        self._function = Function(
            transform, self._table.attributes(), self._sizes.frame_memory_bytes, logger
        )
        self._tried: set[str] = set()
        self._still_failing: set[str] = set()

    def look(self) -> RedriveReport:
        """What waits, without doing anything about it."""
        waiting = self._quarantine.waiting(self._table.redriven())
        return RedriveReport(self._dataset.id, waiting=len(waiting), reasons=_reasons(waiting))

    def run(self) -> RedriveReport:
        """Bring back what waits now and what the dataset has passed."""
        report = RedriveReport(self._dataset.id)
        lookups = read_lookups(self._transform, self._layout)
        failures = 0
        while True:
            try:
                done = self._next_row_group(lookups, report)
            except ConcurrentWriterError as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise
                self._logger.info("A part of the redrive is tried again: %s", error)
                continue
            failures = 0
            if done is None:
                left = self.look()
                return replace(report, waiting=left.waiting, reasons=left.reasons)
            report = done

    def _next_row_group(
        self, lookups: dict[str, pa.Table], report: RedriveReport
    ) -> RedriveReport | None:
        """The report after one more part, or None if nothing is left to try."""
        redrive = self._quarantine.start_redrive()
        if redrive is None:
            return None
        updated_checkpoint, now = self._table.redriven(), self._clock()
        part = self._due(redrive, updated_checkpoint)
        if not len(part):
            redrive.mark(updated_checkpoint, now)
            return None
        taken = self._taken(part, lookups)
        if len(taken.changes):
            redrive.pin(taken.changes, updated_checkpoint, now)
            crash_points.reach(crash_points.AFTER_REDRIVE_PIN)
            written = self._table.redrive(
                taken.changes,
                taken.rows[self._output],
                after_redrive=updated_checkpoint,
                number=redrive.number,
                now=now,
                attributes=self._function.attributes,
            )
            report = replace(
                report,
                redriven=report.redriven + len(taken.changes),
                counts=report.counts + written.counts,
            )
        # From here on the part is decided: trying it again would change nothing.
        self._tried.update(part[RECORD_ID].to_pylist())
        self._still_failing.update(waiting_keys(taken.refused))
        try:
            if len(taken.changes):
                redrive.mark(redrive.number, now)
            self._quarantine.put(_as_they_were(part, taken.refused), now)
        except ConcurrentWriterError as error:
            self._logger.info("What was redriven is marked by the next redrive: %s", error)
        return report

    def _due(self, redrive: Redrive, updated_checkpoint: int) -> pa.Table:
        """The oldest records that wait, up to the bound of a chunk.

        Only of batches that the dataset has passed: the others are still to be applied, and a
        run of the transform may take them then.
        """
        records = redrive.records(updated_checkpoint)
        passed = pc.less_equal(records[Log.BATCH], self._table.position())
        tried = pc.is_in(records[RECORD_ID], pa.array(list(self._tried), pa.string()))
        records = records.filter(pc.and_not(passed, tried))
        sizes = pc.add(pc.fill_null(records[Log.SIZE_BYTES], 0), 1024)
        fitting = pc.less(pc.cumulative_sum(sizes), self._sizes.full_bytes)
        return records.slice(0, max(1, pc.sum(fitting).as_py() or 0))

    def _taken(self, part: pa.Table, lookups: dict[str, pa.Table]) -> FunctionResult:
        log = ChangeLog(self._layout, self._transform.source.name).open()
        changes = as_changes(
            part,
            self._transform.source,
            lambda batch: None if log is None else log.epoch_of(batch),
        )
        changes, refused = keyed(changes)
        if not len(changes):
            return FunctionResult(changes, {}, refused)
        place = f"{len(part)} quarantined records"
        taken = self._function.take([self._output], changes, lookups, place)
        fit, rows, unfit = self._table.fitting(taken.changes, taken.rows[self._output])
        taken = FunctionResult(
            fit, {self._output: rows}, pa.concat_tables([refused, taken.refused, unfit])
        )
        if self._dataset.mode == "append":
            taken = hold_back(taken, self._still_failing, self._output)
        return taken


def _as_they_were(part: pa.Table, refused: pa.Table) -> pa.Table:
    """The records that stay, in the form in which they are quarantined, with the new reasons."""
    names = [RECORD_ID, Log.REASON]
    order = part.column_names
    joined = part.drop_columns([Log.REASON]).join(
        refused.select(names), keys=RECORD_ID, join_type="inner"
    )
    return joined.select(order).sort_by([(Log.BATCH, "ascending"), (Log.VERSION, "ascending")])


def _reasons(waiting: pa.Table) -> tuple[tuple[str, int], ...]:
    counted = waiting.group_by(Log.REASON).aggregate([([], "count_all")])
    found = zip(counted[Log.REASON].to_pylist(), counted["count_all"].to_pylist(), strict=True)
    return tuple(sorted(found, key=lambda item: (-item[1], item[0] or "")))
