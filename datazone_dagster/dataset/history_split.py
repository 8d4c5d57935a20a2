"""Division of a chunk into keys whose changes are all new, with one row each, and others. Pure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.history_newer import NO_ROW, NewerChanges
from datazone_dagster.dataset.key_order import Numbers, are_before, are_late, key_numbers
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VALID_FROM, VALID_TO, VERSION
from datazone_dagster.rows.change_ids import change_ids
from datazone_dagster.rows.merge_batch import CAUSE, MergeBatch

_SEVERAL = -2


def divided(
    batch: MergeBatch, existing: pa.Table, absorbed: pa.Table, rows_before: int
) -> tuple[NewerChanges, pa.Array]:
    """Return the changes that `plan_newer` plans, and the other keys of the chunk.

    Args:
        batch: Every keyed change of the chunk, with event times.
        existing: The table's rows of these keys: all of a late key, the last ones of others.
        absorbed: The absorbed changes of the late keys.
        rows_before: Number of values before those of the batch.
    """
    changes = batch.keyed_changes
    keys, (of_existing, of_absorbed, of_changes) = key_numbers([existing, absorbed, changes])
    rows = _rows_of(batch)
    stays = pc.is_null(changes[CAUSE]).to_numpy()
    is_other = np.zeros(len(keys), bool)
    is_other |= are_late(len(keys), of_changes, changes[VERSION], of_existing, existing[VERSION])
    is_other |= are_before(
        len(keys), of_changes, changes[EVENT_TIME], of_existing, existing[VALID_TO]
    )
    is_other |= np.bincount(of_existing, minlength=len(keys)) > 1
    is_other[of_absorbed] = True
    is_other[of_changes[(rows == _SEVERAL) | (stays != (rows >= 0))]] = True
    is_other[of_changes[changes[EVENT_TIME].is_null().to_numpy()]] = True
    is_other[of_existing[existing[VALID_FROM].is_null().to_numpy()]] = True
    has_change = np.zeros(len(keys), bool)
    has_change[of_changes] = True
    existing_at = np.flatnonzero((has_change & ~is_other)[of_existing])
    changes_at = np.flatnonzero(~is_other[of_changes])
    found = rows[changes_at]
    return (
        NewerChanges(
            existing,
            existing_at,
            of_existing[existing_at],
            changes,
            changes_at,
            of_changes[changes_at],
            np.where(found >= 0, found + rows_before, NO_ROW),
            len(keys),
        ),
        keys.filter(pa.array(is_other & has_change)),
    )


def _rows_of(batch: MergeBatch) -> Numbers:
    """Return per change the position of its row in the batch, `NO_ROW` or `_SEVERAL`."""
    changes, rows = batch.keyed_changes, batch.rows
    at = np.full(len(changes), NO_ROW, np.int64)
    stays = pc.is_null(changes[CAUSE])
    with_row = changes if pc.all(stays).as_py() else changes.filter(stays)
    if all(with_row[name].equals(rows[name]) for name in (KEY, VERSION)):
        at[stays.to_numpy()] = np.arange(len(rows))
        return at
    found = pc.index_in(change_ids(rows), value_set=change_ids(changes).combine_chunks())
    known = found.is_valid().to_numpy()
    change_of = found.drop_null().to_numpy()
    at[change_of] = np.flatnonzero(known)
    at[np.bincount(change_of, minlength=len(changes)) > 1] = _SEVERAL
    return at
