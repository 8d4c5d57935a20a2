"""The queries that plan intervals, one after the other; `history` runs them.

Input tables: `keyed_changes`, `existing_rows`, `absorbed_changes`, and `compared`, which has every
row with a number for its tracked values: equal values, equal numbers. A `state` is such a number
for all rows of a change; it is null if the change has no rows. All tables are keyed by key and
version, as numbers that sort like them (`history_codes`).
"""

from __future__ import annotations

LATE = """
    with known as (
        select _dz_key, max(_dz_version) as highest, max(valid_to) as ended from (
            select _dz_key, _dz_version, valid_to from existing
            union all select _dz_key, _dz_version, null from absorbed
        ) group by _dz_key
    )
    select _dz_key from {fresh} join known using (_dz_key)
    group by _dz_key
    having min(_dz_version) <= any_value(highest) or min({time}) < any_value(ended)
"""
"""The change that ended a row may have expired: then only the row's end shows that a change is
older."""

PLAN = (
    # The state of a change is that of its row; several rows have one of their own, in any order.
    """
    create temp table grouped as
    select source, _dz_key, _dz_version, count(*) as rows, min(tracked) as state
    from compared group by source, _dz_key, _dz_version
    """,
    """
    create temp table lists as
    select source, _dz_key, _dz_version, list_sort(list(tracked)) as list
    from compared semi join (from grouped where rows > 1)
        using (source, _dz_key, _dz_version)
    group by source, _dz_key, _dz_version
    """,
    """
    create temp table states as
    with numbered as (
        select list, row_number() over () + (select max(tracked) from compared) as state
        from (select distinct list from lists)
    )
    select source, _dz_key, _dz_version, state from grouped where rows = 1
    union all
    select source, _dz_key, _dz_version, state from lists join numbered using (list)
    """,
    """
    create temp table existing as
    select r._dz_key, r._dz_version, any_value(r._dz_event_time) as event_time,
        any_value(r._dz_valid_from) as valid_from, any_value(r._dz_valid_to) as valid_to,
        any_value(case when r._dz_deleted then r._dz_delete_cause end) as closed_by,
        any_value(s.state) as state
    from existing_rows r join states s
        on s.source = 0 and s._dz_key = r._dz_key and s._dz_version = r._dz_version
    group by r._dz_key, r._dz_version
    """,
    # A version that a row shows has arrived before.
    """
    create temp table fresh as
    select c._dz_key, c._dz_version, c._dz_event_time as event_time, c.cause, s.state
    from keyed_changes c
    anti join existing using (_dz_key, _dz_version)
    left join states s
        on s.source = 2 and s._dz_key = c._dz_key and s._dz_version = c._dz_version
    """,
    """
    create temp table absorbed as
    select distinct a._dz_key, a._dz_version, a._dz_event_time as event_time, a.cause, s.state
    from absorbed_changes a
    anti join existing using (_dz_key, _dz_version)
    left join states s
        on s.source = 1 and s._dz_key = a._dz_key and s._dz_version = a._dz_version
    """,
    "create temp table late as " + LATE.format(fresh="fresh", time="event_time"),
    # Everything stored for the late keys. Absorbed changes belong to the next existing row; the
    # first of them, or the row itself, is where that row began. If the first ones have expired,
    # the row began earlier than that: then `floor` is set.
    """
    create temp table stored as
    with everything as (
        select *, true as exists, null as cause from existing semi join late using (_dz_key)
        union all by name
        select *, false as exists from absorbed semi join late using (_dz_key)
    ), grouped as (
        select *, coalesce(count(*) filter (exists) over (
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
    create temp table last_existing as
    select * from existing anti join late using (_dz_key)
    qualify row_number() over (partition by _dz_key order by _dz_version desc) = 1
    """,
    # A row that ends although no known change ends it: the change that did has expired, or is
    # not needed. The end is ordered after the late changes that are older by their time.
    """
    create temp table ends as
    select s._dz_key, greatest(s._dz_version, (
            select max(f._dz_version) from fresh f
            where f._dz_key = s._dz_key and f._dz_version > s._dz_version
                and (s.next_version is null or f._dz_version < s.next_version)
                and f.event_time < s.valid_to
        )) as _dz_version, s.valid_to as event_time, coalesce(s.closed_by, 'filtered') as cause
    from stored s
    where s.exists and s.valid_to is not null and (
        s.next_version is null or (
            s.next_state is not null and (
                s.next_began > s.valid_to or s.next_state is not distinct from s.state)))
    union all
    select _dz_key, _dz_version, valid_to, coalesce(closed_by, 'filtered')
    from last_existing where valid_to is not null
    """,
    """
    create temp table events as
    select _dz_key, _dz_version, 0 as rank, event_time, cause, state, event_time as began,
        null::timestamptz as floor, 2 as source
    from fresh
    union all
    select _dz_key, _dz_version, 0, event_time, cause, state, began, floor,
        case when exists then 0 else 1 end
    from stored anti join fresh using (_dz_key, _dz_version)
    union all
    select _dz_key, _dz_version, 0, event_time, null, state, valid_from, null, 0
    from last_existing semi join fresh using (_dz_key)
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
        from events window by_version as (partition by _dz_key order by _dz_version, rank)
    ), numbered as (
        select *, sum(is_new::int) over (
            partition by _dz_key order by _dz_version, rank) as run
        from marked
    ), folded as (
        select _dz_key, run, state is null as is_gap,
            arg_max(_dz_version, (_dz_version, rank)) as _dz_version,
            arg_max(source, (_dz_version, rank)) as source,
            arg_min(cause, (_dz_version, rank)) as cause,
            least(arg_min(began, (_dz_version, rank)), min(floor)) as began
        from numbered group by _dz_key, run, state is null
    ), started as (
        select *, max(case when is_gap and run = 1 then null else began end) over (
            partition by _dz_key order by run) as valid_from
        from folded
    )
    select *, lead(valid_from) over by_run as valid_to,
        lead(case when cause in ('user', 'ttl', 'resync_absent') then cause end) over by_run
            as closed_by
    from started window by_run as (partition by _dz_key order by run)
    """,
)

