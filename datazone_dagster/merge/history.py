"""One row per interval of a key's life (SCD2): what a chunk changes. Pure.

The changes of a key, by version, form runs: neighbours that are equal on the tracked columns.
A run is one row, with the values of its last change, valid from the run's first change until
the first change of the next run, or until the key leaves. Times come from the service floored
to the second and may go back, versions never do: a row never begins before its predecessor
ends, so that at any time at most one interval of a key is valid.

Which rows a set of changes gives depends on the set only, not on the order in which the
changes came. So the changes that no row shows are kept aside for a while (see `unseen`), and a
late change is planned with all of its key's changes. A change that is newer than all of its
key, the usual case, needs the key's last row only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.merge.claims import CAUSE, MergeBatch
from datazone_dagster.model.columns import (
    DELETE_CAUSE,
    DELETED,
    DELETION,
    EVENT_TIME,
    HIDDEN,
    INTERVAL,
    IS_CURRENT,
    KEY,
    RESERVED_PREFIX,
    VALID_FROM,
    VALID_TO,
    VERSION,
)
from datazone_dagster.model.report import MergeCounts

_TIME = pa.timestamp("us", tz="UTC")

INTERVAL_FIELDS = (
    pa.field(VALID_FROM, _TIME),
    pa.field(VALID_TO, _TIME),
    pa.field(IS_CURRENT, pa.bool_()),
)
DELETION_FIELDS = (pa.field(DELETED, pa.bool_()), pa.field(DELETE_CAUSE, pa.string()))

CHANGE_SCHEMA = pa.schema([(KEY, pa.string()), (VERSION, pa.string())])

_HELD, _UNSEEN, _NEW = 0, 1, 2


@dataclass(frozen=True)
class HistoryPlan:
    """What a chunk changes in a history table.

    Args:
        gone: Key and version of the rows that leave.
        rows: The rows that come, in the table's schema; may replace rows of `gone`.
        unseen: The changes that no row shows from now on, one row or several each: the
            columns of the function's result, the hidden ones, and `cause` (null: absorbed by
            a neighbour; its values are those of the row).
        counts: In intervals; deleted are those that a change closed for good.
    """

    gone: pa.Table
    rows: pa.Table
    unseen: pa.Table
    counts: MergeCounts


def payload_schema(table: pa.Schema) -> pa.Schema:
    """The table's columns that a single change fills."""
    return pa.schema([field for field in table if field.name not in (*INTERVAL, *DELETION)])


def tracked_columns(table: pa.Schema, track: tuple[str, ...]) -> list[str]:
    """The columns on which neighbours must be equal to be one interval; default: all."""
    own = [name for name in table.names if name not in HIDDEN and not _is_ours(name)]
    return list(track) or own


def _is_ours(name: str) -> bool:
    return name in (*INTERVAL, *DELETION) or name.startswith(f"{RESERVED_PREFIX}valid")


def late_keys(claims: pa.Table, held: pa.Table, unseen: pa.Table) -> pa.Array:
    """Keys of which a claim is not surely newer than everything that is known of them.

    Args:
        claims: Key, version and event time.
        held: Key, version and end of the table's rows of these keys.
        unseen: Key and version of what is kept aside, from the lowest version of the claims.
    """
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("claims", claims)
        connection.register("held", held.rename_columns(["_dz_key", "_dz_version", "valid_to"]))
        connection.register("unseen", unseen.select([KEY, VERSION]))
        late = pa.table(connection.sql(_LATE.format(fresh="claims", time="_dz_event_time")))
    return pa.array(late[KEY].combine_chunks().cast(pa.string()))


_LATE = """
    with known as (
        select _dz_key, max(_dz_version) as highest, max(valid_to) as ended from (
            select _dz_key, _dz_version, valid_to from held
            union all select _dz_key, _dz_version, null from unseen
        ) group by _dz_key
    )
    select _dz_key from {fresh} join known using (_dz_key)
    group by _dz_key
    having min(_dz_version) <= any_value(highest) or min({time}) < any_value(ended)
"""
"""What ended a row may be forgotten: then only its time tells that a change is older."""


