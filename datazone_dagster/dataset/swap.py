"""Swap of a dataset's table for a rebuilt one, in one commit.

The rebuilt table is in a lakehouse of its own until then. The commit replaces all rows, the
schema and the position at once: readers see the dataset before or after, and its older versions
stay readable. The companion tables are written first. If the commit then fails, they are
harmless: they only repeat what the change log says of the same changes.
"""

from __future__ import annotations

from datetime import datetime

from datazone_dagster.dataset.absorbed_changes import AbsorbedChanges
from datazone_dagster.dataset.bucket_positions import apply_app_ids, marks_of
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import (
    MODE,
    PER_GENERATION,
    SCAN,
    apply_app_id,
    erasures_of,
    generation_of,
    outdated_properties,
    property_of,
    rebuild_app_id,
)
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import guarded, transactions
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.table import Table, created, opened
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.scan_facts import ScanFacts
from datazone_dagster.process import crash_points
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.overwrite import replace_rows, table_batches


def swap_in(
    layout: Layout,
    rebuilt: Layout,
    dataset_id: str,
    source: str,
    *,
    generation: int,
    erasures: int,
    now: datetime,
    scan: ScanFacts | None = None,
) -> bool:
    """Replace a dataset by its rebuilt version.

    Args:
        layout: Lakehouse of the dataset.
        rebuilt: Lakehouse of the rebuilt dataset.
        dataset_id: The dataset.
        source: The source that the dataset is made from.
        generation: Number of rebuilds of the dataset when this rebuild began.
        erasures: Count of erasures when this rebuild began: it may have read erased keys.
        now: The current time, for tombstones and the quarantine.
        scan: Scan that the rebuilt rows are from: the dataset may not exist yet, and has no
            position in the changes of a stream. None for a rebuild from changes.

    Returns:
        False if the dataset has applied more than the rebuilt one: nothing was written.

    Raises:
        ConcurrentWriterError: Another rebuild was swapped in or keys were erased meanwhile, or a
            run is committing; no row was written.
        StorageError: The store failed; the table's version shows whether the swap happened.
    """
    app_id = apply_app_id(source)
    companions = Tombstones(layout, dataset_id, source), AbsorbedChanges(layout, dataset_id, source)
    for companion in companions:
        companion.begin()
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    new_table = opened(rebuilt.dataset(dataset_id), rebuilt.storage_options, KIND)
    if table is None and new_table is not None and scan is not None:
        table = _created(layout, dataset_id, new_table)
    began = generation, erasures
    if (
        table is None
        or new_table is None
        or (generation_of(table.at, source), erasures_of(table.at, source)) != began
    ):
        raise ConcurrentWriterError(
            f"Dataset {dataset_id!r} was rebuilt or removed while this rebuild ran, keys were "
            "erased from it, or the rebuilt table is gone.",
            safe="Nothing was written.",
        )
    position, app_ids = new_table.transaction(app_id), {app_id, *apply_app_ids(table.at, source)}
    if scan is None and position < max(map(table.transaction, app_ids)):
        return False
    found = marks_of(table.at, source), generation_of(table.at, source)
    if scan is None:  # they are for changes that come late
        tombstones, absorbed = companions
        tombstones.copy_from(Tombstones(rebuilt, dataset_id, source), now)
        absorbed.copy_from(AbsorbedChanges(rebuilt, dataset_id, source), now)
    Quarantine(layout, dataset_id).copy_from(Quarantine(rebuilt, dataset_id), now)
    _copy_properties(new_table, table, generation, scan)
    # That commit may come after a commit of a run.
    if (marks_of(table.at, source), generation_of(table.at, source)) != found:
        raise ConcurrentWriterError(
            f"Dataset {dataset_id!r}: a run, a rebuild or an erasure has committed meanwhile.",
            safe="No row was written; the other commit is in effect.",
        )
    crash_points.reach(crash_points.BEFORE_SWAP)
    positions = dict.fromkeys(sorted(app_ids), position)
    commit = transactions({**positions, rebuild_app_id(source): generation + 1})
    schema = new_table.schema
    with (
        guarded(layout.dataset(dataset_id), f"Swapping in rebuilt dataset {dataset_id!r}"),
        table.by_delta_rs() as handle,
        new_table.by_delta_rs() as new_handle,
    ):
        replace_rows(
            handle,
            (aligned(batch, schema) for batch in table_batches(new_handle)),
            schema,
            commit,
            partition_by=new_table.partition_columns,
        )
    crash_points.reach(crash_points.AFTER_SWAP)
    if scan is not None:  # what earlier scans could not take, this one has read again
        Quarantine(layout, dataset_id).expire(now)
    return True


def _created(layout: Layout, dataset_id: str, new_table: Table) -> Table:
    """Create the table of a dataset that is scanned for the first time, without rows."""
    return created(
        layout.dataset(dataset_id),
        layout.storage_options,
        KIND,
        new_table.schema,
        partition_by=new_table.partition_columns,
        configuration={MODE: new_table.properties[MODE], SCAN: "{}"},
        description=new_table.at.metadata.get("description"),
    )


def _copy_properties(
    new_table: Table, table: Table, generation: int, scan: ScanFacts | None
) -> None:
    """Copy the properties under the new generation's names, which are unread until the swap."""
    source, current = new_table.properties, table.properties
    copied = {
        property_of(name, generation + 1): source[property_of(name, 0)]
        for name in PER_GENERATION
        if property_of(name, 0) in source
    }
    if scan is not None:
        copied[property_of(SCAN, generation + 1)] = scan.to_json()
    if any(current.get(name) != value for name, value in copied.items()):
        outdated = () if scan is None else outdated_properties(current, generation)
        set_properties(table, copied, outdated=outdated)
