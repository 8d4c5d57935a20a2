"""Columns of a dataset as of the last materialization that shows them.

A run reports the difference to the current columns as a schema change, no matter who made the
change, and even if a run died in between.
"""

from __future__ import annotations

from dagster import AssetKey, DagsterInstance, EventLogRecord, TableSchemaMetadataValue

from datazone_dagster.observe.schema_change import Columns

LOOKED_AT = (1, 200)
"""Materializations looked at for a schema: the last one has it, except where it is wide."""


def known_columns(instance: DagsterInstance, key: AssetKey) -> Columns | None:
    """Return names and types of the columns; None if no recent materialization shows them."""
    for limit in LOOKED_AT:
        found = instance.fetch_materializations(key, limit=limit)
        for record in found.records:
            columns = _columns(record)
            if columns is not None:
                return columns
        if len(found.records) < limit:
            return None
    return None


def _columns(record: EventLogRecord) -> Columns | None:
    shown = record.asset_materialization
    value = shown.metadata.get("dagster/column_schema") if shown is not None else None
    if not isinstance(value, TableSchemaMetadataValue):
        return None
    return [(column.name, column.type) for column in value.schema.columns]
