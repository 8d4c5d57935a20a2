"""Position of a dataset, as the kept state of its table tells it."""

from __future__ import annotations

from datazone_dagster.dataset.dataset_table import KIND, DatasetTable
from datazone_dagster.dataset.properties import SCAN, apply_app_id, property_of, rebuild_app_id
from datazone_dagster.delta.table_state import KeptTable, kept_table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.layout import Layout


def dataset_state(layout: Layout, dataset_id: str) -> KeptTable:
    """Return the state of a dataset's table that this process keeps."""
    return kept_table(layout.dataset(dataset_id), layout.storage_options, KIND)


def made_by_scans(table: Snapshot, source: str) -> bool:
    """Return whether scans of the DynamoDB table make the dataset: it has no position then."""
    generation = table.transaction(rebuild_app_id(source))
    return property_of(SCAN, generation) in table.configuration


def position_in(table: Snapshot | None, layout: Layout, dataset_id: str, source: str) -> int:
    """Return the last batch in a dataset's table; 0 if there is no table or no batch.

    Raises:
        StorageError: Scans make the dataset: it has no position in a stream.
    """
    if table is None:
        return 0
    if made_by_scans(table, source):
        return DatasetTable(layout, dataset_id, source, mode="merge").position()
    return table.transaction(apply_app_id(source))
