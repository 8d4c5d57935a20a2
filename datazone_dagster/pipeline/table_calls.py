"""Operations on the tables of assets, part of the facade."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datazone_dagster.dataset.read_dataset import read
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.delta.unfinished_uploads import with_aborted
from datazone_dagster.errors import StorageError
from datazone_dagster.model.asset_write import AssetWrite
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.partition_slice import PartitionSlice
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.model.table_written import TableWritten
from datazone_dagster.process import crash_points
from datazone_dagster.rows.maintenance_plan import THOROUGH, MaintenanceSettings
from datazone_dagster.tables.asset_table import AssetTable
from datazone_dagster.tables.maintain_tables import asset_tables as _asset_tables
from datazone_dagster.tables.maintain_tables import maintain_asset_table as _maintain
from datazone_dagster.tables.table_input import accepts_none, by_partition_key, table_as

_MEMORY_BYTES = 512 << 20
"""Memory that maintenance after a write may take."""

_logger = logging.getLogger(__name__)


@converts_errors("Writing the table of an asset")
def write_table(
    layout: Layout,
    name: str,
    write: AssetWrite,
    returned: object,
    *,
    part: PartitionSlice | None = None,
    step: str | None = None,
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
) -> TableWritten:
    """Write what an asset returned into its table, and do a bounded piece of its maintenance.

    Args:
        layout: Locations of the tables.
        name: Name of the table, see `Layout.table`.
        write: How the result is written.
        returned: Rows, in any form that `tables/result_stream.py` knows.
        part: Partitions of the run; None if the asset has none.
        step: Identity of the run and its step: an append of the same one is done once.
        clock: Clock for retentions.
        logger: Logger of what was done.

    Raises:
        DefinitionError: The metadata does not fit the columns.
        TransformError: The result can't be written; the table is as it was.
        StorageError: The store failed, or the table there belongs to someone else.
    """
    table = AssetTable(layout, name, write, part)
    written = table.put(returned, step=step, now=clock())
    crash_points.reach(crash_points.AFTER_DATASET_COMMIT)
    if written.table_version is None:
        return written
    try:
        done = _maintain(layout, name, MaintenanceSettings(), clock(), memory_bytes=_MEMORY_BYTES)
    except StorageError as error:  # the rows are in the table already
        logger.warning("Maintenance of the table %s: %s", name, error)
        return written
    if done is not None and done.did:
        logger.info("Maintenance of the table %s: %s.", name, done.did)
    return replace(written, maintenance=done)


@converts_errors("Reading the table of an asset")
def load_table(
    layout: Layout,
    name: str,
    annotated: Any,
    *,
    parameter: str,
    columns: Sequence[str] | None = None,
    part: PartitionSlice | None = None,
    by_key: Sequence[tuple[str, PartitionSlice]] = (),
) -> object:
    """Return the table of an asset or a dataset in the type of an annotation.

    Args:
        layout: Locations of the tables.
        name: Name of the table.
        annotated: The type.
        parameter: Name of the parameter, for errors.
        columns: Names of the columns to read; None: all.
        part: Partitions to read; None: all rows.
        by_key: Each of these partitions alone, for a mapping.

    Raises:
        DefinitionError: The type is not supported, or there is no such column.
        StorageError: There is no table, or it can't be read.
    """
    reader = read(layout, name)
    if reader is None:
        if accepts_none(annotated):
            return None
        raise StorageError(
            f"The table of {name!r} is not at {layout.table(name)} yet.",
            hint="The first materialization of that asset creates it. Annotate the parameter with "
            "`| None` if it may be missing.",
        )
    value_type = by_partition_key(annotated) if part is not None else None
    if value_type is None:
        return table_as(reader, annotated, parameter=parameter, columns=columns, part=part)
    return {
        key: table_as(reader, value_type, parameter=parameter, columns=columns, part=one)
        for key, one in by_key
    }


@converts_errors("Looking for tables of assets")
def asset_tables(layout: Layout) -> list[str]:
    """Return the names of the tables of assets in a lakehouse.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    return list(_asset_tables(layout))


@converts_errors("Maintaining the table of an asset")
def maintain_asset_table(
    layout: Layout,
    name: str,
    *,
    settings: MaintenanceSettings = THOROUGH,
    clock: Clock = utc_now,
) -> MaintenanceReport | None:
    """Do the maintenance of the table of an asset that is due; None if there is no such table.

    Raises:
        StorageError: The store failed; the rows are as they were.
    """
    report = _maintain(layout, name, settings, clock(), memory_bytes=_MEMORY_BYTES)
    if report is None:
        return None
    return with_aborted(report, layout.uri, layout.storage_options, clock(), (name,))
