"""Counts of a source and one of its datasets, from statistics alone."""

from __future__ import annotations

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import FlowCounts


def flow_counts(source_name: str, dataset_id: str, layout: Layout) -> FlowCounts:
    """Count the records of a source and the rows of a dataset, from statistics alone.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    log = ChangeLog(layout, source_name).open()
    table = DatasetTable(layout, dataset_id, source_name, mode="merge")
    if log is None:
        return FlowCounts(0, 0, 0)
    facts = table.facts()
    applied = log.record_count(table.position())
    return FlowCounts(log.record_count(), applied, 0 if facts is None else facts.row_count)
