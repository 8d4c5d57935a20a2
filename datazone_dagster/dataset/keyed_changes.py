"""Collapse before merge: per key only the highest version of a chunk counts. Pure.

A claim says: from this version on, the rows of this key are the ones that the function
returned for it. A claim without rows removes the key: it was deleted, or the function
filtered it out (invariants 7 and 9).
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.errors import ResultError
from datazone_dagster.model.column_names import KEY, VERSION, Log
from datazone_dagster.rows.merge_batch import EACH_CHANGE_SCHEMA, KEYED_CHANGES_SCHEMA, MergeBatch

_REMOVE = "REMOVE"
_SERVICE = "dynamodb.amazonaws.com"
"""Who deletes by time to live (DynamoDB Streams, `userIdentity.principalId`)."""


def collapse(changes: pa.Table, rows: pa.Table, *, dataset_id: str) -> MergeBatch:
    """Keep what counts: the highest version per key, and its rows unless it is a delete.

    Args:
        changes: The chunk: `_dz_key`, `_dz_version`, `event_name`, `user_principal`.
        rows: What the function returned, with the hidden columns.
        dataset_id: For the error.

    Raises:
        ResultError: A row carries a key or version that is not in the chunk.
    """
    latest = only_latest(changes, changes[KEY], changes[VERSION])
    at = _places_in(latest[KEY].combine_chunks(), rows[KEY].cast(pa.string()))
    newest = pc.fill_null(pc.equal(rows[VERSION], latest[VERSION].take(at)), False)
    _refuse_unrecognised(rows.filter(pc.invert(newest)), changes, dataset_id)
    removed = pc.equal(latest[Log.EVENT_NAME], _REMOVE)
    counts = pc.and_(newest, pc.fill_null(pc.invert(removed).take(at), False))
    filtered = np.ones(len(latest), bool)
    filtered[at.filter(counts).to_numpy()] = False
    by_service = pc.fill_null(pc.equal(latest[Log.USER_PRINCIPAL], _SERVICE), False)
    cause = pc.case_when(
        pc.make_struct(pc.and_(removed, by_service), removed, pa.chunked_array([filtered])),
        pa.scalar("ttl"),
        pa.scalar("user"),
        pa.scalar("filtered"),
        pa.scalar(None, pa.string()),
    )
    keyed_changes = pa.table([latest[KEY], latest[VERSION], cause], schema=KEYED_CHANGES_SCHEMA)
    return MergeBatch(keyed_changes, rows.filter(counts))


def _places_in(keys: pa.StringArray, of: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where these keys stand among those; null: nowhere. Most often they are the same keys."""
    if len(keys) == len(of) and not of.null_count and pc.all(pc.equal(of, keys)).as_py():
        return pa.chunked_array([np.arange(len(keys), dtype=np.int32)])
    return pc.index_in(of, keys)


def _refuse_unrecognised(rows: pa.Table, changes: pa.Table, dataset_id: str) -> None:
    if not len(rows):
        return
    foreign = rows.filter(pc.invert(pc.is_in(_places(rows), _places(changes))))
    if len(foreign):
        raise _unrecognised(foreign[KEY][0].as_py(), foreign[VERSION][0].as_py(), dataset_id)


def _places(rows: pa.Table) -> pa.Array:
    """What tells a change from every other one; versions are all of one length."""
    joined = pc.binary_join_element_wise(rows[VERSION], rows[KEY], "")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def each_change(changes: pa.Table, rows: pa.Table, *, dataset_id: str) -> MergeBatch:
    """What each change of a chunk says of its key: the rows that it has, or why none.

    Args:
        changes: The chunk: `_dz_key`, `_dz_version`, `_dz_event_time`, `event_name`,
            `user_principal`.
        rows: What the function returned, with the hidden columns.
        dataset_id: For the error.

    Returns:
        Claims as `EACH_CHANGE_SCHEMA`, key and version unique.

    Raises:
        ResultError: A row carries a key or version that is not in the chunk.
    """
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("changes", changes)
        connection.register("returned", rows)
        _refuse_unrecognised_rows(connection, dataset_id)
        keyed_changes = _arrow(connection, _EACH_CHANGE).cast(EACH_CHANGE_SCHEMA)
        kept = _arrow(connection, _NOT_REMOVED)
    return MergeBatch(keyed_changes, kept.cast(rows.schema))


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return pa.table(connection.sql(query))


_EACH_CHANGE = """
    select _dz_key, _dz_version,
        case
            when bool_or(event_name = 'REMOVE')
                and any_value(user_principal) = 'dynamodb.amazonaws.com' then 'ttl'
            when bool_or(event_name = 'REMOVE') then 'user'
            when (_dz_key, _dz_version) not in (select (_dz_key, _dz_version) from returned)
                then 'filtered'
        end as cause,
        any_value(_dz_event_time) as _dz_event_time
    from changes
    group by _dz_key, _dz_version
"""

_NOT_REMOVED = """
    select returned.* from returned anti join (
        select _dz_key, _dz_version from changes where event_name = 'REMOVE'
    ) using (_dz_key, _dz_version)
"""

_FOREIGN = """
    select _dz_key, _dz_version
    from returned anti join changes using (_dz_key, _dz_version)
    limit 1
"""


def _refuse_unrecognised_rows(connection: duckdb.DuckDBPyConnection, dataset_id: str) -> None:
    foreign = connection.execute(_FOREIGN).fetchone()
    if foreign is not None:
        raise _unrecognised(foreign[0], foreign[1], dataset_id)


def _unrecognised(key: str, version: str, dataset_id: str) -> ResultError:
    return ResultError(
        f"Dataset {dataset_id!r}: the function returned a row with key {key!r} and "
        f"version {version!r}, which is no change of this chunk.",
        safe="Nothing of the chunk was applied; the change log keeps it.",
        hint=f"Carry {KEY!r} and {VERSION!r} of the input rows over unchanged.",
    )
