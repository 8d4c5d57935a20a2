"""A rebuilt table takes the place of a dataset's table, in one commit.

What was rebuilt stands in a lakehouse of its own until then. The commit replaces all rows, the
schema and the position at once: readers see the dataset before or after, its older versions
stay readable. What the dataset has beside its table comes first; it is harmless if the commit
then fails, because it only says of the same changes what the change log says.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction

from datazone_dagster.dataset.absorbed_changes import AbsorbedChanges
from datazone_dagster.dataset.dataset_table import KIND, schema_of
from datazone_dagster.dataset.properties import KEPT, generation_of, property_of, rebuild_app_id
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import guarded, open_table
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
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
    now: datetime,
) -> bool:
    """Put the rebuilt dataset in the place of the one that is there.

    Args:
        layout: Where the dataset is.
        rebuilt: Where the rebuilt one is.
        dataset_id: The dataset.
        source: The source that it is made of.
        generation: How often the dataset had been rebuilt when this rebuild began.
        now: The time, for tombstones and the quarantine.

    Returns:
        False if the dataset has applied more than the rebuilt one: nothing was written.

    Raises:
        ConcurrentWriterError: Another rebuild has taken over meanwhile, or a run commits in
            this moment; nothing was written.
        StorageError: The store failed; whether it happened, the table tells.
    """
    app_id = f"apply/{source}"
    table = open_table(layout.dataset(dataset_id), layout.storage_options, KIND)
    made = open_table(rebuilt.dataset(dataset_id), rebuilt.storage_options, KIND)
    if table is None or made is None or generation_of(table, source) != generation:
        raise ConcurrentWriterError(
            f"Dataset {dataset_id!r} or what was rebuilt of it is not what it was.",
            safe="Nothing was written.",
        )
    position = made.transaction_version(app_id) or 0
    if position < (table.transaction_version(app_id) or 0):
        return False
    marks = (app_id, f"redrive/{source}", rebuild_app_id(source))
    found = [table.transaction_version(mark) for mark in marks]
    _absorb_companions(layout, rebuilt, dataset_id, now)
    _copy_properties(made, table, layout, generation)
    # That commit moves the handle, perhaps past one of a run.
    if [table.transaction_version(mark) for mark in marks] != found:
        raise ConcurrentWriterError(
            f"Dataset {dataset_id!r}: a run or another rebuild has committed meanwhile.",
            safe="No row was written; its work stands.",
        )
    crash_points.reach(crash_points.BEFORE_SWAP)
    commit = CommitProperties(
        app_transactions=[
            Transaction(app_id, position),
            Transaction(rebuild_app_id(source), generation + 1),
        ],
        max_commit_retries=0,
    )
    schema = schema_of(made)
    with guarded(layout.dataset(dataset_id), f"Taking over dataset {dataset_id!r}"):
        replace_rows(
            table,
            _rows(made, schema),
            schema,
            commit,
            partition_by=made.metadata().partition_columns,
        )
    crash_points.reach(crash_points.AFTER_SWAP)
    return True


def _rows(made: DeltaTable, schema: pa.Schema) -> Iterator[pa.Table]:
    for batch in table_batches(made):
        yield aligned(batch, schema)


def _absorb_companions(layout: Layout, rebuilt: Layout, dataset_id: str, now: datetime) -> None:
    Tombstones(layout, dataset_id).absorb(Tombstones(rebuilt, dataset_id), now)
    AbsorbedChanges(layout, dataset_id).absorb(AbsorbedChanges(rebuilt, dataset_id), now)
    Quarantine(layout, dataset_id).put(Quarantine(rebuilt, dataset_id).waiting(), now)


def _copy_properties(made: DeltaTable, table: DeltaTable, layout: Layout, generation: int) -> None:
    """Under the names of the new generation: until it has taken over, nobody looks there."""
    held = made.metadata().configuration
    kept = {
        property_of(name, generation + 1): held[property_of(name, 0)]
        for name in KEPT
        if property_of(name, 0) in held
    }
    if kept and any(table.metadata().configuration.get(name) != kept[name] for name in kept):
        set_properties(table, layout.storage_options, kept)
