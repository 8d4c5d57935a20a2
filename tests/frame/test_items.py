"""The typed view through the full flow: exact values, stable first types, nothing dropped."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame import Frame
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream, run_transform
from tests.examples import examples
from tests.frame.chunks import chunk

SOURCE = DynamoDBSource("orders", region="eu-west-1")


def typed(image: Any = "new", types: dict[str, str] | None = None) -> Transform[Any, Any]:
    @transform(
        input_mapping={
            "changes": Input(Stream(source=DynamoDBSource("orders", region="eu-west-1")))
        },
        output_mapping={"typed": Output(Dataset(id="typed"))},
        name="typed",
    )
    def rows(changes: Frame) -> Frame:
        return changes.items(image, types)

    return rows


def table(stream: ScriptedStream, root: Path, **view: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run_transform(typed(**view), stream, root)["typed"].to_pylist()
    return [
        {name: value for name, value in row.items() if not name.startswith("_dz_")} for row in rows
    ]


def test_each_type_has_its_column(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put(
        {
            "id": {"S": "1"},
            "text": {"S": ""},
            "number": {"N": "1E+2"},
            "bytes": {"B": "AAE="},
            "flag": {"BOOL": True},
            "nothing": {"NULL": True},
            "texts": {"SS": ["b", "a"]},
            "numbers": {"NS": ["2", "-1.5"]},
            "list": {"L": [{"N": "1.50"}, {"S": "x"}]},
            "map": {"M": {"b": {"BOOL": False}, "a": {"NULL": True}}},
        }
    )
    assert table(stream, tmp_path) == [
        {
            "id": "1",
            "text": "",
            "number": Decimal(100),
            "bytes": b"\x00\x01",
            "flag": True,
            "texts": ["a", "b"],
            "numbers": [Decimal("-1.5"), Decimal(2)],
            "list": '[1.50,"x"]',
            "map": '{"a":null,"b":false}',
        }
    ]


def test_the_first_type_stays_across_chunks_and_other_types_get_siblings(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"S": "one"}})
    table(stream, tmp_path)
    stream.put({"id": {"S": "2"}, "x": {"N": "2"}})
    rows = {row["id"]: row for row in table(stream, tmp_path)}
    assert rows["1"] == {"id": "1", "x": "one", "x__n": None}
    assert rows["2"] == {"id": "2", "x": None, "x__n": "2"}


def test_a_number_that_does_not_fit_is_stored_as_text(tmp_path: Path) -> None:
    stream = ScriptedStream()
    long = "12345678901234567890123456789012345678"
    stream.put({"id": {"S": "1"}, "x": {"N": long}})
    stream.put({"id": {"S": "2"}, "x": {"N": "1.25"}})
    rows = {row["id"]: row for row in table(stream, tmp_path)}
    assert rows["1"] == {"id": "1", "x": None, "x__n": long}
    assert rows["2"] == {"id": "2", "x": Decimal("1.25"), "x__n": None}


def test_names_that_a_table_refuses_get_safe_ones(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "Name": {"S": "A"}, "name": {"S": "b"}, 'a"; drop': {"S": "c"}})
    (row,) = table(stream, tmp_path)
    assert len(row) == 4
    assert sorted(row.values()) == ["1", "A", "b", "c"]


def test_declared_types_and_the_old_image(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "qty": {"N": "3"}})
    stream.put({"id": {"S": "1"}, "qty": {"N": "4"}})
    view = {"image": "both", "types": {"qty": "long"}}
    assert table(stream, tmp_path, **view) == [{"id": "1", "before_qty": 3, "after_qty": 4}]


def test_an_unknown_image_is_refused(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}})
    with pytest.raises(ExpressionError, match="no such image"):
        table(stream, tmp_path, image="newest")


def test_more_attributes_than_columns_share_one(tmp_path: Path) -> None:
    stream = ScriptedStream()
    many = {f"a{number:03d}": {"N": str(number)} for number in range(510)}
    stream.put({"id": {"S": "1"}, **many})
    (row,) = run_transform(typed(), stream, tmp_path)["typed"].to_pylist()
    assert row["a000"] == 0
    assert '"a509":509' in row["_dz_rest"]


NUMBERS = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(-(10**20), 10**20, places=9).map(str),
    st.tuples(st.integers(-999, 999), st.integers(-100, 100)).map(lambda p: f"{p[0]}E{p[1]:+d}"),
)


@settings(max_examples=examples(15), deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_every_number_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[str]
) -> None:
    stream = ScriptedStream()
    for position, number in enumerate(numbers):
        stream.put({"id": {"S": str(position)}, "x": {"N": number}})
    reader = TypeDeserializer()
    for row in table(stream, tmp_path_factory.mktemp("numbers")):
        stored = row["x"] if row["x"] is not None else Decimal(row["x__n"])
        assert stored == reader.deserialize({"N": numbers[int(row["id"])]})


def test_an_image_that_is_not_json_is_quarantined_and_the_others_are_applied(
    tmp_path: Path,
) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"S": "a"}})
    stream.put({"id": {"S": "2"}, "x": {"S": "b"}})
    broken = stream.changes[0]._replace(new_image=b'{"id": {"S": "1"}, "x": ')
    stream.rewrite(stream.changes[0], broken)
    assert [row["id"] for row in table(stream, tmp_path)] == ["2"]
    quarantined = DeltaTable(tmp_path / "_quarantine" / "typed").to_pyarrow_table().to_pylist()
    assert [row["new_image"] for row in quarantined] == ['{"id": {"S": "1"}, "x": ']


@pytest.mark.parametrize("names", [["credit-limit", "credit_limit_caf4d27a"]])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_an_attribute_with_the_name_of_another_ones_column_has_its_own(
    tmp_path: Path, names: list[str], reverse: bool, at_once: bool
) -> None:
    stream = ScriptedStream()
    values = {"credit-limit": {"N": "100"}, "credit_limit_caf4d27a": {"S": "x"}}
    for name in reversed(names) if reverse else names:
        stream.put({"id": {"S": name}, name: values[name]})
        if not at_once:
            table(stream, tmp_path)
    stream.put({"id": {"S": "both"}, **values})
    rows = {row.pop("id"): row for row in table(stream, tmp_path)}
    assert {value for value in rows["both"].values() if value is not None} == {100, "x"}
    assert [v for v in rows["credit-limit"].values() if v is not None] == [100]


def test_a_prefixed_column_never_takes_the_name_of_a_key(tmp_path: Path) -> None:
    taken = "after_x_" + hashlib.sha256(b"after_x").hexdigest()[:8]
    stream = ScriptedStream(key=("after_x", taken))
    key = {"after_x": {"S": "k1"}, taken: {"S": "k2"}}
    stream.put({**key, "x": {"S": "value"}})
    (row,) = table(stream, tmp_path, image="both")
    assert sorted(v for v in row.values() if v is not None) == ["k1", "k2", "value"]


def test_columns_added_before_come_along_so_that_a_log_of_events_names_them(
    tmp_path: Path,
) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=DynamoDBSource("orders")))},
        output_mapping={"d": Output(Dataset("d", mode="append"))},
    )
    def events(changes: Frame) -> Frame:
        return changes.with_columns(
            "eventName as event", 'upper(dynamodb.NewImage.status.S) as "loud""one"'
        ).items()

    stream = ScriptedStream("orders")
    stream.put({"id": {"S": "1"}, "status": {"S": "new"}})
    stream.put({"id": {"S": "1"}, "status": {"S": "paid"}, "event": {"N": "7"}})
    stream.delete({"id": {"S": "1"}})
    rows = run_transform(events, stream, str(tmp_path))["d"].to_pylist()
    assert [row["event"] for row in rows] == ["INSERT", "MODIFY", "REMOVE"]
    assert [row['loud"one'] for row in rows] == ["NEW", "PAID", None]
    (other,) = [name for name in rows[0] if name.startswith("event_")]
    assert [row[other] for row in rows] == [None, 7, None]  # the attribute has another name


def test_an_added_column_with_the_name_of_an_existing_one_is_an_error() -> None:
    changes = chunk(({"id": {"S": "1"}, "status": {"S": "new"}}, None))
    found = Frame.of_changes(changes).items().attributes
    with pytest.raises(ExpressionError, match=r"'Status'.*attribute's column"):
        Frame.of_changes(changes, attributes=found).with_columns("eventName as Status").items()


def test_the_values_of_a_row_are_those_of_one_item_in_any_order_of_rows() -> None:
    names = [f"a{number}" for number in range(130)]  # more than one query reads
    items: list[dict[str, Any]] = [
        {"id": {"S": str(row)}, **{name: {"S": f"{row} {name}"} for name in names}}
        for row in range(60)
    ]
    items[7]["odd"] = {"L": []}  # so that they are not read as the first ones
    changes = Frame.of_changes(chunk(*((item, None) for item in items)))
    for row in changes.sql("select * from changes order by random()").items().arrow().to_pylist():
        assert {name: row[name] for name in names} == {n: f"{row['id']} {n}" for n in names}
        assert row["_dz_key"].endswith(f":{row['id']}")
        assert (row["_dz_rest"] is not None) is (row["id"] == "7")


def test_sql_before_items_runs_once() -> None:
    items = [{"id": {"S": str(row)}, f"a{row}": {"N": str(row)}} for row in range(40)]
    changes = Frame.of_changes(chunk(*((item, None) for item in items)))
    found = changes.sql("select * from changes where random() < 0.5").items().arrow().to_pylist()
    assert [row[f"a{row['id']}"] for row in found] == [int(row["id"]) for row in found]
