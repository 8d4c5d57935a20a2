"""Soft deletes: the last image of a deleted item stays, marked. Pure.

Two changes of each key count: its newest image, even one that the function filtered out, and
its newest delete. The key's rows are those of the image, marked if the delete is newer. Both
changes only ever move forward, so the order in which changes arrive makes no difference. A
marked row carries the delete's version and time; the version of its image is in the tombstone
of that delete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import DELETE_CAUSE, DELETED, EVENT_TIME, KEY, VERSION
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.merge_batch import CAUSE

_TIME = pa.timestamp("us", tz="UTC")
_CHANGE = pa.schema([(KEY, pa.string()), (VERSION, pa.string())])
_STAMPS = pa.schema(
    [
        (KEY, pa.string()),
        (VERSION, pa.string()),
        ("final_version", pa.string()),
        ("final_time", _TIME),
        (CAUSE, pa.string()),
    ]
)


@dataclass(frozen=True)
class SoftPlan:
    """Changes that a chunk makes to a dataset with soft deletes.

    Args:
        removed: Key and version of the rows to remove.
        from_chunk: Rows of the chunk to add: their key and version, the version and time that
            they get, and the cause if they are added as deleted.
        from_table: The same columns for existing rows whose marks change.
        tombstones: Tombstones to write, with event time and image version.
        counts: Numbers of keys.
    """

    removed: pa.Table
    from_chunk: pa.Table
    from_table: pa.Table
    tombstones: pa.Table
    counts: MergeCounts


def plan_soft(
    connection: duckdb.DuckDBPyConnection,
    keyed_changes: pa.Table,
    existing: pa.Table,
    tombstones: pa.Table,
) -> SoftPlan:
    """Plan the rows of the keys of a chunk.

    Args:
        connection: A database without tables, used for this call only.
        keyed_changes: Every keyed change of the chunk, with event times.
        existing: Key, version, event time, `_dz_deleted` and `_dz_delete_cause` of the table's
            rows of these keys.
        tombstones: All tombstones of these keys.
    """
    connection.register("keyed_changes", keyed_changes)
    connection.register("existing_rows", existing)
    connection.register("tombstones", tombstones)
    for statement in _STATEMENTS:
        connection.execute(statement)
    removed, from_chunk, from_table, tombstones = (
        pa.table(connection.sql(query))
        for query in (
            _REMOVED,
            _ADDED.format(source="new"),
            _ADDED.format(source="existing"),
            _TOMBSTONES,
        )
    )
    (counts,) = connection.execute(_COUNTS).fetchall()
    return SoftPlan(
        removed=removed.cast(_CHANGE),
        from_chunk=from_chunk.cast(_STAMPS),
        from_table=from_table.cast(_STAMPS),
        tombstones=tombstones,
        counts=MergeCounts(*cast("tuple[int, int, int]", counts)),
    )


def stamped(rows: pa.Table, stamps: pa.Table) -> pa.Table:
    """Return the rows listed in `stamps`, with the version, time and marks given there."""
    at = rows.select([KEY, VERSION]).append_column("at", pa.array(range(len(rows)), pa.int64()))
    both = at.join(stamps, keys=[KEY, VERSION], join_type="inner").sort_by("at")
    rows = rows.take(both["at"].combine_chunks())
    times = pc.coalesce(both["final_time"], rows[EVENT_TIME])
    values = {
        VERSION: both["final_version"],
        EVENT_TIME: times,
        DELETED: pc.is_valid(both[CAUSE]),
        DELETE_CAUSE: both[CAUSE],
    }
    return aligned(rows, rows.schema, values)


_STATEMENTS = (
    """
    create temp table existing as
    select _dz_key, _dz_version, any_value(_dz_event_time) as event_time,
        coalesce(any_value(_dz_deleted), false) as deleted, any_value(_dz_delete_cause) as cause
    from existing_rows group by _dz_key, _dz_version
    """,
    # A marked row whose tombstone has expired counts as new as its delete.
    """
    create temp table images as
    select _dz_key, arg_max(image, (version, rank)) as image, max(version) as version,
        arg_max(event_time, (version, rank)) as event_time
    from (
        select _dz_key, _dz_version as version, _dz_event_time as event_time, 1 as rank,
            case when cause is null then 'new' else 'none' end as image
        from keyed_changes where cause is null or cause = 'filtered'
        union all
        select _dz_key, _dz_version, event_time, 2, 'existing' from existing where not deleted
        union all
        select e._dz_key, coalesce(max(t.image_version), e._dz_version), null, 0, 'existing'
        from existing e left join tombstones t
            on t._dz_key = e._dz_key and t._dz_version = e._dz_version
        where e.deleted group by e._dz_key, e._dz_version
        union all
        select _dz_key, _dz_version, null, 0, 'none' from tombstones where cause = 'filtered'
    ) group by _dz_key
    """,
    """
    create temp table deletes as
    select _dz_key, max(version) as version, arg_max(cause, (version, rank)) as cause,
        arg_max(event_time, (version, rank)) as event_time
    from (
        select _dz_key, _dz_version as version, cause, _dz_event_time as event_time, 1 as rank
        from keyed_changes where cause in ('user', 'ttl', 'resync_absent')
        union all
        select _dz_key, _dz_version, cause, event_time, 2 from existing where deleted
        union all
        select _dz_key, _dz_version, cause, _dz_event_time, 0
        from tombstones where cause in ('user', 'ttl', 'resync_absent')
    ) group by _dz_key
    """,
    """
    create temp table decided as
    with facts as (
        select k._dz_key, coalesce(i.image, 'none') as image, i.version as image_version,
            i.event_time as image_time, e._dz_version as existing_version,
            coalesce(not e.deleted, false) as was_live,
            d.version as delete_version, d.cause, d.event_time as delete_time,
            d.version is not null and (i.version is null or d.version >= i.version)
                as is_deleted
        from (select distinct _dz_key from keyed_changes) k
        left join images i using (_dz_key) left join deletes d using (_dz_key)
        left join existing e using (_dz_key)
    )
    select *, case when is_deleted then delete_version else image_version end as final_version,
        case
            when image = 'none' then existing_version is not null
            when image = 'existing' then is_deleted and existing_version <> delete_version
            else true
        end as changes
    from facts
    """,
)

_REMOVED = """
    select _dz_key, existing_version as _dz_version
    from decided where changes and existing_version is not null
"""

_ADDED = """
    select _dz_key,
        case when image = 'existing' then existing_version else image_version end as _dz_version,
        final_version, case when is_deleted then delete_time end as final_time,
        case when is_deleted then cause end as cause
    from decided where changes and image = '{source}'
"""

_TOMBSTONES = """
    select d._dz_key, d.delete_version as _dz_version, d.cause,
        d.delete_time as _dz_event_time, d.image_version
    from decided d anti join tombstones t on t._dz_key = d._dz_key
        and t._dz_version = d.delete_version and t.cause = d.cause
        and t.image_version is not distinct from d.image_version
    where d.is_deleted
    union all
    select d._dz_key, d.image_version, 'filtered', d.image_time, null
    from decided d anti join tombstones t on t._dz_key = d._dz_key
        and t._dz_version = d.image_version and t.cause = 'filtered'
    where d.image = 'none' and d.image_version is not null
"""

_COUNTS = """
    with changed as (
        select *, image <> 'none' and not is_deleted as is_live from decided where changes
    )
    select
        count(*) filter (existing_version is null)::bigint,
        count(*) filter (existing_version is not null and not (was_live and not is_live))::bigint,
        count(*) filter (was_live and not is_live)::bigint
    from changed
"""
