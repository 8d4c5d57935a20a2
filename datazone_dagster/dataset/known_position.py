"""Position of a dataset, as the kept state of its table tells it."""

from __future__ import annotations

from collections.abc import Iterable

from datazone_dagster.dataset.bucket_positions import applied_batches
from datazone_dagster.dataset.dataset_progress import progress_of, require_changes
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import SCAN, generation_of, property_of
from datazone_dagster.delta.table_state import KeptTable, kept_table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, applied_through
from datazone_dagster.model.layout import Layout


def dataset_state(layout: Layout, dataset_id: str) -> KeptTable:
    """Return the state of a dataset's table that this process keeps."""
    return kept_table(layout.dataset(dataset_id), layout.storage_options, KIND)


def made_by_scans(table: Snapshot, source: str) -> bool:
    """Return whether scans of the DynamoDB table make the dataset: it has no position then."""
    return property_of(SCAN, generation_of(table, source)) in table.configuration


def positions_in(
    table: Snapshot | None, source: str, buckets: Iterable[KeyBucket]
) -> dict[KeyBucket, int]:
    """Return what `position_in` does, for several buckets at once.

    Raises:
        StorageError: As in `position_in`.
    """
    if table is None:
        return dict.fromkeys(buckets, 0)
    require_changes(table, source)
    batches = applied_batches(table, source)
    return {one: applied_through(batches, one) for one in buckets}


def position_in(table: Snapshot | None, source: str, bucket: KeyBucket = WHOLE) -> int:
    """Return the last batch whose rows are in a dataset's table; 0 if there is no table.

    Args:
        table: The dataset's table.
        source: Name of its source.
        bucket: Bucket whose rows count.

    Raises:
        StorageError: Scans make the dataset: it has no position in a stream. Or its table was
            restored, and the position of the rows is not known.
    """
    return 0 if table is None else progress_of(table, source, bucket).position
