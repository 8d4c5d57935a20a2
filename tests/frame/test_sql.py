"""Full queries: the hidden columns travel along wherever a row still comes from one change."""

from __future__ import annotations

import pyarrow as pa
import pytest

from datazone_dagster.errors import DefinitionError, ExpressionError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.lookup import Lookup
from datazone_dagster.model.column_names import HIDDEN
from tests.frame.chunks import chunk

CUSTOMERS = pa.table({"id": ["1", "2"], "name": ["Ada", "Bo"], "_dz_key": ["x", "y"]})


def frame() -> Frame:
    changes = chunk(
        ({"id": {"S": "1"}, "n": {"N": "5"}, "tags": {"SS": ["a", "b"]}}, None),
        ({"id": {"S": "2"}, "n": {"N": "7"}}, None),
        (None, {"id": {"S": "2"}, "n": {"N": "7"}}),
    )
    return Frame.of_changes(changes, lookups={"customers": CUSTOMERS}, threads=1)


CARRIED = [
    "select dynamodb.NewImage.n.N as n from changes",
    "select dynamodb.NewImage.n.N from changes c",
    "select c.dynamodb.NewImage.n.N from changes as c where c.eventName <> 'REMOVE'",
    "select * from changes",
    "from changes",
    "select c.* exclude (dynamodb) from changes c",
    "select columns('^event.*') from changes",
    "select columns(lambda name: name like 'event%') from changes",
    "with t as (select * from changes) select t.dynamodb.NewImage.n.N as n from t",
    "with t as (select eventID, dynamodb from changes) select dynamodb.NewImage.n.N from t",
    "with changes as (select eventID from changes) select * from changes",
    "select n from (select dynamodb.NewImage.n.N as n from changes) x where n > '5'",
    "select name from changes join customers c on c.id = dynamodb.Keys.id.S",
    "select name from customers c join changes on c.id = dynamodb.Keys.id.S",
    "select *, c.name as customer from changes left join customers c using (id)"
    .replace("using (id)", "on c.id = dynamodb.Keys.id.S").replace("*", "changes.*"),
    "select unnest(dynamodb.NewImage.tags.SS) as tag from changes",
    "select tag from changes, unnest(dynamodb.NewImage.tags.SS) as t(tag)",
    "select eventID from changes union all select eventName from changes",
    "select eventID from changes order by 1 desc limit 2",
    "select eventID, row_number() over (order by eventID) as r from changes qualify r = 1",
    "select eventID from changes where eventID in (select eventID from changes)",
    "select eventID, n from changes join (values ('INSERT', 1), ('REMOVE', 2)) k (name, n)"
    " on name = eventName",
    "select eventID from changes where eventName in (select * from (values ('INSERT'), ('x')))",
    "with k (name, n) as (values ('INSERT', 1)) select * from changes join k on name = eventName",
    "select eventID, _dz_key, _dz_version, _dz_event_time from changes",
    "select eventID, _dz_key from changes",
    "select eventID from (select * from changes)",
    "select * from (select eventID from changes where eventName <> 'x')",
    "select eventID, name from (select * from changes), customers",
    "select c.eventID from customers join (select * from changes) as c on true",
    "from (from (from changes))",
    "unpivot changes on eventID, eventName into name n value v",
    "select n, v from changes unpivot (v for n in (eventID, eventName))",
    "select u.*, name from customers, changes unpivot (v for n in (eventID, eventName)) u",
    "unpivot (select eventID, eventName from changes) on columns(*) into name n value v",
]  # fmt: skip


@pytest.mark.parametrize("query", CARRIED)
def test_hidden_columns_travel(query: str) -> None:
    known = {tuple(row.values()) for row in frame().arrow().select(list(HIDDEN)).to_pylist()}
    result = frame().sql(query)
    rows = result.arrow()
    assert not set(HIDDEN) & set(result.columns)
    assert rows.num_rows > 0
    assert {tuple(row.values()) for row in rows.select(list(HIDDEN)).to_pylist()} <= known


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) as n from changes",
        "select dynamodb.Keys.id.S as id, count(*) as n from changes group by all",
        "select distinct eventName from changes",
        "select eventID from changes union select eventName from changes",
        "select name from customers",
        "select 1 as one",
    ],
)
def test_a_query_whose_rows_are_not_changes_lacks_the_hidden_columns(query: str) -> None:
    result = frame().sql(query)
    assert not set(HIDDEN) & set(result.arrow().column_names)


def test_an_aggregate_can_carry_the_newest_change() -> None:
    query = """
        select dynamodb.Keys.id.S as id, count(*) as n, arg_max(_dz_key, _dz_version) as _dz_key,
               max(_dz_version) as _dz_version,
               arg_max(_dz_event_time, _dz_version) as _dz_event_time
        from changes group by 1 order by 1
    """
    rows = frame().sql(query)
    assert rows.columns == ["id", "n"]
    assert rows.arrow().column("_dz_key").to_pylist() == ["2:idS1:1", "2:idS1:2"]


RANK = "(select n from (values ('INSERT', 1), ('REMOVE', 2)) as k (name, n) where name = eventName)"


