"""The columns of a dataset as its last materialization showed them.

The difference to what they are now is the schema change that a run reports, whoever made it
and wherever a run died in between.
"""

from __future__ import annotations

from dagster import DagsterInstance, TableSchemaMetadataValue

from datazone_dagster.dagster_glue.names import dataset_key
from datazone_dagster.observe.schema_change import Columns


def known_columns(instance: DagsterInstance, dataset_id: str) -> Columns | None:
    """Names and types of the columns then; None if the dataset was never materialized."""
    latest = instance.get_latest_materialization_event(dataset_key(dataset_id))
    shown = latest.asset_materialization if latest is not None else None
    value = shown.metadata.get("dagster/column_schema") if shown is not None else None
    if not isinstance(value, TableSchemaMetadataValue):
        return None
    return [(column.name, column.type) for column in value.schema.columns]
