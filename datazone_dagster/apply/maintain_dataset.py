"""Maintenance of a dataset's table, as a run does it after its merges."""

from __future__ import annotations

import logging

from datazone_dagster.api import Dataset
from datazone_dagster.errors import StorageError
from datazone_dagster.model.column_names import EVENT_TIME, KEY
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from datazone_dagster.rows.table_maintenance import maintain


def order_of(dataset: Dataset) -> str:
    """The column that joined rows are sorted by: events are asked for by time, rows by key."""
    return EVENT_TIME if dataset.mode == "append" else KEY


def maintained(
    layout: Layout,
    dataset: Dataset,
    settings: MaintenanceSettings,
    clock: Clock,
    logger: logging.Logger,
    *,
    memory_bytes: int | None = None,
) -> MaintenanceReport | None:
    """Do what is due for a dataset; None if it has no table, or if the store failed.

    The changes are in the table by now: a store that fails here is told and tried again after
    the next merge, and the run has done its work all the same.
    `memory_bytes` is what it may take, None: no less than it likes.
    """
    try:
        report = maintain(
            layout,
            dataset.id,
            settings,
            clock(),
            order_by=order_of(dataset),
            memory_bytes=memory_bytes,
        )
    except StorageError as error:
        logger.warning("Maintenance of dataset %s: %s", dataset.id, error)
        return None
    if report is not None and report.did:
        logger.info("Maintenance of dataset %s: %s.", dataset.id, report.did)
    return report
