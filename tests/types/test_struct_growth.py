"""Declared structs that meet further fields: what they know stays filled, and nothing is lost."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame import Frame
from datazone_dagster.frame.item_types import parse_type, type_text
from datazone_dagster.frame.struct_growth import MAX_FIELDS, grown, is_grown
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream, run_transform
from tests.types.flow import scripted

LINES = "list<struct<sku:string,qty:int>>"


def line(**more: Any) -> dict[str, Any]:
    return {"M": {"sku": {"S": "A-1"}, "qty": {"N": "2"}, **more}}


def put(stream: ScriptedStream, key: str, *lines: dict[str, Any]) -> None:
    stream.put({"id": {"S": key}, "lines": {"L": list(lines)}})


def rows_of(stream: ScriptedStream, root: Path, declared: str = LINES) -> dict[str, Any]:
    return {row["id"]: row for row in scripted(stream, root, types={"lines": declared})}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_struct_grows_by_the_fields_that_come(tmp_path: Path, at_once: bool) -> None:
    stream = ScriptedStream()
    put(stream, "1", line())
    if not at_once:
        rows_of(stream, tmp_path)
    put(stream, "2", line(color={"S": "red"}), line())
    if not at_once:
        rows_of(stream, tmp_path)
    put(stream, "3", line(price={"N": "9.5"}, color={"S": "blue"}))
    rows = rows_of(stream, tmp_path)
    known = {"sku": "A-1", "qty": 2}
    assert rows["1"]["lines"] == [{**known, "color": None, "price": None}]
    assert rows["2"]["lines"] == [
        {**known, "color": "red", "price": None},
        {**known, "color": None, "price": None},
    ]
    assert rows["3"]["lines"] == [{**known, "color": "blue", "price": Decimal("9.5")}]
    assert "lines__l" not in rows["1"]
    assert (
        not DeltaTable(tmp_path / "typed")
        .to_pyarrow_table()
        .schema.get_all_field_indices("lines__l")
    )


@pytest.mark.parametrize("policy", ["freeze", "quarantine"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_struct_that_may_not_grow_keeps_its_known_fields(
    tmp_path: Path, policy: Any, at_once: bool
) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=DynamoDBSource("orders")))},
        output_mapping={"typed": Output(Dataset("typed", schema_policy={"lines": policy}))},
    )
    def typed(changes: Frame) -> Frame:
        return changes.items(types={"lines": LINES})

    stream = ScriptedStream()
    put(stream, "1", line())
    if not at_once:
        run_transform(typed, stream, tmp_path)
    put(stream, "2", line(color={"S": "red"}))
    table = run_transform(typed, stream, tmp_path)["typed"]
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["2"]["lines"] == [{"sku": "A-1", "qty": 2}]
    assert json.loads(rows["2"]["lines__l"]) == [{"sku": "A-1", "qty": 2, "color": "red"}]
    assert rows["1"]["lines__l"] is None


@pytest.mark.parametrize(
    "more",
    [
        {"a b": {"S": "x"}},
        {"SKU": {"S": "x"}},
        {"mixed": {"L": [{"S": "x"}, {"N": "1"}]}},
        {"nothing yet": {"L": []}},
    ],
    ids=str,
)
def test_a_field_that_can_not_be_added_is_in_the_sibling(tmp_path: Path, more: Any) -> None:
    stream = ScriptedStream()
    put(stream, "1", line(**more))
    row = rows_of(stream, tmp_path)["1"]
    assert row["lines"] == [{"sku": "A-1", "qty": 2}]
    assert set(json.loads(row["lines__l"])[0]) == {"sku", "qty", *more}


def test_a_field_of_another_type_than_declared_still_makes_the_value_unfit(tmp_path: Path) -> None:
    stream = ScriptedStream()
    put(stream, "1", line(qty={"BOOL": True}, color={"S": "red"}))
    row = rows_of(stream, tmp_path)["1"]
    assert row["lines"] is None
    assert json.loads(row["lines__l"]) == [{"sku": "A-1", "qty": True, "color": "red"}]


def test_the_declaration_of_a_struct_that_has_grown_is_still_accepted(tmp_path: Path) -> None:
    stream = ScriptedStream()
    put(stream, "1", line(color={"S": "red"}))
    rows_of(stream, tmp_path)
    put(stream, "2", line())
    grown_type = "list<struct<sku:string,qty:int,color:string>>"
    assert rows_of(stream, tmp_path)["2"]["lines"] == [{"sku": "A-1", "qty": 2, "color": None}]
    put(stream, "3", line(color={"S": "blue"}))
    assert rows_of(stream, tmp_path, grown_type)["3"]["lines"][0]["color"] == "blue"
    put(stream, "4", line())
    with pytest.raises(ExpressionError, match="already has type"):
        rows_of(stream, tmp_path, "list<struct<sku:string,qty:long>>")


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("struct<a:string>", {"M": {"b": {"S": "x"}}}, "struct<a:string,b:string>"),
        ("struct<a:string>", {"M": {"b": {"NULL": True}}}, "struct<a:string>"),
        ("struct<a:string>", {"M": {"b": {"M": {}}}}, "struct<a:string>"),
        ("struct<a:string>", {"M": {"b": {"L": []}}}, "struct<a:string>"),
        ("struct<a:string>", {"M": {"b": {"BOOL": True}}}, "struct<a:string,b:boolean>"),
        (
            "struct<a:string>",
            {"M": {"b": {"L": [{"M": {"c": {"N": "1"}}}, {"M": {"d": {"S": "x"}}}]}}},
            "struct<a:string,b:list<struct<c:decimal(38,18),d:string>>>",
        ),
        (
            "map<string,struct<a:string>>",
            {"M": {"k": {"M": {"b": {"SS": ["x"]}}}}},
            "map<string,struct<a:string,b:list<string>>>",
        ),
        (
            "struct<a:struct<b:string>>",
            {"M": {"a": {"M": {"c": {"B": "AA=="}}}}},
            "struct<a:struct<b:string,c:binary>>",
        ),
        ("struct<a:long>", {"M": {"a": {"BOOL": True}, "b": {"S": "x"}}}, "struct<a:long>"),
        ("list<string>", {"L": [{"S": "x"}]}, "list<string>"),
    ],
)
def test_growth_of_a_type(declared: str, value: dict[str, Any], expected: str) -> None:
    ((descriptor, inner),) = value.items()
    before = parse_type(declared)
    after = grown(before, descriptor, inner)
    assert type_text(after) == expected
    assert is_grown(after, before)
    assert is_grown(before, after) == (after == before)


def test_names_that_are_data_do_not_make_a_struct_grow_without_end() -> None:
    many = {f"k{number}": {"S": "x"} for number in range(MAX_FIELDS + 1)}
    declared = parse_type("struct<a:string>")
    assert grown(declared, "M", many) == declared
