"""Changes whose rows a dataset must not take: out of the chunk, with the reason. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import HIDDEN, KEY, VERSION, Log

CONTRACT_REFUSES = "the contract refuses it: "
"""How the reason of a change begins that a dataset's contract keeps out."""


def rows_of_deletes(changes: pa.Table, rows: pa.Table) -> pa.Array:
    """Per row whether its change is a delete: the item is gone, so its columns are null."""
    deletes = changes.filter(pc.equal(changes[Log.EVENT_NAME], "REMOVE"))
    if not len(deletes):
        return pa.repeat(pa.scalar(False), len(rows))
    return _one(pc.is_in(_change(rows), _one(_change(deletes))))


def without_refused(
    changes: pa.Table, rows: pa.Table, reasons: pa.ChunkedArray
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """A chunk without the changes that have a refused row.

    A change is taken or refused as one, whatever rows the function made of it.

    Args:
        changes: The chunk, with the hidden columns.
        rows: Its rows, with the hidden columns.
        reasons: Per row what is wrong with it, null where nothing is.

    Returns:
        The changes and the rows that stay, and the refused changes as rows of the change log
        with their `reason`.
    """
    if reasons.null_count == len(reasons):
        return changes, rows, changes.slice(0, 0).drop_columns(list(HIDDEN))
    wrong = pc.is_valid(reasons)
    named = zip(
        _change(rows).filter(wrong).to_pylist(), reasons.filter(wrong).to_pylist(), strict=True
    )
    why = dict(reversed(list(named)))
    places = pa.array(list(why), pa.string())
    refused = changes.filter(pc.is_in(_change(changes), places))
    places_of_refused = _change(refused).to_pylist()
    texts = pa.array([CONTRACT_REFUSES + why[place] for place in places_of_refused], pa.string())
    refused = refused.set_column(refused.column_names.index(Log.REASON), Log.REASON, texts)
    return (
        changes.filter(pc.invert(pc.is_in(_change(changes), places))),
        rows.filter(pc.invert(pc.is_in(_change(rows), places))),
        refused.drop_columns(list(HIDDEN)),
    )


def _change(rows: pa.Table) -> pa.ChunkedArray:
    """What tells a change from every other one; versions are all of one length."""
    return pc.binary_join_element_wise(rows[VERSION], rows[KEY], "")


def _one(values: pa.ChunkedArray) -> pa.Array:
    combined = values.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)
