"""Shape of a dataset's table: how it is made, and the changes of columns with their own commit."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from datazone_dagster.delta import guarded
from datazone_dagster.delta.commit import can_come_with_rows
from datazone_dagster.delta.table import Table, created
from datazone_dagster.delta.write_table import add_columns
from datazone_dagster.errors import ResultError
from datazone_dagster.process import crash_points
from datazone_dagster.rows.conform import Conformed
from datazone_dagster.rows.overwrite import rewritten

KIND = "dataset"


def create_dataset(
    uri: str,
    storage_options: Mapping[str, str],
    dataset_id: str,
    schema: pa.Schema,
    *,
    partition_by: tuple[str, ...],
    configuration: Mapping[str, str],
    description: str | None,
) -> Table:
    """Create the table of a dataset.

    Raises:
        ResultError: A partition column is not in the schema.
        StorageError: The table can't be created.
    """
    missing = [name for name in partition_by if name not in schema.names]
    if missing:  # delta-rs would create a table that nobody can open
        raise ResultError(
            f"Dataset {dataset_id!r} is partitioned by {missing[0]!r}, which the function does not "
            "return.",
            safe="Nothing of the chunk was applied; the change log keeps it.",
            hint="Return that column, declare it in Dataset(schema=...), or choose another one "
            "in Dataset(partition_by=[...]).",
        )
    return created(
        uri,
        storage_options,
        KIND,
        schema,
        partition_by=partition_by,
        configuration=configuration,
        description=description,
    )


def change_schema(table: Table, conformed: Conformed, dataset_id: str) -> tuple[pa.Field, ...]:
    """Make the schema changes that need a commit of their own; return the other columns."""
    if conformed.widened:
        doing = f"Widening columns of dataset {dataset_id!r}"
        rewritten(table, conformed.schema, doing=doing)
        crash_points.reach(crash_points.AFTER_WIDENING)
        return ()
    if can_come_with_rows(conformed.added):
        return conformed.added
    with (
        guarded(table.uri, f"Adding columns to dataset {dataset_id!r}"),
        table.by_delta_rs() as handle,
    ):
        add_columns(handle, conformed.added)
    return ()
