"""Keys of a dataset that nothing has shown since an epoch began: those a sweep asks for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import MODE, generation_of, property_of
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.delta import guarded
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.model.column_names import DELETED, EVENT_TIME, IS_CURRENT, KEY, VERSION, Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import row_version


@dataclass(frozen=True, slots=True)
class Stale:
    """Stale keys of a dataset.

    Args:
        keys: Number of rows with a stale key: of the current ones in a history dataset.
        rows: Number of all rows.
    """

    keys: int
    rows: int


def count_stale(
    source: str,
    dataset_id: str,
    layout: Layout,
    epoch: int,
    *,
    changed_since: datetime | None = None,
) -> Stale:
    """Count the rows below an epoch; a dataset of events has none, as it never deletes.

    Args:
        source: Name of the source.
        dataset_id: Id of the dataset.
        layout: Locations of the tables.
        epoch: The epoch.
        changed_since: Time from which on the rows were changed; None: at any time.

    Raises:
        StorageError: The dataset can't be read.
    """
    table = _swept(source, dataset_id, layout)
    if table is None:
        return Stale(0, 0)
    with guarded(layout.dataset(dataset_id), "Counting keys that no scan has shown"):
        where = _below(table, epoch, changed_since)
        keys = sum(len(batch) for batch in table.scan([KEY], where))
        rows = table.at.live_rows
    return Stale(keys, rows)


def stale_keys(
    source: str,
    dataset_id: str,
    layout: Layout,
    epoch: int,
    *,
    after: str,
    most: int,
    changed_since: datetime | None = None,
) -> list[str]:
    """Return the first stale keys in order, at most `most`, from those greater than `after`.

    Raises:
        StorageError: The dataset can't be read.
    """
    table = _swept(source, dataset_id, layout)
    first = pa.array([], pa.string())
    if table is None:
        return []
    with guarded(layout.dataset(dataset_id), "Looking for keys that no scan has shown"):
        for batch in table.scan([KEY], _below(table, epoch, changed_since)):
            keys = pc.unique(batch.column(0).cast(pa.string()))
            first = pc.unique(pa.concat_arrays([first, keys.filter(pc.greater(keys, after))]))
            if len(first) > most:
                first = first.take(pc.sort_indices(first)[:most])
    found: list[str] = first.to_pylist()
    return sorted(found)[:most]


def quarantined_keys(source: str, dataset_id: str, layout: Layout, epoch: int) -> pa.Array:
    """Return the keys, as DynamoDB JSON, of changes below an epoch that wait to be redriven.

    Raises:
        StorageError: The quarantine can't be read.
    """
    if _swept(source, dataset_id, layout) is None:
        return pa.array([], pa.string())
    waiting = Quarantine(layout, dataset_id).waiting(columns=(Log.KEYS, Log.VERSION))
    older = pc.less(waiting[Log.VERSION].cast(pa.string()), row_version(epoch, 0))
    return pc.unique(waiting.filter(older)[Log.KEYS].cast(pa.string()))


def _below(table: Table, epoch: int, changed_since: datetime | None) -> str:
    conditions = [f"{VERSION} < '{row_version(epoch, 0)}'"]
    if changed_since is not None:
        whole_second = changed_since.replace(microsecond=0)  # as the service cuts event times
        conditions.append(f"{EVENT_TIME} >= TIMESTAMP '{whole_second.isoformat()}'")
    names = table.schema.names
    conditions += [IS_CURRENT] if IS_CURRENT in names else []
    conditions += [f"NOT coalesce({DELETED}, false)"] if DELETED in names else []
    return " AND ".join(conditions)


def _swept(source: str, dataset_id: str, layout: Layout) -> Table | None:
    """Open a dataset that represents the items, not the events, of its source."""
    table = _opened(layout, dataset_id)
    if table is None:
        return None
    name = property_of(MODE, generation_of(table.at, source))
    return None if table.properties.get(name) == "append" else table


def _opened(layout: Layout, dataset_id: str) -> Table | None:
    return opened(layout.dataset(dataset_id), layout.storage_options, KIND)
