"""Changes whose rows a dataset must not take: removed from the chunk, with the reason. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.deletes import are_deletes
from datazone_dagster.model.column_names import HIDDEN, Log
from datazone_dagster.model.quarantine_policy import CONTRACT_REFUSES
from datazone_dagster.rows.change_ids import are_among, change_ids


def rows_of_deletes(changes: pa.Table, rows: pa.Table) -> pa.ChunkedArray:
    """Return per row whether its change is a delete: the item is gone, so its columns are null."""
    deletes = changes.filter(are_deletes(changes))
    if not len(deletes):
        return pa.chunked_array([pa.repeat(pa.scalar(False), len(rows))])
    return are_among(rows, deletes)


def without_refused(
    changes: pa.Table,
    rows: pa.Table,
    reasons: pa.ChunkedArray,
    begin: str = CONTRACT_REFUSES,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return a chunk without the changes that have a refused row.

    A change is taken or refused as a unit, whatever rows the function made of it.

    Args:
        changes: The chunk, with the hidden columns.
        rows: Rows of the chunk, with the hidden columns.
        reasons: Reason per row for refusing it; null where there is none.
        begin: Start of each reason, by which later runs recognise it.

    Returns:
        The changes and the rows that stay, and the refused changes as rows of the change log
        with their `reason`.
    """
    if reasons.null_count == len(reasons):
        return changes, rows, changes.slice(0, 0).drop_columns(list(HIDDEN))
    wrong = pc.is_valid(reasons)
    named = zip(
        change_ids(rows).filter(wrong).to_pylist(), reasons.filter(wrong).to_pylist(), strict=True
    )
    reason_of = dict(reversed(list(named)))
    ids = pa.array(list(reason_of), pa.string())
    refused = changes.filter(pc.is_in(change_ids(changes), ids))
    texts = pa.array(
        [begin + reason_of[change] for change in change_ids(refused).to_pylist()],
        pa.string(),
    )
    refused = refused.set_column(refused.column_names.index(Log.REASON), Log.REASON, texts)
    return (
        changes.filter(pc.invert(pc.is_in(change_ids(changes), ids))),
        rows.filter(pc.invert(pc.is_in(change_ids(rows), ids))),
        refused.drop_columns(list(HIDDEN)),
    )
