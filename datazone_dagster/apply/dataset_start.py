"""Where a dataset without a position begins: at the first change, or at a snapshot. Pure.

Everything that a dataset needs is in the change log from the announcement of a snapshot on: each
item lands in its scan, and each later change wins over it. A dataset that begins there begins
empty, so there is nothing of before that a sweep could have to delete.
"""

from __future__ import annotations

from datazone_dagster.api import Dataset
from datazone_dagster.model.log_reach import usable_base
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.snapshot_state import SnapshotState


def start_of(
    state: SnapshotState | None, truncated_through: int, dataset: Dataset, *, rebuilds: bool
) -> SnapshotBase | None:
    """Return the snapshot that a dataset begins with; None: it begins with the first change.

    It begins with a snapshot if older changes were removed, or if changes were lost before it:
    deletes among them are landed only for the keys that other datasets had.

    Args:
        state: State of the last snapshot of the source; None if there never was one.
        truncated_through: Last batch that was removed from the change log.
        dataset: The dataset.
        rebuilds: Whether the dataset has rows that the new ones replace. A rebuild then begins with
            a snapshot only where no row of before is meant to stay.
    """
    base = usable_base(state, truncated_through)
    if base is None or (rebuilds and keeps_the_past(dataset)):
        return None
    lost_deletes = base.repairs and dataset.mode != "append"
    return base if truncated_through or lost_deletes else None


def keeps_the_past(dataset: Dataset) -> bool:
    """Return whether a dataset has rows that the items of the table, as they are, do not show."""
    return dataset.mode != "merge" or dataset.deletes != "hard"
