"""Evolution of item columns: new columns appear, existing columns keep type and order."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.dataset.properties import ATTRIBUTES
from datazone_dagster.errors import ExpressionError
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.testing import ScriptedStream
from tests.dynamodb_values import ATTRIBUTE_NAMES, TYPED
from tests.examples import examples
from tests.types.flow import scripted


def table(root: Path) -> DeltaTable:
    return DeltaTable(root / "typed")


def mapping(root: Path) -> AttributeMapping:
    return AttributeMapping.from_json(table(root).metadata().configuration[ATTRIBUTES])


def columns(root: Path) -> list[str]:
    return [f.name for f in table(root).schema().fields if not f.name.startswith("_dz_")]


def test_columns_appear_with_their_data_and_keep_their_order(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "b": {"S": "x"}, "a": {"N": "1"}})
    scripted(stream, tmp_path)
    assert columns(tmp_path) == ["id", "b", "a"]
    stream.put({"id": {"S": "2"}, "c": {"BOOL": True}, "a": {"N": "2"}})
    rows = scripted(stream, tmp_path)
    assert columns(tmp_path) == ["id", "b", "a", "c"]
    assert [(row["b"], row["a"], row["c"]) for row in sorted(rows, key=lambda row: row["id"])] == [
        ("x", 1, None),
        (None, 2, True),
    ]
    assert [(column.column, column.since) for column in mapping(tmp_path)] == [
        ("id", 1),
        ("b", 1),
        ("a", 1),
        ("c", 2),
    ]


def test_an_attribute_that_was_only_ever_null_adds_no_column(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"NULL": True}})
    scripted(stream, tmp_path)
    assert columns(tmp_path) == ["id"]
    assert "_dz_rest" not in {field.name for field in table(tmp_path).schema().fields}
    stream.put({"id": {"S": "1"}, "x": {"N": "1"}})
    (row,) = scripted(stream, tmp_path)
    assert row["x"] == 1


def test_an_unchanged_mapping_is_not_committed_again(tmp_path: Path) -> None:
    stream = ScriptedStream()
    for number in range(3):
        stream.put({"id": {"S": str(number)}, "x": {"N": "1"}})
        scripted(stream, tmp_path)
    operations = [entry["operation"] for entry in table(tmp_path).history()]
    assert operations.count("SET TBLPROPERTIES") == 1


def test_conflicting_types_get_one_sibling_per_descriptor(tmp_path: Path) -> None:
    stream = ScriptedStream()
    values: list[dict[str, Any]] = [
        {"S": "text"},
        {"N": "1.5"},
        {"B": "AA=="},
        {"BOOL": False},
        {"SS": ["b", "a"]},
        {"L": [{"N": "1"}]},
        {"M": {"a": {"S": "1"}}},
        {"NULL": True},
    ]
    for number, value in enumerate(values):
        stream.put({"id": {"S": str(number)}, "x": value})
        scripted(stream, tmp_path)
    rows = sorted(scripted(stream, tmp_path), key=lambda row: row["id"])
    names = ["x", "x__n", "x__b", "x__bool", "x__ss", "x__l", "x__m"]
    assert columns(tmp_path) == ["id", *names]
    found = [{name: row[name] for name in names if row[name] is not None} for row in rows]
    assert found == [
        {"x": "text"},
        {"x__n": "1.5"},
        {"x__b": b"\x00"},
        {"x__bool": False},
        {"x__ss": ["a", "b"]},
        {"x__l": "[1]"},
        {"x__m": '{"a":"1"}'},
        {},
    ]


def test_a_later_declaration_of_another_type_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"N": "1"}})
    scripted(stream, tmp_path)
    stream.put({"id": {"S": "1"}, "x": {"N": "2"}})
    with pytest.raises(ExpressionError, match=r"'x' already has type long"):
        scripted(stream, tmp_path, types={"x": "string"})
    (row,) = scripted(stream, tmp_path)
    assert row["x"] == 2


def test_images_side_by_side_even_where_a_key_has_the_name_of_a_prefixed_column(
    tmp_path: Path,
) -> None:
    stream = ScriptedStream(key=("after_x",))
    stream.put({"after_x": {"S": "key"}, "x": {"N": "1"}})
    stream.put({"after_x": {"S": "key"}, "x": {"N": "2"}, "y z": {"S": "new"}})
    (row,) = scripted(stream, tmp_path, image="both")
    assert row["after_x"] == "key"
    assert row["before_x"] == 1
    (other,) = (name for name in row if name.startswith("after_x_"))
    assert row[other] == 2
    fields = {field.name: field.metadata for field in table(tmp_path).schema().fields}
    assert fields[other] == {"datazone.attribute": "x"}
    (odd,) = (name for name in row if name.startswith("after_y_z_"))
    assert fields[odd] == {"datazone.attribute": "y z"}


def test_declared_nested_types_are_columns_of_those_types_and_survive_a_merge(
    tmp_path: Path,
) -> None:
    types = {
        "lines": "list<struct<sku:string, qty:int>>",
        "tags": "list<string>",
        "attrs": "map<string,string>",
        "when": "timestamp",
    }
    stream = ScriptedStream()
    lines = {"L": [{"M": {"sku": {"S": "a"}, "qty": {"N": "2"}}}]}
    for key in ("1", "2"):
        stream.put({"id": {"S": key}, "lines": lines, "tags": {"SS": ["b", "a"]}})
    scripted(stream, tmp_path, types=types)
    stream.put(
        {
            "id": {"S": "1"},
            "lines": {"L": []},
            "attrs": {"M": {"b": {"S": "2"}, "a": {"S": "1"}}},
            "when": {"S": "2024-02-29T12:00:00+02:00"},
        }
    )
    rows = {row["id"]: row for row in scripted(stream, tmp_path, types=types)}
    assert rows["2"]["lines"] == [{"sku": "a", "qty": 2}]
    assert rows["2"]["tags"] == ["a", "b"]
    assert rows["1"]["lines"] == []
    assert rows["1"]["attrs"] == [("a", "1"), ("b", "2")]
    assert rows["1"]["when"].isoformat() == "2024-02-29T10:00:00+00:00"
    by_polars = polars.read_delta(str(tmp_path / "typed")).to_dicts()
    assert {row["id"]: row["lines"] for row in by_polars} == {
        "1": [],
        "2": [{"sku": "a", "qty": 2}],
    }


ITEM = st.dictionaries(
    ATTRIBUTE_NAMES.filter(lambda name: name != "id") | st.sampled_from("xyz"),
    st.sampled_from(sorted(TYPED)).flatmap(TYPED.__getitem__),
    max_size=4,
)


@settings(max_examples=examples(8), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), ITEM), min_size=2, max_size=6), st.data())
def test_chunk_boundaries_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[int, Any]], data: st.DataObject
) -> None:
    cuts = data.draw(st.sets(st.integers(1, len(puts) - 1)))
    at_once, in_chunks = ScriptedStream(), ScriptedStream()
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for position, (key, item) in enumerate(puts):
        if position in cuts:
            scripted(in_chunks, other)
        for stream in (at_once, in_chunks):
            stream.put({"id": {"S": str(key)}, **item})
    expected = {row["id"]: _content(row) for row in scripted(at_once, one)}
    assert {row["id"]: _content(row) for row in scripted(in_chunks, other)} == expected


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a row that do not depend on its chunk.

    An empty list or map that came before its attribute had a column is in `_dz_rest`.
    """
    return {
        name: value
        for name, value in row.items()
        if value is not None and value not in ([], "[]", "{}") and not name.startswith("_dz_")
    }


def test_a_replay_into_the_same_mapping_gives_the_same_columns(tmp_path: Path) -> None:
    """First types stay although the first record is replaced, because the table has the mapping."""
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"S": "text"}})
    scripted(stream, tmp_path)
    stream.put({"id": {"S": "1"}, "x": {"N": "1E-30"}})
    stream.put({"id": {"S": "2"}, "x": {"N": "2"}})
    rows = {row["id"]: row for row in scripted(stream, tmp_path)}
    assert (rows["1"]["x"], Decimal(rows["1"]["x__n"])) == (None, Decimal("1E-30"))
    assert (rows["2"]["x"], rows["2"]["x__n"]) == (None, "2")
