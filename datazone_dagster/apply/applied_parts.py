"""Changes that a part of a run's keys has applied already, which an append table must not repeat.

A dataset that gets a smaller number of buckets begins where the last of the former buckets is: it
reads the changes of the others again. In the other modes a change that comes again changes nothing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from datazone_dagster.apply.chunk import FunctionResult
from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.column_names import KEY, Log
from datazone_dagster.model.key_bucket import Ahead
from datazone_dagster.model.quarantine_policy import keeps_order
from datazone_dagster.rows.change_ids import are_among
from datazone_dagster.rows.key_hash import Slots, Taken, are_of, slots_of_keys


def not_applied(result: FunctionResult, output: str, mode: str, ahead: Ahead) -> FunctionResult:
    """Return the result of a function without the changes that are in a dataset already.

    Args:
        result: Result of the function for a chunk.
        output: Output whose rows are returned.
        mode: Mode of its dataset.
        ahead: Parts of the run's bucket of which the dataset has more.
    """
    if not ahead or not keeps_order(mode):
        return result
    slots = slots_of_keys(result.changes[KEY].combine_chunks())
    changes = result.changes.filter(pa.array(~are_applied(slots, result.changes, ahead)))
    refused = result.refused
    again = are_applied(slots_of(refused[Log.KEYS]), refused, ahead)
    rows = result.rows[output]
    rows = rows.filter(are_among(rows, changes))
    return FunctionResult(changes, {output: rows}, refused.filter(pa.array(~again)))


def are_applied(slots: Slots, changes: pa.Table, ahead: Ahead) -> Taken:
    """Return per change whether a part that is ahead has applied it.

    Args:
        slots: Slot of the key of each change.
        changes: The changes, with their batches.
        ahead: The parts.
    """
    batches = changes[Log.BATCH].to_numpy()
    applied: Taken = np.zeros(len(changes), bool)
    for bucket, last_batch in ahead:
        applied |= are_of(bucket, slots) & (batches <= last_batch)
    return applied
