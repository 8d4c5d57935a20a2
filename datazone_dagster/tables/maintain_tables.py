"""Maintenance of the tables of assets: after a write, and of all of them in a lakehouse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import DefinitionError, StorageError, UnrecognisedTableError
from datazone_dagster.model.layout import ASSET_KIND, Layout
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from datazone_dagster.rows.table_maintenance import maintain_table

SORTED_BY = "datazone.sorted_by"
"""Table property: column by which joined rows are sorted; absent: as they are."""


def maintain_asset_table(
    layout: Layout,
    name: str,
    settings: MaintenanceSettings,
    now: datetime,
    *,
    memory_bytes: int | None = None,
) -> MaintenanceReport | None:
    """Do the maintenance of the table of an asset that is due; None if there is no such table.

    Args:
        layout: Locations of the tables.
        name: Name of the table.
        settings: Work that is due, and its limits.
        now: The current time, for the retention.
        memory_bytes: Memory that maintenance may take.

    Raises:
        StorageError: The store failed; the rows are as they were.
    """
    table = _opened(layout, name)
    if table is None:
        return None
    sorted_by = table.properties.get(SORTED_BY)
    return maintain_table(
        table,
        settings,
        now,
        order_by=sorted_by if sorted_by in table.schema.names else None,
        memory_bytes=memory_bytes,
        doing=f"Maintaining the table {name!r}",
    )


def asset_tables(layout: Layout) -> Iterator[str]:
    """Yield the names of the tables of assets in a lakehouse.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    for name in sorted(TableStore(layout.uri, layout.storage_options).folders()):
        try:
            if _opened(layout, name) is not None:
                yield name
        except StorageError:  # a damaged log: the run that writes the table says so
            continue


def _opened(layout: Layout, name: str) -> Table | None:
    try:
        return opened(layout.table(name), layout.storage_options, ASSET_KIND)
    except (DefinitionError, UnrecognisedTableError):
        return None  # a folder of ours or of someone else, or a dataset
