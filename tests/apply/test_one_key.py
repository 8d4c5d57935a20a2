"""SQL over several keys is refused where rows are held by key; SQL over one key is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.errors import ResultError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import ApplySettings, apply_transform, drain_once, read_dataset
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders")
SELECTED = (
    "dynamodb.Keys.shop.S as shop",
    "dynamodb.Keys.id.S as id",
    "dynamodb.NewImage.who.S as who",
    "cast(dynamodb.NewImage.total.N as bigint) as total",
)
HIDDEN = "arg_max(_dz_key, _dz_version) as _dz_key, max(_dz_version) as _dz_version, "
HIDDEN += "max(_dz_event_time) as _dz_event_time"
PLAIN = "_dz_key, _dz_version, _dz_event_time"


def run(root: Path, function: Callable[[Frame], object], mode: Any) -> list[dict[str, Any]]:
    layout = Layout(str(root))
    stream = ScriptedStream("orders", key=("shop", "id"))
    for shop, number, total in (("a", "1", 50), ("a", "2", 10), ("b", "1", 1), ("a", "1", 60)):
        item = {"shop": {"S": shop}, "id": {"S": number}, "who": {"S": "Ann"}}
        stream.put({**item, "total": {"N": str(total)}})
        drain_once(SOURCE, stream, layout)
    flow = transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", mode=mode))},
        name="flow",
    )(function)
    apply_transform(flow, layout, settings=ApplySettings(chunk_bytes=1))
    found: list[dict[str, Any]] = read_dataset(layout, "d").to_pylist()
    return found


def sql(query: str, *, items: bool = False) -> Callable[[Frame], Frame]:
    def function(changes: Frame) -> Frame:
        return (changes.items() if items else changes.select(*SELECTED)).sql(query)

    return function


MIXED = [
    f"select who, sum(total) as total, {HIDDEN} from changes group by who",
    f"select who, sum(total) as total, {HIDDEN} from changes group by all",
    f"select who, sum(total) as total, {HIDDEN} from changes group by 1",
    f"select who as w, sum(total) as total, {HIDDEN} from changes group by w",
    f"select id, sum(total) as total, {HIDDEN} from changes group by id",  # half of the key
    f"select shop, id, sum(total) as t, {HIDDEN} from changes group by rollup(shop, id)",
    f"select upper(shop) as s, id, sum(total) as t, {HIDDEN} from changes group by s, id",
    f"select geomean(total) as total, {HIDDEN} from changes",
    "select *, sum(total) over (partition by who) as sums from changes",
    "select * from changes qualify row_number() over (order by total) = 1",
    f"select * from (select who, sum(total) as t, {HIDDEN} from changes group by who) as q",
    f"with q as (select who, max(total) as t, {HIDDEN} from changes group by who) select * from q",
    "select * from changes where total > (select avg(total) from changes)",
    "select a.*, b.total as other from changes a join changes b on a.who = b.who",
    f"select distinct on (who) who, {PLAIN} from changes",
    "select * from changes order by total limit 1",
    "select * from changes using sample 2 rows",
    "select * from changes tablesample 50%",
    "select * from (select * from changes using sample reservoir(2 rows)) as q",
    "select changes.* from changes positional join (values (1), (2)) as v(x)",
    "select changes.* from (values (1), (2)) as v(x) positional join changes",
    "select * from changes where who in (select who from changes where total > 1 union select '')",
    f"select *, {PLAIN} from changes qualify max(total) over (partition by _dz_key) > 1 and "
    "id in (select id from changes where total > 1)",
    "select changes.* from changes join (values ('a')) as v(x) on "
    "exists (select 1 from changes as b where b.total > 1)",
    f"select max(total) as total, {HIDDEN} from changes group by _dz_key, "
    "exists (select 1 from changes as b where b.total > 1)",
    "select a.* from changes a join changes b on a._dz_key = b._dz_key, changes c",
    "select a.* from changes a, changes b where a._dz_key = a._dz_key",
    "select * from changes a where exists (select 1 from changes b where b._dz_key = a._dz_key) "
    "and who in (select who from changes)",
    f"with recursive r as (select id, 1 as n, {PLAIN} from changes union all select r.id, n + 1, "
    "r._dz_key, r._dz_version, r._dz_event_time from r, changes where n < 2) select * from r",
    "select * from changes pivot (sum(total) for shop in ('a', 'b') group by id)",
    f"unpivot (select who, max(id) as i, {HIDDEN} from changes group by who) on who, i",
    "select id, max(v) as v, arg_max(_dz_key, _dz_version) as _dz_key, max(_dz_version) as "
    "_dz_version, max(_dz_event_time) as _dz_event_time from (select * exclude (total), _dz_key, "
    "_dz_version, _dz_event_time from changes) unpivot (v for id in (who, shop)) group by id",
    f"select who, sum(total) as t, {HIDDEN} from changes group by who union all "
    f"select who, total, {PLAIN} from changes",
]

FINE = [
    f"select shop, id, max(total) as total, {HIDDEN} from changes group by shop, id",
    f"select shop, id, max(total) as total, {HIDDEN} from changes group by all",
    f"select id as x, shop as y, max(total) as total, {HIDDEN} from changes group by 1, y",
    f"select max(total) as total, {HIDDEN} from changes group by _dz_key",
    f"with q as (select *, {PLAIN} from changes) select id, {HIDDEN} from q group by shop, id",
    "select *, max(total) over (partition by _dz_key) as highest from changes",
    "select * from changes qualify row_number() over (partition by shop, id order by total) = 1",
    "select a.*, b.total as other from changes a join changes b using (_dz_key)",
    "select a.* from changes a join changes b on a.shop = b.shop and a.id = b.id",
    f"select distinct shop, id, total, {PLAIN} from changes",
    "select *, list_sum([total, 1]) as more, greatest(total, 3) as g from changes order by total",
    "select * from changes union all select * from changes where false",
    "select changes.* from changes, (select 1 as one using sample 1 rows) as p",
    "select a.* from changes a join changes b using (_dz_key) join changes c using (_dz_key)",
    "select a.* from changes a, changes b, changes c where a._dz_key = b._dz_key and "
    "b._dz_key = c._dz_key",
    "select * from changes a where exists (select 1 from changes b where b._dz_key = a._dz_key)",
    f"with recursive r as (select id, 1 as n, {PLAIN} from changes union all "
    f"select id, n + 1, {PLAIN} from r where n < 2) select * from r",
    "unpivot changes on id, who into name n value v",
    "unpivot changes on columns(* exclude (total)) into name n value v",
    "select shop, v from changes unpivot include nulls (v for n in (who, id)) as u",
    "with u as (unpivot (select shop, who, id from changes) on who, id into name n value v) from u",
    "select u.*, x from changes unpivot (v for n in (who, id)) as u, (values (1), (2)) as p(x)",
    "select n, v, row_number() over (partition by _dz_key, n order by _dz_version) as number "
    "from changes unpivot (v for n in (who, id))",
]


@pytest.mark.parametrize("mode", ["merge", "history"])
@pytest.mark.parametrize("query", MIXED)
def test_sql_over_several_keys_is_refused(tmp_path: Path, query: str, mode: Any) -> None:
    with pytest.raises(ResultError, match="changes of several keys") as caught:
        run(tmp_path, sql(query), mode)
    assert "downstream" in caught.value.hint
    assert "sql(" in caught.value.what


@pytest.mark.parametrize("query", FINE)
def test_sql_over_one_key_is_fine(tmp_path: Path, query: str) -> None:
    assert run(tmp_path, sql(query), "merge")


@pytest.mark.parametrize(("query", "is_fine"), [(FINE[0], True), (MIXED[4], False)])
def test_the_columns_of_items_are_known_as_keys(tmp_path: Path, query: str, is_fine: bool) -> None:
    if is_fine:
        rows = run(tmp_path, sql(query, items=True), "merge")
        assert sorted((row["shop"], row["id"], int(row["total"])) for row in rows) == [
            ("a", "1", 60),
            ("a", "2", 10),
            ("b", "1", 1),
        ]
    else:
        with pytest.raises(ResultError, match="changes of several keys"):
            run(tmp_path, sql(query, items=True), "merge")


def test_paths_in_the_query_itself_are_known_as_keys(tmp_path: Path) -> None:
    query = (
        f"select dynamodb.Keys.shop.S as shop, count(*) as n, {HIDDEN} from changes "
        "group by changes.dynamodb.Keys.shop.S, dynamodb.NewImage.id.S"
    )
    assert len(run(tmp_path, lambda changes: changes.sql(query), "merge")) == 3


def test_a_window_in_select_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"with_columns\(.*the window function sum\(\)"):
        run(
            tmp_path,
            lambda changes: changes.select(*SELECTED).with_columns("sum(total) over () as s"),
            "merge",
        )


def test_an_unpivot_gives_the_rows_of_the_latest_change(tmp_path: Path) -> None:
    query = "unpivot (select shop, id, who, total::varchar as total from changes) on who, total"
    rows = run(tmp_path, sql(f"{query} into name n value v"), "merge")
    found = sorted((row["shop"], row["id"], row["n"], row["v"]) for row in rows)
    totals = {("a", "1"): "60", ("a", "2"): "10", ("b", "1"): "1"}
    expected = [(*key, "total", total) for key, total in totals.items()]
    assert found == sorted(expected + [(*key, "who", "Ann") for key in totals])


def test_an_append_table_may_have_a_result_per_chunk(tmp_path: Path) -> None:
    rows = run(tmp_path, sql(MIXED[0]), "append")
    assert sorted(int(row["total"]) for row in rows) == [1, 10, 50, 60]
