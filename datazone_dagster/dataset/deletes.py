"""Deletes in a chunk: those by users, those by time to live, and those without a row. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import KEY, Log
from datazone_dagster.model.report import DeleteCounts
from datazone_dagster.model.snapshot_state import ABSENT
from datazone_dagster.rows.change_ids import are_among

_REMOVE = "REMOVE"
TTL_PRINCIPAL = "dynamodb.amazonaws.com"
"""Principal of deletes by time to live (DynamoDB Streams, `userIdentity.principalId`)."""


def are_deletes(changes: pa.Table) -> pa.ChunkedArray:
    """Return per change whether it deletes its item."""
    return pc.fill_null(pc.equal(changes[Log.EVENT_NAME], _REMOVE), False)


def are_ttl_deletes(changes: pa.Table) -> pa.ChunkedArray:
    """Return per change whether DynamoDB deleted its item by time to live."""
    by_service = pc.fill_null(pc.equal(changes[Log.USER_PRINCIPAL], TTL_PRINCIPAL), False)
    return pc.and_(are_deletes(changes), by_service)


def are_absences(changes: pa.Table) -> pa.ChunkedArray:
    """Return per change whether a snapshot found the item absent, with no record of its delete."""
    by_sweep = pc.fill_null(pc.equal(changes[Log.USER_PRINCIPAL], ABSENT), False)
    return pc.and_(are_deletes(changes), by_sweep)


def without_ttl_deletes(changes: pa.Table, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return a chunk without its deletes by time to live, and without their rows.

    Args:
        changes: The chunk, with the hidden columns.
        rows: Rows that the function returned for it, with the hidden columns.
    """
    expired = are_ttl_deletes(changes)
    if not pc.any(expired).as_py():
        return changes, rows
    kept = pc.invert(are_among(rows, changes.filter(expired)))
    return changes.filter(pc.invert(expired)), rows.filter(kept)


def counted_deletes(
    changes: pa.Table, rows: pa.Table, *, ignore_ttl: bool, stored: bool
) -> tuple[pa.Table, pa.Table, DeleteCounts]:
    """Return a chunk without the deletes to ignore, and the deletes to report.

    Args:
        changes: The chunk, with the hidden columns.
        rows: Rows that the function returned for it, with the hidden columns.
        ignore_ttl: Whether deletes by time to live have no effect.
        stored: Whether a delete is an event to store, which a filter leaves out as it says.
    """
    given = len(changes)
    if ignore_ttl:
        changes, rows = without_ttl_deletes(changes, rows)
    counts = DeleteCounts(ttl_ignored=given - len(changes))
    return changes, rows, counts if stored else counts + filtered_deletes(changes, rows)


def filtered_deletes(changes: pa.Table, rows: pa.Table) -> DeleteCounts:
    """Count the deletes for which the function returned no row.

    Args:
        changes: The chunk, with the hidden columns.
        rows: Rows that the function returned for it, with the hidden columns.
    """
    deletes = changes.filter(are_deletes(changes))
    if not len(deletes):
        return DeleteCounts()
    candidates = rows.filter(pc.is_in(rows[KEY], deletes[KEY].combine_chunks()))
    filtered = deletes.filter(pc.invert(are_among(deletes, candidates)))
    by_ttl = pc.sum(are_ttl_deletes(filtered)).as_py() or 0
    return DeleteCounts(filtered=len(filtered), filtered_by_ttl=by_ttl)
