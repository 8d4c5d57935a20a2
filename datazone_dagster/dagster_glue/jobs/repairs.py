"""Rebuild and redrive of a dataset, with the events that tell Dagster, for jobs and commands.

A run reports what it did to a dataset; these two change the same rows, so they report the same
events: a materialization, and the evaluations of the dataset's checks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dagster import DagsterInstance

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.assets.known_schema import known_columns
from datazone_dagster.dagster_glue.checks.applied import Applied
from datazone_dagster.dagster_glue.checks.dataset_checks import schema_of, state_of
from datazone_dagster.dagster_glue.checks.expectation_checks import known_expectations
from datazone_dagster.dagster_glue.checks.first_backlogs import FirstBacklogs
from datazone_dagster.dagster_glue.checks.rendering import Event, applied_events
from datazone_dagster.dagster_glue.sensors.freshness import known_caught_up_at
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.report import ApplyReport, ChunkReport, RedriveReport
from datazone_dagster.observe.expectation_status import expectation_statuses
from datazone_dagster.pipeline import (
    ApplySettings,
    RebuildReport,
    dataset_report,
    rebuild_dataset,
    redrive_dataset,
)
from datazone_dagster.text import shown

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repair:
    """Repairs of one dataset.

    Args:
        transform: Transform that writes the dataset.
        dataset: The dataset.
        keys: Keys of its assets.
        layout: Locations of the tables.
        preview: Whether metadata may show rows.
        settings: Bounds of the work.
        clock: Function that returns the time in UTC.
        logger: Logger of progress and warnings.
    """

    transform: Transform
    dataset: Dataset
    keys: AssetKeys
    layout: Layout
    preview: bool
    settings: ApplySettings = field(default_factory=ApplySettings)
    clock: Clock = utc_now
    logger: logging.Logger = _logger

    def rebuild(self, on_chunk: Callable[[ChunkReport], None] | None = None) -> RebuildReport:
        """Rebuild the dataset from the change log, as `rebuild_dataset`."""
        return rebuild_dataset(
            self.transform,
            self.dataset.id,
            self.layout,
            settings=self.settings,
            clock=self.clock,
            on_chunk=on_chunk,
        )

    def redrive(self) -> RedriveReport:
        """Apply the quarantined records of the dataset, as `redrive_dataset`."""
        return redrive_dataset(
            self.transform,
            self.dataset.id,
            self.layout,
            settings=self.settings,
            clock=self.clock,
            logger=self.logger,
        )

    def rebuilt_events(self, done: RebuildReport, instance: DagsterInstance) -> Iterator[Event]:
        """Yield the events of a rebuild."""
        table, applied = self._table(), done.applied
        report = replace(
            applied,
            uri=table.uri,
            table_version=table.table_version,
            row_count=table.row_count,
            rows_hidden=table.rows_hidden,
            files=table.files,
            size_bytes=table.size_bytes,
            history=table.history,
        )
        more = {
            "rebuild": done.generation,
            "keys_checked": done.proof.keys,
            "keys_without_rows": done.proof.without_rows,
            "keys_unshown": done.unshown_keys,
        }
        yield from self._events(report, instance, more, changed=True)

    def redriven_events(self, done: RedriveReport, instance: DagsterInstance) -> Iterator[Event]:
        """Yield the events of a redrive: no materialization if it applied nothing."""
        report = replace(
            self._table(),
            counts=done.counts,
            records=done.redriven,
            sibling_values=done.sibling_values,
            mismatches=done.mismatches,
            expectations=done.expectations,
        )
        more = {"records_redriven": done.redriven}
        yield from self._events(report, instance, more, changed=done.redriven > 0)

    def _table(self) -> ApplyReport:
        return dataset_report(self.transform, self.dataset.id, self.layout)

    def _events(
        self,
        report: ApplyReport,
        instance: DagsterInstance,
        more: dict[str, int],
        *,
        changed: bool,
    ) -> Iterator[Event]:
        now = self.clock()
        caught_up_at = known_caught_up_at(instance, self.transform.source, self.keys)
        columns = known_columns(instance, self.keys.dataset(self.dataset.id))
        known = report.expectations or known_expectations(instance, self.dataset, self.keys)
        applied = Applied(
            report,
            state_of(
                self.transform,
                self.dataset,
                self.layout,
                now=now,
                caught_up_at=caught_up_at,
                judge=FirstBacklogs(self.keys).judge(instance, now),
            ),
            schema_of(self.dataset, columns, report),
            now,
            self.dataset.contract,
            expectation_statuses(self.dataset, known),
        )
        yield from applied_events(
            self.dataset.id,
            applied,
            self.keys,
            preview=self.preview,
            more=more,
            changed=changed,
            history=True,
        )


def report_outside_runs(events: Callable[[DagsterInstance], Iterator[Event]]) -> str | None:
    """Report events of a command to the instance of `DAGSTER_HOME`; return why not, if not."""
    if not os.environ.get("DAGSTER_HOME"):
        return "DAGSTER_HOME is not set: Dagster shows this with the next run of the dataset."
    # Broad on purpose: whatever the instance raises, the work is done and stays done.
    try:
        with DagsterInstance.get() as instance:
            for event in events(instance):
                instance.report_runless_asset_event(event)
    except Exception as error:  # noqa: BLE001 - see above
        return (
            "The work is done, but it could not be reported to Dagster: "
            f"{type(error).__name__}: {shown(error)}"
        )
    return None
