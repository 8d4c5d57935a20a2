"""Positions of buckets that have no change in a range: whoever has passed it moves them along.

A bucket without changes would need a run and a commit of its own each time the stream moves on. The
change log says of small batches which slots their keys have, so a run of any bucket knows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from datazone_dagster.dataset.bucket_positions import (
    applied_batches,
    independent_of,
    restored_positions,
)
from datazone_dagster.dataset.properties import apply_app_id
from datazone_dagster.dataset.stored_state import stored_start
from datazone_dagster.dataset.swap_fence import fenced_until
from datazone_dagster.delta import transactions
from datazone_dagster.delta.table import Table
from datazone_dagster.model.key_bucket import KeyBucket, applied_through, key_buckets
from datazone_dagster.rows.append import append

IsEmpty = Callable[[int, int, KeyBucket], bool]
"""Whether a bucket surely has no change in the batches after the first one, through the second."""


def pass_idle(
    table: Table,
    source: str,
    bucket: KeyBucket,
    through_batch: int,
    is_empty: IsEmpty,
    now: datetime,
) -> int:
    """Move the positions of buckets without changes, in one commit; return how many were moved.

    A bucket that has not begun begins itself if the dataset begins with a snapshot.

    Args:
        table: Table of the dataset.
        source: Name of its source.
        bucket: Bucket of the run, which moves its own position.
        through_batch: Batch that the others may be moved to.
        is_empty: Which ranges have nothing of a bucket.
        now: The current time.

    Raises:
        ConcurrentWriterError: A run of one of these buckets, or a rebuild, came first; nothing was
            moved.
        StorageError: The store failed.
    """
    if restored_positions(table.at, source) or fenced_until(table.at, source, now) is not None:
        return 0
    batches, starts = applied_batches(table.at, source), stored_start(table.at, source) is not None
    positions = {one: applied_through(batches, one) for one in key_buckets(bucket.of)}
    idle = [
        one
        for one, at in positions.items()
        if one != bucket
        and (at or not starts)
        and at < through_batch
        and is_empty(at, through_batch, one)
    ]
    if idle:
        moved = transactions({apply_app_id(source, one): through_batch for one in idle})
        rows = table.schema.empty_table()
        append(table, rows, moved, independent=independent_of(source, *idle))
    return len(idle)
