"""Columns of a dataset as of its last materialization.

A run reports the difference to the current columns as a schema change, no matter who made the
change, and even if a run died in between.
"""

from __future__ import annotations

from dagster import DagsterInstance, TableSchemaMetadataValue

from datazone_dagster.dagster_glue.names import dataset_key
from datazone_dagster.observe.schema_change import Columns


def known_columns(instance: DagsterInstance, dataset_id: str) -> Columns | None:
    """Return names and types of the columns; None if the dataset was never materialized."""
    latest = instance.get_latest_materialization_event(dataset_key(dataset_id))
    shown = latest.asset_materialization if latest is not None else None
    value = shown.metadata.get("dagster/column_schema") if shown is not None else None
    if not isinstance(value, TableSchemaMetadataValue):
        return None
    return [(column.name, column.type) for column in value.schema.columns]
