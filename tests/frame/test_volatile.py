"""Random numbers and the current time are known, in values and in what decides the rows."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from datazone_dagster.frame.frame import Frame
from tests.frame.chunks import chunk

PEOPLE = pa.table({"who": ["1", "2"], "born": ["2000-01-01", "1999-01-01"]})
RANK = "row_number() over (partition by _dz_key order by r)"


def frame() -> Frame:
    changes = chunk(
        ({"id": {"S": "1"}, "at": {"S": "2024-01-01"}}, None),
        ({"id": {"S": "2"}, "at": {"S": "2024-01-02"}}, None),
    )
    return Frame.of_changes(changes, lookups={"people": PEOPLE})


Use = Callable[[Frame], Frame]

DECIDING: list[tuple[Use, str]] = [
    (lambda f: f.filter("random() < 0.5"), "random()"),
    (lambda f: f.filter("now() > _dz_event_time"), "now()"),
    (lambda f: f.filter("_dz_event_time < current_timestamp"), "current_timestamp"),
    (lambda f: f.filter("current_date > dynamodb.NewImage.at.S::date"), "current_date"),
    (lambda f: f.filter("age(dynamodb.NewImage.at.S::timestamp) > interval 1 day"), "age()"),
    (lambda f: f.filter("_dz_event_time > ago(interval 1 day)"), "ago()"),
    (lambda f: f.filter("current_localtimestamp() > dynamodb.NewImage.at.S::date"), "current_loc"),
    (lambda f: f.filter("uuid() > 'a'"), "uuid()"),
    (lambda f: f.with_columns("random() as r").filter("r < 0.5"), "random()"),
    (lambda f: f.with_columns("random() as R").with_columns("r * 2 as s").filter("s < 1"),
     "random()"),
    (lambda f: f.with_columns("random() as r").items().filter("r < 0.5"), "random()"),
    (lambda f: f.filter("random() < 0.5").items(), "random()"),
    (lambda f: f.with_columns("random() as r").select("* exclude (dynamodb)").filter("r < 1"), "r"),
    (lambda f: f.select("unnest(range((random() * 3)::int)) as n"), "random()"),
    (lambda f: f.sql("select * from changes where random() < 0.5"), "random()"),
    (lambda f: f.sql("with t as (select *, random() as r from changes) from t where r > 1"), "ran"),
    (lambda f: f.sql("with t(a, b) as (select eventID, random() from changes) from t where b > 1"),
     "random()"),
    (lambda f: f.sql("select * from (select * from changes where now() > _dz_event_time)"), "now"),
    (lambda f: f.sql(f"select * from (select *, random() as r from changes) qualify {RANK} = 1"),
     "random()"),
    (lambda f: f.with_columns("random() as r").with_columns(f"{RANK} as n").filter("n = 1"),
     "random()"),
    (lambda f: f.sql("select changes.* from changes join people on random() < 0.5"), "random()"),
    (lambda f: f.sql("select changes.* from changes, generate_series(1, (random() * 3)::int)"),
     "random()"),
    (lambda f: f.sql("select * from changes where false union all "
                     "select * from changes where random() < 0.5"), "random()"),
    (lambda f: f.sql("select distinct on (_dz_key) * from changes order by random()"), "random()"),
    (lambda f: f.sql("select distinct *, random() as r from changes"), "random()"),
    (lambda f: f.sql("select eventID, uuid() as u from changes union select '', '' "), "uuid()"),
    (lambda f: f.sql("select _dz_key, max(eventID) as e from changes group by _dz_key, random()"),
     "random()"),
    (lambda f: f.sql("select _dz_key, max(eventID) as e from changes group by _dz_key "
                     "having random() < 0.5"), "random()"),
    (lambda f: f.sql("select * from changes where exists "
                     "(from people where born::date < current_date)"), "current_date"),
]  # fmt: skip


@pytest.mark.parametrize(("use", "function"), DECIDING)
def test_what_decides_the_rows_is_known(use: Use, function: str) -> None:
    (found,) = {one.function for one in use(frame()).deciding}
    assert found.startswith(function)
    assert use(frame()).deciding[0].call.startswith(("filter(", "sql(", "select("))


FINE: list[Use] = [
    lambda f: f,
    lambda f: f.items(),
    lambda f: f.filter("_dz_event_time > timestamptz '2024-01-01'"),
    lambda f: f.filter("case when eventName is null then error('no name') else true end"),
    lambda f: f.select("eventName as current_date").filter("current_date = 'INSERT'"),
    lambda f: f.with_columns("random() as r").with_columns("1 as r").filter("r = 1"),
    lambda f: f.with_columns("random() as r").select("eventName as r").filter("r = 'INSERT'"),
    lambda f: f.filter("age(_dz_event_time, timestamptz '2024-01-01') > interval 1 day"),
    lambda f: f.filter("md5(_dz_key) < '2' and current_user <> ''"),
    lambda f: f.sql("select * from changes where eventName in (select who from people)"),
]


@pytest.mark.parametrize("use", FINE)
def test_what_depends_on_the_changes_alone_is_fine(use: Use) -> None:
    found = use(frame())
    assert not found.deciding
    assert not found.volatile


@pytest.mark.parametrize(
    ("use", "columns"),
    [
        (lambda f: f.select("now() as at", "eventID"), {"at": "now()"}),
        (lambda f: f.with_columns("upper(uuid()::varchar) as Id"), {"Id": "uuid()"}),
        (lambda f: f.with_columns("random() as r").items(), {"r": "random()"}),
        (lambda f: f.with_columns("random() as r").select("r + 1 as s", "eventID"),
         {"s": "random()"}),
        (lambda f: f.sql("select *, random() as r from changes"), {"r": "random()"}),
        (lambda f: f.sql("select eventID from changes order by random()"), {}),
        (lambda f: f.sql("select t.r as s, eventID from (select *, now() as r from changes) t"),
         {"s": "now()"}),
        (lambda f: f.sql("select _dz_key, arg_max(eventID, random()) as e from changes group by 1"),
         {"e": "random()"}),
        (lambda f: f.sql("select *, (select max(born::date - current_date) from people) as days "
                         "from changes"), {"days": "current_date"}),
    ],
)  # fmt: skip
def test_values_that_differ_each_time_are_known_by_column(
    use: Use, columns: dict[str, str]
) -> None:
    found = use(frame())
    assert found.volatile == columns
    assert not found.deciding


def test_a_clock_that_duckdb_calls_consistent_is_not_row_wise() -> None:
    for value in ("current_localtimestamp()", "age(dynamodb.NewImage.at.S::timestamp)"):
        assert not frame().select(f"{value} as v").is_by_change
    assert frame().select("age(_dz_event_time, _dz_event_time) as v").is_by_change
