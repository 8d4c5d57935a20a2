"""Collapse before merge: per key only the highest version of a chunk counts. Pure.

A keyed change states that from its version on the rows of its key are the ones that the
function returned for it. A keyed change without rows removes the key: the item was deleted, or
the function filtered it out (invariants 7 and 9).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.deletes import are_absences, are_deletes, are_ttl_deletes
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.errors import ResultError
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.snapshot_state import ABSENT
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.change_ids import are_among, change_ids
from datazone_dagster.rows.merge_batch import (
    CAUSE,
    EACH_CHANGE_SCHEMA,
    KEYED_CHANGES_SCHEMA,
    MergeBatch,
)
from datazone_dagster.text import shown

_FEWEST_AT_A_TIME = 1 << 17
_TIMES_THE_CHANGES = 4
"""Smallest number of rows to look up at a time, and as a multiple of the changes, whose index is
built each time."""


def collapse(changes: pa.Table, rows: pa.Table, *, dataset_id: str) -> MergeBatch:
    """Return the highest version per key, and its rows unless it is a delete.

    Args:
        changes: The chunk: `_dz_key`, `_dz_version`, `event_name`, `user_principal`.
        rows: Rows that the function returned, with the hidden columns.
        dataset_id: Dataset to name in the error.

    Returns:
        Keyed changes in `KEYED_CHANGES_SCHEMA`, keys unique.

    Raises:
        ResultError: A row carries a key or version that is not in the chunk.
    """
    latest = only_latest(changes, changes[KEY], changes[VERSION])
    keyed_changes, taken = _with_causes(latest, rows, changes, dataset_id)
    return MergeBatch(aligned(keyed_changes, KEYED_CHANGES_SCHEMA), _only(rows, taken))


def each_change(changes: pa.Table, rows: pa.Table, *, dataset_id: str) -> MergeBatch:
    """Return every change of a chunk with its rows, or with the cause if it has none.

    Args:
        changes: The chunk: `_dz_key`, `_dz_version`, `_dz_event_time`, `event_name`,
            `user_principal`.
        rows: Rows that the function returned, with the hidden columns.
        dataset_id: Dataset to name in the error.

    Returns:
        Keyed changes in `EACH_CHANGE_SCHEMA`, key and version unique.

    Raises:
        ResultError: A row carries a key or version that is not in the chunk.
    """
    unique = only_latest(changes, change_ids(changes), changes[VERSION])
    keyed_changes, taken = _with_causes(unique, rows, changes, dataset_id)
    return MergeBatch(aligned(keyed_changes, EACH_CHANGE_SCHEMA), _only(rows, taken))


def _with_causes(
    counted: pa.Table, rows: pa.Table, changes: pa.Table, dataset_id: str
) -> tuple[pa.Table, pa.ChunkedArray]:
    """Return the changes that count, each with its cause, and per row whether it is taken.

    A row is taken if its change counts and is not a delete.

    Args:
        counted: The changes of the chunk that count, each once.
        rows: Rows that the function returned.
        changes: All changes of the chunk.
        dataset_id: Dataset to name in the error.
    """
    at = _positions_in(counted, rows)
    _refuse_unrecognised(rows.filter(pc.is_null(at)), changes, dataset_id)
    removed, expired = are_deletes(counted), are_ttl_deletes(counted)
    taken = pc.fill_null(pc.invert(removed).take(at), False)
    has_no_row = np.ones(len(counted), bool)
    has_no_row[at.filter(taken).to_numpy()] = False
    causes = pc.case_when(
        pc.make_struct(expired, are_absences(counted), removed, pa.chunked_array([has_no_row])),
        pa.scalar("ttl"),
        pa.scalar(ABSENT),
        pa.scalar("user"),
        pa.scalar("filtered"),
        pa.scalar(None, pa.string()),
    )
    return counted.append_column(CAUSE, causes), taken


def _positions_in(counted: pa.Table, rows: pa.Table) -> pa.ChunkedArray:
    """Return the position of each row's change in `counted`, null if it is not there."""
    if all(rows[name].equals(counted[name]) for name in (KEY, VERSION)):  # one row per change
        return pa.chunked_array([np.arange(len(rows), dtype=np.int32)])
    counted_ids = change_ids(counted).combine_chunks()
    # A change may have 40,000 rows: the identities of all of them would be more than the rows.
    at_a_time = max(_FEWEST_AT_A_TIME, _TIMES_THE_CHANGES * len(counted))
    columns = rows.select([KEY, VERSION])
    pieces = [columns.slice(start, at_a_time) for start in range(0, len(rows), at_a_time)]
    positions = [pc.index_in(change_ids(piece), value_set=counted_ids) for piece in pieces]
    return pa.chunked_array([part for one in positions for part in one.chunks], pa.int32())


def _only(rows: pa.Table, taken: pa.ChunkedArray) -> pa.Table:
    """Return the rows that are taken; not copied if all are."""
    return rows if pc.all(taken).as_py() else rows.filter(taken)


def _refuse_unrecognised(rows: pa.Table, changes: pa.Table, dataset_id: str) -> None:
    if not len(rows):
        return
    other = rows.filter(pc.invert(are_among(rows, changes)))
    if len(other):
        key, version = other[KEY][0].as_py(), other[VERSION][0].as_py()
        raise ResultError(
            f"Dataset {dataset_id!r}: the function returned a row with key {shown(repr(key))} and "
            f"version {shown(repr(version))}, which is not a change of this chunk.",
            safe="Nothing of the chunk was applied; the change log keeps it.",
            hint=f"Copy {KEY!r} and {VERSION!r} of the input rows unchanged.",
        )
