"""Slot of the key of a change: what buckets of keys are made of."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.items.keys import key_column
from datazone_dagster.rows.key_hash import Slots, slots_of_keys


def slots_of(keys: pa.ChunkedArray | pa.Array) -> Slots:
    """Return the slot of each `Keys` map, given as DynamoDB JSON text.

    Keys that DynamoDB takes for one key have one slot. A record without a valid key is in slot 0:
    every record belongs to one bucket.
    """
    canonical, _ = key_column(keys)
    return slots_of_keys(canonical)
