"""Maintenance of a dataset's table after the merges of a run, and of its quarantine as well."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from datazone_dagster.api import Dataset
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.delta.unfinished_uploads import with_aborted
from datazone_dagster.errors import StorageError
from datazone_dagster.model.column_names import EVENT_TIME, KEY
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import OWN_FOLDERS, Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.rows.bucket_files import Share
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from datazone_dagster.rows.table_maintenance import maintain

MAINTAIN_EVERY_SECONDS = 60.0
"""Shortest time between two pieces of maintenance of a run that stays."""


def maintain_dataset(
    layout: Layout,
    dataset: Dataset,
    settings: MaintenanceSettings,
    clock: Clock,
    *,
    memory_bytes: int,
) -> MaintenanceReport | None:
    """Do the maintenance that is due, also of the quarantine; return None if there is no table.

    Args:
        layout: Locations of the tables.
        dataset: Dataset of the table. Rewritten rows are sorted by the column that its readers
            filter by: events by time, rows by key.
        settings: Work that is due, and its limits.
        clock: Clock for the retention.
        memory_bytes: Memory limit, in bytes; it bounds the files that are joined at once.

    Raises:
        StorageError: The table can't be read or written; its rows are as they were.
    """
    report = _maintain_table(layout, dataset, settings, clock, memory_bytes)
    deleted = Quarantine(layout, dataset.id).delete_old_files(clock() - settings.retention)
    if report is None:
        return None
    report = replace(report, files_deleted=report.files_deleted + deleted)
    tables = (dataset.id, *OWN_FOLDERS)
    return with_aborted(report, layout.uri, layout.storage_options, clock(), tables)


def _maintain_table(
    layout: Layout,
    dataset: Dataset,
    settings: MaintenanceSettings,
    clock: Clock,
    memory_bytes: int,
    bucket: KeyBucket = WHOLE,
) -> MaintenanceReport | None:
    order_by = EVENT_TIME if dataset.mode == "append" else KEY
    return maintain(
        layout,
        dataset.id,
        settings,
        clock(),
        order_by=order_by,
        memory_bytes=memory_bytes,
        share=Share(bucket, dataset.buckets),
    )


class MaintenanceInRun:
    """Maintenance of the datasets that a run merges into: while it waits, and at its end.

    The changes are in the tables already: a failure of the store is logged and does not fail the
    run, and the next time tries again.

    Args:
        layout: Locations of the tables.
        datasets: Datasets of the run, by output.
        settings: Work that is due, and its limits.
        clock: Clock for the retention.
        logger: Logger of what was done.
        bucket: Bucket of the run: other runs maintain the files of the others.
    """

    def __init__(
        self,
        layout: Layout,
        datasets: Mapping[str, Dataset],
        settings: MaintenanceSettings,
        clock: Clock,
        logger: logging.Logger,
        bucket: KeyBucket = WHOLE,
    ) -> None:
        self._layout = layout
        self._datasets = datasets
        self._settings = settings
        self._clock = clock
        self._logger = logger
        self._bucket = bucket
        self._merged_into: set[str] = set()
        self._last_seconds = time.monotonic()

    def merged_into(self, outputs: Collection[str]) -> None:
        """Note that these datasets have a new merge."""
        self._merged_into |= set(outputs)

    @property
    def is_due(self) -> bool:
        """Whether the last time is long enough ago for a run that goes on."""
        return time.monotonic() - self._last_seconds >= MAINTAIN_EVERY_SECONDS

    def done(self, memory_bytes: int) -> dict[str, MaintenanceReport | None]:
        """Do what is due for the datasets merged into since the last time; return it by output.

        None: there was no table, or the store failed.
        """
        reports = {
            output: self._done(self._datasets[output], memory_bytes)
            for output in sorted(self._merged_into)
        }
        self._merged_into.clear()
        self._last_seconds = time.monotonic()
        return reports

    def _done(self, dataset: Dataset, memory_bytes: int) -> MaintenanceReport | None:
        try:
            report = _maintain_table(
                self._layout, dataset, self._settings, self._clock, memory_bytes, self._bucket
            )
        except StorageError as error:
            self._logger.warning("Maintenance of dataset %s: %s", dataset.id, error)
            return None
        if report is not None and report.did:
            self._logger.info("Maintenance of dataset %s: %s.", dataset.id, report.did)
        return report