COMPARE = (
    """
    create temp table visible as select * from runs where not is_gap
    """,
    """
    create temp table before as
    select * exclude (state) from existing semi join late using (_dz_key)
    union all by name
    select * exclude (state) from last_existing semi join fresh using (_dz_key)
    """,
    # Rows that are as they were are not written.
    """
    create temp table unchanged as
    select b._dz_key, b._dz_version from before b join visible v using (_dz_key, _dz_version)
    where v.source = 0 and b.valid_from = v.valid_from
        and b.valid_to is not distinct from v.valid_to
        and b.closed_by is not distinct from v.closed_by
    """,
)

REMOVED = """
    select c.row from before b anti join unchanged using (_dz_key, _dz_version)
    join compared c on c.source = 0 and c._dz_key = b._dz_key and c._dz_version = b._dz_version
"""

ADDED = """
    select c.row, v.valid_from, v.valid_to, v.closed_by as cause
    from visible v anti join unchanged using (_dz_key, _dz_version)
    join compared c on c.source = v.source and c._dz_key = v._dz_key
        and c._dz_version = v._dz_version
    order by c._dz_key, c._dz_version, c.row
"""

ABSORBED = """
    with hidden as (
        select e._dz_key, e._dz_version, e.event_time, e.cause, e.source
        from events e
        anti join visible v on v._dz_key = e._dz_key and v._dz_version = e._dz_version
        left join absorbed a on a._dz_key = e._dz_key and a._dz_version = e._dz_version
        where e.source in (0, 2) and e.rank = 0 and not (
            a._dz_key is not null and a.cause is not distinct from e.cause
            and a.state is not distinct from e.state)
    )
    select h._dz_key, h._dz_version, h.event_time as _dz_event_time, h.cause, c.row
    from hidden h left join compared c on c.source = h.source and c._dz_key = h._dz_key
        and c._dz_version = h._dz_version
"""

COUNTS = """
    with by_key as (
        select _dz_key, sum(added)::bigint as added, sum(removed)::bigint as removed,
            bool_or(was_open) and not bool_or(is_open) as ended
        from (
            select _dz_key, 1 as added, 0 as removed, false as was_open,
                valid_to is null as is_open
            from visible anti join unchanged using (_dz_key, _dz_version)
            union all
            select _dz_key, 0, 1, valid_to is null, false
            from before anti join unchanged using (_dz_key, _dz_version)
        ) group by _dz_key
    )
    select coalesce(sum(greatest(added - removed, 0)), 0)::bigint,
        coalesce(sum(least(added, removed) - ended::int), 0)::bigint,
        coalesce(sum(greatest(removed - added, 0) + ended::int), 0)::bigint
    from by_key
"""
