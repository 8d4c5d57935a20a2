"""Backlog of a dataset, and the looks by which a sensor that stays learns what others did.

A tick of the sensor asks an object store as little as it can: it has just looked at the change
log, and a dataset that had applied everything before it can't have applied what it landed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.empty_ranges import surely_lacks
from datazone_dagster.changelog.followed_log import require_followed
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.known_position import dataset_state, position_in, positions_in
from datazone_dagster.dataset.stored_state import stored_state
from datazone_dagster.dataset.swap_fence import Fence, lower_fence, standing_fence
from datazone_dagster.dataset.table_shape import KIND
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.delta.table import opened
from datazone_dagster.errors import DatazoneError, StoreUnavailableError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Backlog


@converts_errors("Looking for changes that wait")
def backlog(
    source_name: str,
    dataset_id: str,
    layout: Layout,
    *,
    just_landed: int | None = None,
    bucket: KeyBucket = WHOLE,
) -> Backlog:
    """Return what a dataset has not applied yet, from the Delta logs alone.

    Args:
        source_name: Name of the source.
        dataset_id: Id of the dataset.
        layout: Locations of the tables.
        just_landed: Number of batches that this process has landed since the dataset can have
            looked; what it knows of the tables is enough then, and only a dataset that waits for
            earlier batches is looked at. None: both tables are looked at.
        bucket: Bucket of the dataset whose position counts. Its records are not told from those of
            the others: it has no backlog only if there is no batch after its position.

    Raises:
        SourceMismatchError: The dataset was made from another source or change log.
        StorageError: The dataset or the change log can't be read.
    """
    change_log, state = ChangeLog(layout, source_name), dataset_state(layout, dataset_id)
    log = change_log.open() if just_landed is None else change_log.known()
    known = state.now() if just_landed is None else state.seen()
    position = position_in(known, source_name, bucket)
    if log is not None and just_landed is not None and not state.store.is_local:
        before = log.head - just_landed
        if position < before and log.has_rows(position, before):
            position = position_in(state.now(), source_name, bucket)
    if log is not None and known is not None:
        if position > log.head:  # a run was faster than this look at the log
            log = change_log.open() or log
        made_from = stored_state(known, source_name).change_log
        require_followed(log, layout.dataset(dataset_id), position, made_from)
    if log is None or not log.has_rows(position, log.head):  # an erasure leaves empty batches
        return Backlog(0 if log is None else position, position, None)
    waiting = log.record_count() - log.record_count(position)
    return Backlog(log.head, position, log.oldest_event_time_after(position), waiting)


@converts_errors("Looking at what datasets have applied")
def applied_of_logs(source_name: str, dataset_ids: Sequence[str], layout: Layout) -> dict[str, int]:
    """Return the highest batch that one of these datasets has applied, by the id of its log.

    It is as this process knows the tables: the log has that batch, or is an older copy of itself. A
    dataset that can't be read is left out: it does not keep changes from landing.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    found: dict[str, int] = {}
    for dataset_id in dataset_ids:
        try:
            known = dataset_state(layout, dataset_id).seen()
            position = position_in(known, source_name)
        except StoreUnavailableError:
            raise
        except DatazoneError:
            continue
        log_id = "" if known is None else stored_state(known, source_name).change_log
        if log_id:
            found[log_id] = max(position, found.get(log_id, 0))
    return found


@converts_errors("Looking at the buckets of a dataset")
def bucket_positions(
    source_name: str, dataset_id: str, layout: Layout, buckets: int
) -> dict[KeyBucket, int]:
    """Return the position of each bucket of a dataset, as this process knows its table.

    Raises:
        StorageError: The dataset can't be read.
    """
    known = dataset_state(layout, dataset_id).seen()
    return positions_in(known, source_name, key_buckets(buckets))


@converts_errors("Looking for a rebuild that runs wait for")
def waits_for_rebuild(
    source_name: str, dataset_ids: Sequence[str], layout: Layout, now: datetime
) -> tuple[str, Fence] | None:
    """Return the dataset that makes runs of these wait the longest, and what for; None: none does.

    What this process knows of the tables is enough: `backlog` has just looked at them.

    Raises:
        StorageError: A dataset can't be read.
    """
    known = {one: dataset_state(layout, one).seen() for one in dataset_ids}
    fences = [
        (dataset_id, fence)
        for dataset_id, table in known.items()
        if table is not None and (fence := standing_fence(table, source_name, now)) is not None
    ]
    return max(fences, key=lambda one: one[1].until, default=None)


@converts_errors("Letting runs of a dataset go on")
def stop_waiting_for(source_name: str, dataset_id: str, layout: Layout, fence: Fence) -> None:
    """Let the runs of a dataset go on that make way for a run which is over.

    Raises:
        StorageError: The dataset can't be read or written, or others committed first each time.
    """
    table = opened(layout.dataset(dataset_id), layout.storage_options, KIND)
    if table is not None:
        lower_fence(table, source_name, fence.name, fence.run_id)
    dataset_state(layout, dataset_id).now()


@converts_errors("Looking for buckets with changes that wait")
def buckets_behind(
    source_name: str,
    dataset_ids: Sequence[str],
    layout: Layout,
    buckets: int,
    *,
    some_run: bool = False,
) -> tuple[KeyBucket, ...]:
    """Return the buckets of some datasets that have not reached the head of the change log.

    What this process knows of the tables is enough: `backlog` has just looked at them. A bucket
    that surely has no changes in the batches that it has not passed is left out, as long as another
    one may have some, or is being applied. Where that is not known, its run finds out.

    Args:
        source_name: Name of the source.
        dataset_ids: Ids of the datasets.
        layout: Locations of the tables.
        buckets: Number of buckets.
        some_run: Whether a run of some bucket is active: it moves the positions of those without
            changes.

    Raises:
        StorageError: A dataset or the change log can't be read.
    """
    log = ChangeLog(layout, source_name).known()
    if log is None:
        return ()
    of_each = [bucket_positions(source_name, one, layout, buckets) for one in dataset_ids]
    lowest = {one: min(of[one] for of in of_each) for one in key_buckets(buckets)}
    waits = {position: log.has_rows(position, log.head) for position in set(lowest.values())}
    behind = [one for one, position in lowest.items() if waits[position]]
    may_have = [one for one in behind if not surely_lacks(log, lowest[one], log.head, one)]
    # Positions of buckets without changes are moved by a run of any bucket.
    return tuple(may_have or ([] if some_run else behind[:1]))


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
