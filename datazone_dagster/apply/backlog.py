"""Backlog of a dataset, and the looks by which a sensor that stays learns what others did.

A tick of the sensor asks an object store as little as it can: it has just looked at the change
log, and a dataset that had applied everything before it can't have applied what it landed.
"""

from __future__ import annotations

from collections.abc import Sequence

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.known_position import dataset_state, position_in
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Backlog


@converts_errors("Looking for changes that wait")
def backlog(
    source_name: str, dataset_id: str, layout: Layout, *, just_landed: int | None = None
) -> Backlog:
    """Return what a dataset has not applied yet, from the Delta logs alone.

    Args:
        source_name: Name of the source.
        dataset_id: Id of the dataset.
        layout: Locations of the tables.
        just_landed: Number of batches that this process has landed since the dataset can have
            looked; what it knows of the tables is enough then, and only a dataset that waits for
            earlier batches is looked at. None: both tables are looked at.

    Raises:
        StorageError: The dataset or the change log can't be read.
    """
    change_log, state = ChangeLog(layout, source_name), dataset_state(layout, dataset_id)
    log = change_log.open() if just_landed is None else change_log.known()
    known = state.now() if just_landed is None else state.seen()
    position = position_in(known, source_name)
    if log is not None and just_landed is not None and not state.store.is_local:
        before = log.head - just_landed
        if position < before and log.has_rows(position, before):
            position = position_in(state.now(), source_name)
    if log is None or not log.has_rows(position, log.head):  # an erasure leaves empty batches
        return Backlog(0 if log is None else position, position, None)
    waiting = log.record_count() - log.record_count(position)
    return Backlog(log.head, position, log.oldest_event_time_after(position), waiting)


@converts_errors("Looking at a table")
def look_in_turn(source_name: str, dataset_ids: Sequence[str], layout: Layout, turn: int) -> None:
    """Look at one table of a source, so that what others did to it is seen some ticks later.

    Every second look is at the checkpoint, the others are at the datasets one after another. The
    tables of a local lakehouse are looked at whenever they are used.

    Args:
        source_name: Name of the source.
        dataset_ids: Ids of its datasets.
        layout: Locations of the tables.
        turn: Number of the look.

    Raises:
        StorageError: The store failed.
    """
    checkpoint = CheckpointTable(layout, source_name).table
    if checkpoint.store.is_local:
        return
    if turn % 2 == 0 or not dataset_ids:
        checkpoint.now()
    else:
        dataset_state(layout, dataset_ids[turn // 2 % len(dataset_ids)]).now()
