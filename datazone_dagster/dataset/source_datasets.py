"""The datasets of a source, found in the lakehouse: whoever declared them, in whatever project."""

from __future__ import annotations

from datazone_dagster.dataset.bucket_positions import apply_app_ids, position_of_bucket
from datazone_dagster.dataset.known_position import dataset_state, made_by_scans
from datazone_dagster.delta import guarded
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.errors import DefinitionError, UnrecognisedTableError
from datazone_dagster.model.key_bucket import WHOLE
from datazone_dagster.model.layout import Layout, checked_dataset_id


@converts_errors("Looking for datasets")
def datasets_of_source(source: str, layout: Layout) -> dict[str, int]:
    """Return the position of every dataset that has applied changes of a source, by dataset id.

    Tables of others in the lakehouse, datasets of other sources, and those that scans make without
    a stream are left out. A dataset whose first run has not committed yet has no position. One with
    buckets is where the last of them is.

    Raises:
        StorageError: The lakehouse, or one of its datasets, can't be read.
    """
    with guarded(layout.uri, "Listing the datasets of the lakehouse"):
        folders = TableStore(layout.uri, layout.storage_options).folders()
    positions = {}
    for name in sorted(filter(_is_dataset_id, folders)):
        try:
            table = dataset_state(layout, name).now()
        except UnrecognisedTableError:
            continue
        if table is None or made_by_scans(table, source):
            continue
        if any(map(table.transaction, apply_app_ids(table, source))):
            positions[name] = position_of_bucket(table, source, WHOLE)
    return positions


def _is_dataset_id(name: str) -> bool:
    try:
        return bool(checked_dataset_id(name))
    except DefinitionError:
        return False
