"""Records of batches that a dataset has passed: each bucket of keys is at a batch of its own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.bucket_positions import applied_batches
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import SLOTS, WHOLE, applied_through, key_buckets


def are_passed(table: Snapshot | None, source: str, records: pa.Table) -> pa.Array:
    """Return per record whether its dataset has passed its batch, as far as its key is concerned.

    Args:
        table: Table of the dataset; None: it has none, and has passed nothing.
        source: Name of the dataset's source.
        records: Records with their keys and batches, as in the change log.

    Raises:
        StorageError: The table was restored, and the position of the rows is not known.
    """
    batches = {WHOLE: 0} if table is None else applied_batches(table, source)
    if batches.keys() <= {WHOLE}:
        return pc.less_equal(records[Log.BATCH], batches.get(WHOLE, 0)).combine_chunks()
    of_slots = np.array([applied_through(batches, one) for one in key_buckets(SLOTS)], np.int64)
    passed = records[Log.BATCH].to_numpy() <= of_slots[slots_of(records[Log.KEYS])]
    return pa.array(passed)