def test_a_star_in_a_subquery_is_not_a_star_of_the_expression() -> None:
    """The rule covers an explicit `*` and the implicit `*` of VALUES."""
    expected = [1, 1, 2]
    assert frame().select(f"{RANK} as rank").arrow()["rank"].to_pylist() == expected
    assert frame().with_columns(f"{RANK} as rank").arrow()["rank"].to_pylist() == expected
    assert frame().filter(f"{RANK} = 2").arrow().num_rows == 1
    known = "exists(select * from customers c where c.id = dynamodb.Keys.id.S)"
    assert frame().select("eventID", known).columns == ["eventID", known]


def test_an_unnamed_path_has_its_name_in_a_subquery_too() -> None:
    named = "(select dynamodb.NewImage.n.N, dynamodb.Keys.id.S, dynamodb.SizeBytes from changes)"
    rows = frame().sql(f"select id, n, name, sizebytes from {named} join customers using (id)")
    assert sorted(row["n"] or "" for row in rows.arrow().to_pylist()) == ["", "5", "7"]
    assert frame().sql(f"select * from {named}").columns == ["n", "id", "SizeBytes"]
    both = f"with t as {named} select n from t union all select n from t"
    assert frame().sql(both).arrow().num_rows == 6
    twice = "(select dynamodb.NewImage.n.N, dynamodb.OldImage.n.N as before from changes)"
    assert frame().sql(f"select before, n from {twice}").arrow().num_rows == 3


def test_of_two_unnamed_subqueries_the_first_one_has_the_keys() -> None:
    versions = {row["eventID"]: row["_dz_version"] for row in frame().arrow().to_pylist()}
    two = "(select eventID as a from changes), (select eventID as b from changes)"
    rows = frame().sql(f"select a, b from {two}").arrow().to_pylist()
    assert len(rows) == 9
    assert all(row["_dz_version"] == versions[row["a"]] for row in rows)


def test_sql_after_stages_and_stages_after_sql() -> None:
    rows = (
        frame()
        .filter("eventName <> 'REMOVE'")
        .sql("with t as (select * from changes) select t.*, c.name from t "
             "join customers c on c.id = t.dynamodb.Keys.id.S")
        .select("name", "dynamodb.NewImage.n.N::int * 2 as n2")
        .filter("n2 > 10")
        .arrow()
    )  # fmt: skip
    assert rows.select(["name", "n2"]).to_pylist() == [{"name": "Bo", "n2": 14}]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("delete from changes", "only SELECT"),
        ("select eventID frm changes c d", "syntax error"),
        ("select nope from changes", 'there is no column "nope"'),
        ("select 1 as x from orders", 'no table "orders". Available columns: eventID, eventName'),
        ("select 1 as x from orders", "Tables: changes, customers."),
        ("select c.* , d.* from changes c, changes d", "two columns are named 'eventID'"),
        ("unpivot changes on dynamodb.Keys.id.S, eventID", "name them in a select() before"),
        ("select * from query('select count(*) as n from changes')", "that the frame can't check"),
        ("select c.* from changes c, query_table('_dz_chunk') q", "as a subquery or WITH"),
        ("from json_execute_serialized_sql(json_serialize_sql('from changes'))", "can't check"),
        ("select columns('event.*') from changes", "columns(lambda name: name like 'event%') does"),
        ("select * from read_text('/etc/hostname')", "disabled by configuration"),
        ("select * from '/etc/passwd'", "passwd"),
        ("select 1 as a; select 2 as b", "one statement is expected, not 2"),
    ],
)
def test_a_wrong_query_says_what_is_wrong(query: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        frame().sql(query).arrow()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lookup_is_a_relation_of_its_own() -> None:
    lookup = Lookup.of_table("customers", CUSTOMERS)
    assert lookup.columns == ["id", "name"]
    assert lookup.filter("id = '2'").select("upper(name) as name").arrow().to_pylist() == [
        {"name": "BO"}
    ]
    assert lookup.sql("select count(*) as n from customers").arrow().to_pylist() == [{"n": 2}]
    assert pa.table(lookup).num_rows == 2


@pytest.mark.parametrize("name", ["changes", "Changes", "_dz_chunk"])
def test_a_lookup_can_not_have_a_reserved_name(name: str) -> None:
    with pytest.raises(DefinitionError, match="lookup can't be named"):
        Lookup.of_table(name, CUSTOMERS)
    with pytest.raises(DefinitionError, match="lookup can't be named"):
        Frame.of_changes(chunk(), lookups={name: CUSTOMERS})


@pytest.mark.parametrize("table", ["_dz_chunk", '"_DZ_Chunk"', "_dz_items"])
def test_sql_can_not_reach_internal_tables(table: str) -> None:
    frame = Frame.of_changes(chunk())
    for call in (frame.sql, frame.filter, frame.select):
        with pytest.raises(ExpressionError, match=r"(?i)no table '_dz_.*reserved"):
            call(f"select 1 from {table}" if call == frame.sql else f"exists (from {table})")


def test_a_lookup_with_structs_in_structs_may_have_many_rows() -> None:
    rows = [{"b": {"c": number}, "l": [{"x": {"y": number}}]} for number in range(20_000)]
    frame = Frame.of_changes(
        chunk(({"id": {"S": "1"}}, None)), lookups={"c": pa.table({"a": rows})}
    )
    found = frame.sql("select sum(a.b.c) as c, sum(a.l[1].x.y) as y from c").arrow()
    assert found.to_pylist() == [{"c": 199_990_000, "y": 199_990_000}]
