"""Maintenance by ticks of the drain sensor: truncate the change log, look at the datasets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count

from dagster import SensorEvaluationContext

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.sensors.tick_summary import counted
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import DrainReport
from datazone_dagster.pipeline import look_in_turn, truncate_applied

TRUNCATE_EVERY = timedelta(hours=1)


class TickMaintenance:
    """Maintenance of the tables of one source. What fails is left for a later tick.

    Args:
        source: Name of the source.
        keep_changes: Retention of applied changes; None: for good.
        clock: Function that returns the time in UTC.
    """

    def __init__(self, source: str, keep_changes: timedelta | None, clock: Clock) -> None:
        self._source = source
        self._keep_changes = keep_changes
        self._clock = clock
        self._truncated_at: datetime | None = None
        self._looks = count()

    def after(
        self,
        report: DrainReport,
        context: SensorEvaluationContext,
        layout: Layout,
        transforms: Sequence[Transform],
    ) -> None:
        """Do what is due after a drain."""
        ids = [dataset.id for one in transforms for dataset in one.outputs.values()]
        self._truncate(context, layout, ids)
        if report.batch is None:
            try:
                look_in_turn(self._source, sorted(ids), layout, next(self._looks))
            except DatazoneError as error:
                context.log.warning("A table could not be looked at; a later tick tries: %s", error)

    def _truncate(
        self, context: SensorEvaluationContext, layout: Layout, dataset_ids: Sequence[str]
    ) -> None:
        """Remove applied changes that are past their retention, at most once an hour."""
        now, retention = self._clock(), self._keep_changes
        if retention is None:
            return
        if self._truncated_at and now - self._truncated_at < TRUNCATE_EVERY:
            return
        self._truncated_at = now
        try:
            removed = truncate_applied(
                self._source,
                dataset_ids,
                layout,
                created_before=now - retention,
                logger=context.log,
            )
        except DatazoneError as error:
            context.log.warning("Old changes could not be removed; a later tick tries: %s", error)
            return
        if removed:
            changes = counted(removed, "change")
            context.log.info("Removed %s that every dataset has applied.", changes)
