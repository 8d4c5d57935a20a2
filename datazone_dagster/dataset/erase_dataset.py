"""Erasure from a dataset: its tables as `rows.erase_rows` needs them, and the datasets of a source.

The dataset's own table counts the erasures. A run that read the change log before an erasure
would write the erased rows again; it finds another count than at its start, and loses the race.
Tombstones and absorbed changes are written before that commit: their tables count them, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from datazone_dagster.dataset import absorbed_changes, dataset_table, quarantine, tombstones
from datazone_dagster.dataset.companion_table import ERASED
from datazone_dagster.dataset.dataset_progress import require_not_restored
from datazone_dagster.dataset.properties import apply_app_id, erase_app_id
from datazone_dagster.dataset.repair_fence import RepairFence
from datazone_dagster.dataset.swap_fence import ERASURE
from datazone_dagster.delta import Table
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table import opened
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.errors import DefinitionError, UnrecognisedTableError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.rows.erase_rows import ErasableTable, Search

_COMPANIONS = ("_tombstones", "_unseen", "_quarantine", "_rebuild")


def erasable_tables(
    layout: Layout, dataset_id: str, source: str, clock: Clock, *, by_key: Search, by_record: Search
) -> dict[str, ErasableTable]:
    """Return the tables of a dataset in the order in which rows have to be erased, by name.

    Args:
        layout: Layout of the lakehouse.
        dataset_id: The dataset.
        source: The source that the dataset is made from.
        clock: Returns the current time.
        by_key: Search by canonical key.
        by_record: Search in changes as the change log has them.
    """
    options = layout.storage_options

    def check(handle: Table) -> None:
        require_not_restored(read_snapshot(handle, options), source)

    fence = RepairFence(layout, dataset_id, source, clock, ERASURE)
    found = {
        f"dataset {dataset_id}": ErasableTable(
            layout.dataset(dataset_id),
            options,
            dataset_table.KIND,
            by_key,
            mark=erase_app_id(source),
            writers=(apply_app_id(source), f"redrive/{source}"),
            check=check,
        ),
        f"tombstones of {dataset_id}": ErasableTable(
            layout.tombstones(dataset_id), options, tombstones.KIND, by_key, mark=ERASED
        ),
        f"absorbed changes of {dataset_id}": ErasableTable(
            layout.absorbed_changes(dataset_id),
            options,
            absorbed_changes.KIND,
            by_key,
            mark=ERASED,
        ),
        f"quarantine of {dataset_id}": ErasableTable(
            layout.quarantine(dataset_id), options, quarantine.KIND, by_record
        ),
    }
    return {name: replace(one, lost=fence.lost, done=fence.lower) for name, one in found.items()}


def datasets_of(layout: Layout, source: str) -> list[str]:
    """Return the ids of all datasets of a source in the lakehouse, whoever declared them.

    An id of which only companion tables are left counts: nobody knows which source it had.

    Raises:
        StorageError: A table can't be read.
        OSError: The store failed.
    """
    tables = _folders(layout, "")
    companions = {name for folder in _COMPANIONS for name in _folders(layout, folder)}
    return sorted({*_of_source(layout, source, tables), *(companions - set(tables))})


def _folders(layout: Layout, folder: str) -> list[str]:
    uri = "/".join(part for part in (layout.uri.rstrip("/"), folder) if part)
    found = TableStore(uri, layout.storage_options).folders()
    return [name for name in found if not name.startswith(("_", "."))]


def _of_source(layout: Layout, source: str, names: list[str]) -> Iterator[str]:
    options = layout.storage_options
    for name in names:
        try:
            table = opened(layout.dataset(name), options, dataset_table.KIND)
        except (DefinitionError, UnrecognisedTableError):
            continue  # someone else's folder
        if table is None:
            continue
        marks = (app_id.partition("/") for app_id in table.at.transactions)
        sources = {of.partition("/")[0] for kind, _, of in marks if kind in ("apply", "redrive")}
        if not sources or source in sources:
            yield name
