"""Records that SQL carries: through windows, aggregates, lists, subqueries and comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame import Frame
from tests.frame.chunks import chunk


def item(key: str, status: str, size: int) -> dict[str, Any]:
    return {"id": {"S": key}, "status": {"S": status}, "size": {"N": str(size)}}


NEW, PAID, DONE = item("a", "new", 1), item("a", "paid", 2), item("a", "done", 3)
OTHER, OTHER_PAID = item("b", "new", 5), item("b", "paid", 6)

OF_KEY = "over (partition by _dz_key order by _dz_version)"
GROUPED = "_dz_key, max(_dz_version) as _dz_version, max(_dz_event_time) as _dz_event_time"
HIDDEN = "_dz_key, _dz_version, _dz_event_time"
LISTS = f"select list(dynamodb order by _dz_version) as l, {GROUPED} from changes group by _dz_key"


def frame() -> Frame:
    return Frame.of_changes(
        chunk((NEW, None), (OTHER, None), (PAID, NEW), (OTHER_PAID, OTHER), (DONE, PAID))
    )


def statuses(found: Frame, record: str = "dynamodb") -> list[str | None]:
    """Return the status of each row, by change."""
    rows = found.select(f"{record}.NewImage.status.S as s", "_dz_version as v").arrow().to_pylist()
    return [row["s"] for row in sorted(rows, key=lambda row: (row["v"], str(row["s"])))]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (f"lag(dynamodb) {OF_KEY}", [None, None, "new", "new", "paid"]),
        (f"lag(dynamodb, 1, dynamodb) {OF_KEY}", ["new", "new", "new", "new", "paid"]),
        (f"lead(dynamodb) {OF_KEY}", ["paid", "paid", "done", None, None]),
        (f"first_value(dynamodb) {OF_KEY}", ["new"] * 5),
        (f"coalesce(lag(dynamodb) {OF_KEY}, dynamodb)", ["new", "new", "new", "new", "paid"]),
        ("case when eventName = 'INSERT' then dynamodb end", ["new", "new", None, None, None]),
        ("if(eventName = 'INSERT', null, dynamodb)", [None, None, "paid", "paid", "done"]),
        ("[dynamodb, null][1]", ["new", "new", "paid", "paid", "done"]),
        ("unnest([dynamodb])", ["new", "new", "paid", "paid", "done"]),
        (
            "(select max_by(c.dynamodb, c._dz_version) from changes c "
            "where c._dz_key = changes._dz_key)",
            ["done", "paid", "done", "paid", "done"],
        ),
    ],
)
def test_a_record_stays_one(record: str, expected: list[str | None]) -> None:
    found = frame().sql(f"select {record} as previous, {HIDDEN} from changes")
    assert statuses(found, "previous") == expected
    inner = f"select {record} as previous, {HIDDEN} from changes"
    paths = f"select previous.NewImage.status.S as s, _dz_version as v from ({inner}) order by v"
    assert frame().sql(paths).arrow()["s"].to_pylist() == expected
    straight = f"select ({record}).NewImage.status.S as s, _dz_version as v from changes order by v"
    assert frame().sql(straight).arrow()["s"].to_pylist() == expected
    if "select" not in record:
        assert statuses(frame().with_columns(f"{record} as r"), "r") == expected
        path = f"({record}).NewImage.status.S"
        assert sorted(map(str, frame().select(path).arrow()["status"].to_pylist())) == sorted(
            map(str, expected)
        )
        assert statuses(frame().select(f"* replace ({record} as dynamodb)")) == expected


@pytest.mark.parametrize(
    "record",
    [
        "arg_max(dynamodb, _dz_version)",
        "max_by(dynamodb, _dz_version)",
        "last(dynamodb order by _dz_version)",
        "list(dynamodb order by _dz_version)[-1]",
    ],
)
def test_a_record_of_a_group_gives_items(record: str) -> None:
    grouped = f"select {record} as dynamodb, {GROUPED} from changes group by _dz_key"
    assert statuses(frame().sql(grouped)) == ["paid", "done"]
    items = frame().sql(grouped).items().arrow().to_pylist()
    assert sorted((row["id"], row["size"]) for row in items) == [("a", 3), ("b", 6)]
    nested = f"with last as ({grouped}) select dynamodb.NewImage.status.S as s from last"
    assert sorted(frame().sql(nested).arrow()["s"].to_pylist()) == ["done", "paid"]


def test_a_path_leads_straight_into_an_expression() -> None:
    tags = {**NEW, "tags": {"L": [{"S": "x"}, {"S": "y"}]}}
    changes = Frame.of_changes(chunk((tags, None), (PAID, tags), (OTHER, None)))
    previous = f"(lag(dynamodb) {OF_KEY})"
    found = changes.sql(
        f"select {previous}.NewImage.tags.L[2].S as second, {previous}.SequenceNumber as number, "
        f"{previous}.Keys as keys, len({previous}.NewImage.tags.L) as tags, _dz_version as v "
        "from changes order by v"
    ).arrow()
    assert found["second"].to_pylist() == [None, "y", None]
    assert found["number"].to_pylist() == [None, "100000000000000000000", None]
    keys = found["keys"].to_pylist()
    assert [one and json.loads(one) for one in keys] == [None, {"id": {"S": "a"}}, None]
    assert found["tags"].to_pylist() == [None, 2, None]
    changed = f"eventName = 'MODIFY' and {previous}.NewImage.status.S <> 'new'"
    kept = frame().sql(f"select * from changes qualify {changed}")
    assert statuses(kept) == ["done"]
    first = "list(dynamodb order by _dz_version)[1].NewImage.size.N"
    grouped = f"select {first} as n, max_by(dynamodb, _dz_version).NewImage.status.S, {GROUPED} "
    rows = frame().sql(grouped + "from changes group by _dz_key").arrow().to_pylist()
    assert sorted((row["n"], row["status"]) for row in rows) == [("1", "done"), ("5", "paid")]
    lists = frame().sql(LISTS).select("l[-1].NewImage.status.S as s").arrow()
    assert sorted(lists["s"].to_pylist()) == ["done", "paid"]


def test_a_path_into_an_expression_reads_only_its_image() -> None:
    found = frame().select(f"(lag(dynamodb) {OF_KEY}).OldImage.status.S as s")
    assert found.images_needed == {"old_image"}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda f: f.select("(case when true then dynamodb end).New.a.S"), "no field 'New'"),
        (lambda f: f.select("[dynamodb][1].NewImage.status.X"), "must be followed by its type"),
        (
            lambda f: f.sql(LISTS).select("list_transform(l, lambda r: r.Keys.id.S)"),
            "is unnested before",
        ),
        (lambda f: f.select("eventID.x"), "the value has no fields"),
        (lambda f: f.filter(f"lag(eventID) {OF_KEY} is null"), "QUALIFY"),
        (lambda f: f.select("dynamodb.NewImage.*"), "items() makes columns"),
        (lambda f: f.sql("select changes.dynamodb.* from changes"), "items() makes columns"),
    ],
)
def test_a_path_that_leads_nowhere_says_so(call: Callable[[Frame], Frame], reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        call(frame())
    assert reason in str(caught.value)
    assert "_dz_" not in str(caught.value).replace("_dz_key", "").replace("_dz_version", "")


FIELDS = ["ApproximateCreationDateTime", "Keys", "NewImage", "OldImage", "SequenceNumber"]
FIELDS += ["SizeBytes", "StreamViewType"]


def test_the_star_of_a_record_is_its_fields() -> None:
    assert frame().select("dynamodb.*").columns == FIELDS
    assert frame().sql("select DynamoDB.* from changes c").columns == FIELDS
    rows = frame().select("dynamodb", "dynamodb.*").arrow().to_pylist()
    assert [{name: row[name] for name in FIELDS} for row in rows] == [r["dynamodb"] for r in rows]
    some = frame().with_columns("dynamodb.* exclude (newimage, OldImage)")
    assert some.columns[-5:] == [name for name in FIELDS if "Image" not in name]
    inner = f"select p.*, {HIDDEN} from (select lag(dynamodb) {OF_KEY} as p, {HIDDEN} from changes)"
    assert frame().sql(inner).arrow()["NewImage"].null_count == 2
    assert frame().sql("select dynamodb.* from changes dynamodb").columns[0] == "eventID"


@pytest.mark.parametrize(
    "star",
    [
        "dynamodb.* replace ('x' as Keys)",
        "dynamodb.* exclude (nothing)",
        "dynamodb.* like 'S%'",
        "to_json(unnest([columns(dynamodb.*)]))",
    ],
)
def test_another_star_of_a_record_says_what_to_write(star: str) -> None:
    with pytest.raises(ExpressionError, match=r"Name the fields|Its fields are"):
        frame().select(star)
    with pytest.raises(ExpressionError, match=r"Name the fields|Its fields are"):
        frame().sql(f"select {star} from changes")


def test_a_list_of_records_is_unnested() -> None:
    unnested = f"select unnest(l) as dynamodb, {HIDDEN} from ({LISTS})"
    assert sorted(frame().sql(unnested).items().arrow()["size"].to_pylist()) == [1, 2, 3, 5, 6]
    later = frame().sql(LISTS).select("unnest(l) as dynamodb")
    assert sorted(later.items().arrow()["size"].to_pylist()) == [1, 2, 3, 5, 6]
    assert statuses(frame().sql(LISTS).select("l[1] as dynamodb")) == ["new", "new"]


@pytest.mark.parametrize(
    "query",
    [LISTS, f"select l, {HIDDEN} from ({LISTS})", f"select * from ({LISTS})"],
)
def test_a_list_of_records_has_the_records_that_users_get(query: str) -> None:
    lists = frame().sql(query).arrow()["l"].to_pylist()
    assert sorted(len(one) for one in lists) == [2, 3]
    plain = frame().select("dynamodb").arrow()["dynamodb"].to_pylist()
    assert all(record in plain for one in lists for record in one)


@pytest.mark.parametrize(
    "query",
    [
        "select to_json(d) as j from (select dynamodb as d from changes)",
        "with t(d) as (select dynamodb from changes) select to_json(d) as j from t",
        "select to_json(d) as j from (select dynamodb from changes) t(d)",
        f"select to_json(unnest(l)) as j from ({LISTS})",
        f"select unnest(to_json(l)::json[]) as j from ({LISTS})",
        "select to_json((select c.dynamodb from changes c where c.eventID = changes.eventID)) as j "
        "from changes",
    ],
)
def test_a_record_of_another_name_is_the_record_that_users_get(query: str) -> None:
    found = frame().sql(query).arrow()["j"].to_pylist()
    plain = frame().select("to_json(dynamodb) as j").arrow()["j"].to_pylist()
    assert sorted(found) == sorted(plain)
    assert set(json.loads(found[0])) >= {"NewImage", "SequenceNumber"}


def test_no_record_is_null() -> None:
    previous = frame().with_columns(f"lag(dynamodb) {OF_KEY} as previous")
    assert statuses(previous.filter("previous is null")) == ["new", "new"]
    assert previous.select("previous").arrow()["previous"].null_count == 2
    assert previous.select("to_json(previous) as j").arrow()["j"].null_count == 2
    counted = f"select count(previous) as n, {GROUPED} from changes group by _dz_key"
    assert sorted(previous.sql(counted).arrow()["n"].to_pylist()) == [1, 2]


def test_a_record_comes_along_with_items() -> None:
    found = frame().with_columns(f"lag(dynamodb) {OF_KEY} as previous").items().arrow()
    previous = dict(zip(found["size"].to_pylist(), found["previous"].to_pylist(), strict=True))
    assert previous[1] is None
    assert json.loads(previous[2]["NewImage"]) == NEW


@pytest.mark.parametrize(
    "query",
    [
        f"select dynamodb, {GROUPED} from changes group by _dz_key, dynamodb",
        f"select dynamodb, {GROUPED} from changes group by 1, _dz_key",
        f"select dynamodb, {GROUPED} from changes group by all",
        f"select dynamodb as dynamodb, {GROUPED} from changes group by _dz_key, dynamodb "
        "order by dynamodb",
        f"select distinct dynamodb, {HIDDEN} from changes order by dynamodb",
        f"select distinct on (dynamodb) dynamodb, {HIDDEN} from changes",
        "select * from changes qualify row_number() over (partition by dynamodb) = 1",
        f"select dynamodb, {HIDDEN} from changes union select dynamodb, {HIDDEN} from changes",
    ],
)
def test_records_are_compared_as_a_whole(query: str) -> None:
    assert statuses(frame().sql(query)) == ["new", "new", "paid", "paid", "done"]


@pytest.mark.parametrize(
    "query",
    [
        "select distinct dynamodb from changes",
        "select dynamodb from changes union select dynamodb from changes",
        "select dynamodb from changes intersect select dynamodb from changes",
        "select dynamodb, count(*) as n from changes group by all",
        "select dynamodb, count(*) as n from changes group by 1",
    ],
)
def test_equal_paths_make_no_equal_records(query: str) -> None:
    rows = frame().sql(query).select("dynamodb.NewImage.status.S as s").arrow()
    assert sorted(rows["s"].to_pylist()) == ["done", "new", "new", "paid", "paid"]


def test_order_by_means_an_output_of_the_name() -> None:
    found = frame().sql("select eventName as dynamodb from changes order by dynamodb desc")
    assert found.arrow()["dynamodb"].to_pylist() == ["MODIFY"] * 3 + ["INSERT"] * 2


def test_only_what_paths_name_is_read_of_a_carried_record() -> None:
    query = f"select arg_max(dynamodb, _dz_version) as d, {GROUPED} from changes group by _dz_key"
    found = frame().sql(query).filter("d is not null").select("d.NewImage.status.S as s")
    assert found.images_needed == {"new_image"}


@pytest.mark.parametrize(
    "query",
    [
        "select to_json(changes) as j from changes",
        "select to_json(c) as j from changes c",
        "select c as j from changes as C",
        "with t as (select * from changes) select to_json(t) as j from t",
        "select to_json(t) as j from (select dynamodb as d from changes) t",
    ],
)
def test_a_full_row_is_no_value(query: str) -> None:
    with pytest.raises(ExpressionError, match="is a table, not a value"):
        frame().sql(query)


def test_a_row_without_a_record_is_a_value() -> None:
    query = "select to_json(t) as t from (select dynamodb.NewImage.status.S as s from changes) t"
    assert frame().sql(query).filter("t->>'$.s' = 'done'").arrow().num_rows == 1
    column = frame().with_columns("eventName as changes").select("upper(changes) as n")
    assert column.arrow()["n"].to_pylist()[-1] == "MODIFY"
    named = "select eventName as c, eventID from changes c order by c, eventID"
    assert frame().sql(named).arrow()["eventID"].to_pylist() == ["e0", "e1", "e2", "e3", "e4"]
    with pytest.raises(ExpressionError, match="is a table, not a value"):
        frame().select("to_json(changes) as j")


@pytest.mark.parametrize(
    "value",
    [
        "to_json(columns('dyn.*'))",
        "to_json(columns(* exclude (_dz_key, _dz_version, _dz_event_time)))",
        "to_json(struct_pack(*columns(*)))",
        "to_json(columns(lambda c: c like 'Dyn%'))",
        "to_json(columns(lambda c: c in ('eventID', 'dynamodb')))",
        "to_json(columns(['eventID', 'dynamodb']))",
    ],
)
def test_columns_in_a_function_take_no_record(value: str) -> None:
    with pytest.raises(ExpressionError, match="takes the record dynamodb"):
        frame().sql(f"select {value}, {HIDDEN} from changes")


def test_columns_in_a_function_take_what_is_no_record() -> None:
    given = frame().select("dynamodb", "eventName", "dynamodb.NewImage.status.S as status")
    found = given.sql(f"select upper(columns('eventName|stat.*')), {HIDDEN} from changes").arrow()
    assert found.column("status").to_pylist() == ["NEW", "NEW", "PAID", "PAID", "DONE"]
    by_name = "upper(columns(lambda c: c in ('eventName', 'status')))"
    again = given.sql(f"select {by_name}, {HIDDEN} from changes").arrow()
    assert again.column("status").to_pylist() == ["NEW", "NEW", "PAID", "PAID", "DONE"]
    counts = f"count(columns(* exclude ({HIDDEN})))"
    counted = given.sql(f"select {counts}, {GROUPED} from changes group by _dz_key")
    assert set(counted.arrow().column("dynamodb").to_pylist()) == {2, 3}
    rest = f"columns(* exclude (dynamodb, eventName, {HIDDEN}))"
    kept = given.sql(f"select upper({rest}), {HIDDEN} from changes").arrow()
    assert kept.column("status").to_pylist() == ["NEW", "NEW", "PAID", "PAID", "DONE"]