def plan_history(
    batch: MergeBatch,
    held: pa.Table,
    unseen: pa.Table,
    *,
    table: pa.Schema,
    track: tuple[str, ...] = (),
) -> HistoryPlan:
    """Plan the rows of the keys of a chunk.

    Args:
        batch: Every claim of the chunk, key and version unique, with event times.
        held: The table's rows of these keys; of keys that are not late the last ones suffice.
        unseen: What is kept aside of the late keys, each change once; of others nothing is
            needed.
        table: The table's schema, in which `held` and the planned rows are.
        track: Columns that make a new interval when they change; none: all.
    """
    payload = payload_schema(table)
    absorbed = unseen.filter(pc.is_null(unseen[CAUSE])).select(payload.names)
    values = pa.concat_tables(
        [_in(held, payload), _in(absorbed, payload), _in(batch.rows, payload)]
    )
    sources = [_HELD] * len(held) + [_UNSEEN] * len(absorbed) + [_NEW] * len(batch.rows)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("compared", _compared(values, sources, tracked_columns(table, track)))
        connection.register("held_rows", _with_deletion(held))
        connection.register("unseen_claims", unseen.select([KEY, VERSION, EVENT_TIME, CAUSE]))
        connection.register("claims", batch.claims)
        for statement in _PLAN:
            connection.execute(statement)
        if DELETED not in table.names:
            connection.execute("update runs set closed_by = null")
        for statement in _COMPARE:
            connection.execute(statement)
        gone = _arrow(connection, _GONE).cast(
            pa.schema([(KEY, pa.string()), (VERSION, pa.string())])
        )
        come = _arrow(connection, _COME)
        aside = _arrow(connection, _ASIDE)
        (counts,) = connection.execute(_COUNTS).fetchall()
    return HistoryPlan(
        gone=gone,
        rows=_intervals(values, come, table),
        unseen=_kept_aside(values, aside, payload),
        counts=MergeCounts(*cast("tuple[int, int, int]", counts)),
    )


