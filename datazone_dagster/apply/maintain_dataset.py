"""Maintenance of a dataset's table after the merges of a run, and of its quarantine as well."""

from __future__ import annotations

import logging
from dataclasses import replace

from datazone_dagster.api import Dataset
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.errors import StorageError
from datazone_dagster.model.column_names import EVENT_TIME, KEY
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from datazone_dagster.rows.table_maintenance import maintain


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
    return report and replace(report, files_deleted=report.files_deleted + deleted)


def _maintain_table(
    layout: Layout,
    dataset: Dataset,
    settings: MaintenanceSettings,
    clock: Clock,
    memory_bytes: int,
) -> MaintenanceReport | None:
    order_by = EVENT_TIME if dataset.mode == "append" else KEY
    return maintain(
        layout, dataset.id, settings, clock(), order_by=order_by, memory_bytes=memory_bytes
    )


def maintained(
    layout: Layout,
    dataset: Dataset,
    settings: MaintenanceSettings,
    clock: Clock,
    logger: logging.Logger,
    *,
    memory_bytes: int,
) -> MaintenanceReport | None:
    """Do the maintenance that is due after a merge; return None also if the store failed.

    The changes are in the table already: a failure of the store is logged and does not fail the
    run, and the next merge tries again.
    """
    try:
        report = _maintain_table(layout, dataset, settings, clock, memory_bytes)
    except StorageError as error:
        logger.warning("Maintenance of dataset %s: %s", dataset.id, error)
        return None
    if report is not None and report.did:
        logger.info("Maintenance of dataset %s: %s.", dataset.id, report.did)
    return report
