"""The datasets of a source, found in the lakehouse: whoever declared them, in whatever project."""

from __future__ import annotations

from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import (
    SCAN,
    apply_app_id,
    generation_of,
    property_of,
)
from datazone_dagster.delta import guarded, open_table
from datazone_dagster.delta.read_table import last_transaction, properties_of
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.errors import DefinitionError, UnrecognisedTableError
from datazone_dagster.model.layout import Layout, checked_dataset_id


@converts_errors("Looking for datasets")
def datasets_of_source(source: str, layout: Layout) -> dict[str, int]:
    """Return the position of every dataset that has applied changes of a source, by dataset id.

    Tables of others in the lakehouse, datasets of other sources, and those that scans make without
    a stream are left out. A dataset whose first run has not committed yet has no position.

    Raises:
        StorageError: The lakehouse, or one of its datasets, can't be read.
    """
    with guarded(layout.uri, "Listing the datasets of the lakehouse"):
        folders = TableStore(layout.uri, layout.storage_options).folders()
    positions = {}
    for name in sorted(filter(_is_dataset_id, folders)):
        try:
            table = open_table(layout.dataset(name), layout.storage_options, KIND)
        except UnrecognisedTableError:
            continue
        if table is None or property_of(SCAN, generation_of(table, source)) in properties_of(table):
            continue
        position = last_transaction(table, apply_app_id(source))
        if position:
            positions[name] = position
    return positions


def _is_dataset_id(name: str) -> bool:
    try:
        return bool(checked_dataset_id(name))
    except DefinitionError:
        return False