def _in(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    return rows.select(schema.names).cast(schema)


def _compared(values: pa.Table, sources: list[int], tracked: list[str]) -> pa.Table:
    """Key, version, where the row comes from, and what is tracked of it as one struct."""
    columns = [pa.chunked_array([pa.repeat(pa.scalar(True), len(values))])]
    columns += [values[name] for name in tracked]
    # Numbered, because names that are unique here need not be so for DuckDB.
    struct = pa.table(columns, names=[f"c{at}" for at in range(len(columns))])
    return pa.table(
        {
            "source": pa.array(sources, pa.int8()),
            "row": pa.array(range(len(values)), pa.int64()),
            KEY: values[KEY],
            VERSION: values[VERSION],
            "tracked": struct.to_struct_array(),
        }
    )


def _with_deletion(held: pa.Table) -> pa.Table:
    columns = held.select([KEY, VERSION, EVENT_TIME, VALID_FROM, VALID_TO])
    for field in DELETION_FIELDS:
        missing = pa.chunked_array([pa.nulls(len(held), field.type)])
        column = held[field.name] if field.name in held.column_names else missing
        columns = columns.append_column(field, column)
    return columns


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return pa.table(connection.sql(query))


def _intervals(values: pa.Table, come: pa.Table, table: pa.Schema) -> pa.Table:
    rows = values.take(come["row"].combine_chunks())
    added = {
        VALID_FROM: come["valid_from"].cast(_TIME),
        VALID_TO: come["valid_to"].cast(_TIME),
        IS_CURRENT: pc.is_null(come["valid_to"]),
        DELETED: pc.is_valid(come["cause"]),
        DELETE_CAUSE: come["cause"].cast(pa.string()),
    }
    return pa.Table.from_arrays(
        [added[name] if name in added else rows[name] for name in table.names], schema=table
    )


def _kept_aside(values: pa.Table, aside: pa.Table, payload: pa.Schema) -> pa.Table:
    """Rows as they are; a change without rows as its key, version and time, the rest null."""
    rows = values.take(aside["row"].combine_chunks().cast(pa.int64()))
    own = {name: aside[name].cast(payload.field(name).type) for name in HIDDEN}
    return pa.Table.from_arrays(
        [own[name] if name in own else rows[name] for name in payload.names], schema=payload
    ).append_column(pa.field(CAUSE, pa.string()), aside[CAUSE].cast(pa.string()))


_PLAN = (
    # What is tracked of a change, as one value: the rows that it has, in any order.
    """
    create temp table states as
    select source, _dz_key, _dz_version, list_sort(list(tracked)) as state
    from compared group by all
    """,
    """
    create temp table held as
    select r._dz_key, r._dz_version, any_value(r._dz_event_time) as event_time,
        any_value(r._dz_valid_from) as valid_from, any_value(r._dz_valid_to) as valid_to,
        any_value(case when r._dz_deleted then r._dz_delete_cause end) as closed_by,
        any_value(s.state) as state
    from held_rows r join states s
        on s.source = 0 and s._dz_key = r._dz_key and s._dz_version = r._dz_version
    group by r._dz_key, r._dz_version
    """,
    # A version that a row shows is known: it came before.
    """
    create temp table fresh as
    select c._dz_key, c._dz_version, c._dz_event_time as event_time, c.cause, s.state
    from claims c
    anti join held using (_dz_key, _dz_version)
    left join states s
        on s.source = 2 and s._dz_key = c._dz_key and s._dz_version = c._dz_version
    """,
    """
    create temp table unseen as
    select distinct u._dz_key, u._dz_version, u._dz_event_time as event_time, u.cause, s.state
    from unseen_claims u
    anti join held using (_dz_key, _dz_version)
    left join states s
        on s.source = 1 and s._dz_key = u._dz_key and s._dz_version = u._dz_version
    """,
    "create temp table late as " + _LATE.format(fresh="fresh", time="event_time"),
    # Of the late keys, everything stored. Changes kept aside as absorbed belong to the next
    # row that is held; the first of them, or the row itself, is where that row began. It began
    # earlier than that if the first ones were forgotten meanwhile: then `floor` is set.
    """
    create temp table stored as
    with everything as (
        select *, true as is_held, null as cause from held semi join late using (_dz_key)
        union all by name
        select *, false as is_held from unseen semi join late using (_dz_key)
    ), grouped as (
        select *, coalesce(count(*) filter (is_held) over (
            partition by _dz_key order by _dz_version
            rows between unbounded preceding and 1 preceding), 0) as row_at
        from everything
    ), first as (
        select *,
            max(valid_from) over (partition by _dz_key, row_at) as row_from,
            state is not null and row_number() over (
                partition by _dz_key, row_at, state is null order by _dz_version) = 1 as is_first
        from grouped
    ), begun as (
        select *,
            case when is_first and row_from < event_time then row_from else event_time end
                as began,
            case when is_first and row_from < event_time then row_from end as floor
        from first
    )
    select *,
        lead(_dz_version) over by_version as next_version,
        lead(state) over by_version as next_state,
        lead(began) over by_version as next_began
    from begun window by_version as (partition by _dz_key order by _dz_version)
    """,
    """
    create temp table last_held as
    select * from held anti join late using (_dz_key)
    qualify row_number() over (partition by _dz_key order by _dz_version desc) = 1
    """,
    # A row that ends although nothing known ends it: what did was forgotten, or is not
    # needed. It stands behind the late changes that are older by their time.
    """
    create temp table ends as
    select s._dz_key, greatest(s._dz_version, (
            select max(f._dz_version) from fresh f
            where f._dz_key = s._dz_key and f._dz_version > s._dz_version
                and (s.next_version is null or f._dz_version < s.next_version)
                and f.event_time < s.valid_to
        )) as _dz_version, s.valid_to as event_time, coalesce(s.closed_by, 'filtered') as cause
    from stored s
    where s.is_held and s.valid_to is not null and (
        s.next_version is null or (
            s.next_state is not null and (
                s.next_began > s.valid_to or s.next_state is not distinct from s.state)))
    union all
    select _dz_key, _dz_version, valid_to, coalesce(closed_by, 'filtered')
    from last_held where valid_to is not null
    """,
    """
    create temp table events as
    select _dz_key, _dz_version, 0 as place, event_time, cause, state, event_time as began,
        null::timestamptz as floor, 2 as source
    from fresh
    union all
    select _dz_key, _dz_version, 0, event_time, cause, state, began, floor,
        case when is_held then 0 else 1 end
    from stored anti join fresh using (_dz_key, _dz_version)
    union all
    select _dz_key, _dz_version, 0, event_time, null, state, valid_from, null, 0
    from last_held semi join fresh using (_dz_key)
    union all
    select _dz_key, _dz_version, 1, event_time, cause, null, event_time, null, -1
    from ends semi join fresh using (_dz_key)
    """,
    """
    create temp table runs as
    with marked as (
        select *, coalesce(
            state is distinct from lag(state) over by_version
            or row_number() over by_version = 1, true) as is_new
        from events window by_version as (partition by _dz_key order by _dz_version, place)
    ), numbered as (
        select *, sum(is_new::int) over (
            partition by _dz_key order by _dz_version, place) as run
        from marked
    ), folded as (
        select _dz_key, run, state is null as is_gap,
            arg_max(_dz_version, (_dz_version, place)) as _dz_version,
            arg_max(source, (_dz_version, place)) as source,
            arg_min(cause, (_dz_version, place)) as cause,
            least(arg_min(began, (_dz_version, place)), min(floor)) as began
        from numbered group by _dz_key, run, state is null
    ), started as (
        select *, max(case when is_gap and run = 1 then null else began end) over (
            partition by _dz_key order by run) as valid_from
        from folded
    )
    select *, lead(valid_from) over by_run as valid_to,
        lead(case when cause in ('user', 'ttl') then cause end) over by_run as closed_by
    from started window by_run as (partition by _dz_key order by run)
    """,
)

_COMPARE = (
    """
    create temp table visible as select * from runs where not is_gap
    """,
    """
    create temp table before as
    select * exclude (state) from held semi join late using (_dz_key)
    union all by name
    select * exclude (state) from last_held semi join fresh using (_dz_key)
    """,
    # Of rows that are as they were, nothing is written.
    """
    create temp table kept as
    select b._dz_key, b._dz_version from before b join visible v using (_dz_key, _dz_version)
    where v.source = 0 and b.valid_from = v.valid_from
        and b.valid_to is not distinct from v.valid_to
        and b.closed_by is not distinct from v.closed_by
    """,
)

_GONE = "select _dz_key, _dz_version from before anti join kept using (_dz_key, _dz_version)"

_COME = """
    select c.row, v.valid_from, v.valid_to, v.closed_by as cause
    from visible v anti join kept using (_dz_key, _dz_version)
    join compared c on c.source = v.source and c._dz_key = v._dz_key
        and c._dz_version = v._dz_version
    order by c._dz_key, c._dz_version, c.row
"""

_ASIDE = """
    with hidden as (
        select e._dz_key, e._dz_version, e.event_time, e.cause, e.source
        from events e
        anti join visible v on v._dz_key = e._dz_key and v._dz_version = e._dz_version
        left join unseen u on u._dz_key = e._dz_key and u._dz_version = e._dz_version
        where e.source in (0, 2) and e.place = 0 and not (
            u._dz_key is not null and u.cause is not distinct from e.cause
            and u.state is not distinct from e.state)
    )
    select h._dz_key, h._dz_version, h.event_time as _dz_event_time, h.cause, c.row
    from hidden h left join compared c on c.source = h.source and c._dz_key = h._dz_key
        and c._dz_version = h._dz_version
"""

_COUNTS = """
    with of_key as (
        select _dz_key, sum(come)::bigint as come, sum(gone)::bigint as gone,
            bool_or(was_open) and not bool_or(is_open) as ended
        from (
            select _dz_key, 1 as come, 0 as gone, false as was_open, valid_to is null as is_open
            from visible anti join kept using (_dz_key, _dz_version)
            union all
            select _dz_key, 0, 1, valid_to is null, false
            from before anti join kept using (_dz_key, _dz_version)
        ) group by _dz_key
    )
    select coalesce(sum(greatest(come - gone, 0)), 0)::bigint,
        coalesce(sum(least(come, gone) - ended::int), 0)::bigint,
        coalesce(sum(greatest(gone - come, 0) + ended::int), 0)::bigint
    from of_key
"""
