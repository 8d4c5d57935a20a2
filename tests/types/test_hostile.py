"""Hostile items through the real client: exact in the table, or complete in the quarantine.

A hostile item never stops the stream: the item put after it is always applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from deltalake import DeltaTable

from datazone_dagster.dataset.properties import ATTRIBUTES
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.attributes import MAX_COLUMNS, MAX_NAME_BYTES, AttributeMapping
from datazone_dagster.testing import ScriptedStream
from tests.local.stream_reading import Clients, clients_of
from tests.types.flow import Flow, scripted
from tests.types.table_items import item_of

NAMES = [
    "'; DROP TABLE x; --",
    '" ; select 1 as "',
    "../../etc/passwd",
    "a/b\\c",
    "a\x00b",
    "line\nbreak\ttab\x1f\x7f",
    '{"S": "x"}',
    "$.a[0]",
    "a.b.c",
    "[0]",
    "*",
    "#name",
    ":value",
    " leading and trailing ",
    "select",
    "_dz_key",
    "_DZ_version",
    "dynamodb",
    "Name",
    "name",
    "NAME",
    "name__s",
    "\u00e9",
    "e\u0301",
    "\u200b",
    "\ufeff",
    "\U0001f600",
    "x" * 255,
    "X" * 255,
    "x" * 254 + "y",
    "n" * 5000,
    "S",
    "M",
]
TEXTS = [
    "",
    "\x00",
    "a\x00b",
    "'\"\\`${}",
    "\u2028\u2029\ufeff\U0010ffff",
    '{"S": "not a value"}',
    "1e400",
    "NaN",
    "null",
    "\x1b[31m",
]


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with LocalDynamoDB(shards=1) as running:
        yield clients_of(running)


@pytest.fixture
def flow(clients: Clients, tmp_path: Path) -> Flow:
    return Flow(clients, tmp_path)


def test_names_and_texts_of_any_kind_are_exact(flow: Flow) -> None:
    flow.put("names", {name: {"S": name} for name in NAMES})
    flow.put("texts", {f"t{at}": {"S": text} for at, text in enumerate(TEXTS)})
    flow.put("nested", {"m": {"M": {name: {"S": name} for name in NAMES}}})
    flow.put("listed", {"l": {"L": [{"S": text} for text in TEXTS]}, "s": {"SS": TEXTS}})
    flow.put("last", {})
    flow.apply()
    flow.check()


def test_each_odd_name_gets_a_safe_one_and_stays_in_the_field_metadata(flow: Flow) -> None:
    flow.put("1", {name: {"S": name} for name in NAMES[:10]})
    flow.apply()
    flow.put("2", {name: {"S": name} for name in NAMES})
    flow.apply()
    fields = {field.name: field for field in DeltaTable(flow.uri).schema().fields}
    assert all(name.replace("_", "a").isalnum() and len(name) <= 255 for name in fields)
    assert len({name.casefold() for name in fields}) == len(fields)
    (row,) = (
        row for row in DeltaTable(flow.uri).to_pyarrow_table().to_pylist() if row["id"] == "2"
    )
    found = {
        field.metadata.get("datazone.attribute", name): row[name]
        for name, field in fields.items()
        if not name.startswith("_dz_") and name != "id"
    }
    short = [name for name in NAMES if len(name.encode()) <= MAX_NAME_BYTES]
    assert found == {name: name for name in short}
    assert json.loads(row["_dz_rest"]) == {name: name for name in NAMES if name not in short}


def test_an_item_of_400_kb_and_one_of_5000_attributes(flow: Flow) -> None:
    flow.put("text", {"x": {"S": "é" * 190_000}})
    flow.put("bytes", {"b": {"B": "AAEC" * 90_000}})
    flow.put("list", {"l": {"L": [{"N": str(number)} for number in range(40_000)]}})
    flow.put("many", {f"a{number}": {"S": str(number)} for number in range(5_000)})
    flow.put("data", {"m": {"M": {f"k{number}": {"N": "1.0"} for number in range(20_000)}}})
    flow.put("last", {})
    flow.apply()
    flow.check()


def test_32_levels(flow: Flow) -> None:
    value: dict[str, Any] = {"S": "deep"}
    for level in range(32):
        value = {"M": {"m": value}} if level % 2 else {"L": [value]}
    flow.put("1", {"x": value})
    flow.put("last", {})
    flow.apply()
    flow.check()


def test_the_limit_counts_columns_not_attributes(flow: Flow) -> None:
    """498 attributes that come in nine types each would be 4,482 columns."""
    attributes = [f"a{number:03d}" for number in range(MAX_COLUMNS - 2)]
    values: dict[str, Any] = {
        "S": "x",
        "N": "1",
        "B": "AA==",
        "BOOL": True,
        "SS": ["x"],
        "NS": ["1"],
        "BS": ["AA=="],
        "L": [{"S": "x"}],
        "M": {"x": {"S": "x"}},
    }
    for kind, value in values.items():
        flow.put(kind, {name: {kind: value} for name in attributes})
    flow.apply()
    table = DeltaTable(flow.uri)
    names = {field.name for field in table.schema().fields}
    assert len([name for name in names if not name.startswith("_dz_")]) == MAX_COLUMNS
    rows = {row["id"]: row for row in table.to_pyarrow_table().to_pylist()}
    assert (rows["S"]["a497"], rows["S"]["_dz_rest"]) == ("x", None)
    assert rows["N"].pop("a000__n") == "1"  # the one sibling that there is room for
    plain = {"N": 1, "B": "AA==", "BOOL": True, "SS": ["x"], "NS": [1], "BS": ["AA=="]}
    for kind, value in {**plain, "L": ["x"], "M": {"x": "x"}}.items():
        left = attributes[1:] if kind == "N" else attributes
        assert json.loads(rows[kind]["_dz_rest"]) == dict.fromkeys(left, value)


def test_attributes_beyond_the_column_limit_share_one_column_and_stay_there(flow: Flow) -> None:
    flow.put("1", {f"a{number:04d}": {"N": str(number)} for number in range(MAX_COLUMNS - 1)})
    flow.apply()
    flow.put("2", {"a0000": {"N": "5"}, "one more": {"N": "1.50"}, "and": {"L": [{"B": "AA=="}]}})
    flow.apply()
    flow.put("3", {"one more": {"S": "another type"}, "nothing": {"NULL": True}})
    flow.apply()
    flow.check()
    rows = {row["id"]: row for row in DeltaTable(flow.uri).to_pyarrow_table().to_pylist()}
    assert rows["1"]["_dz_rest"] is None
    assert rows["2"]["_dz_rest"] == '{"and":["AA=="],"one more":1.5}'
    assert rows["3"]["_dz_rest"] == '{"one more":"another type"}'


ODD_IMAGES = {
    "repeated": '{"id":{"S":"repeated"},"x":{"S":"a"},"x":{"S":"b"}}',
    "repeated inside": '{"id":{"S":"1"},"x":{"M":{"a":{"S":"1"},"a":{"S":"2"}}}}',
    "surrogate": '{"id":{"S":"1"},"x":{"S":"\\ud800"}}',
    "surrogate name": '{"id":{"S":"1"},"\\udfff":{"S":"a"}}',
    "number": '{"id":{"S":"1"},"x":{"N":5}}',
    "two types": '{"id":{"S":"1"},"x":{"S":"a","N":"1"}}',
    "no type": '{"id":{"S":"1"},"x":{}}',
    "unknown type": '{"id":{"S":"1"},"x":{"Z":"a"}}',
    "no value": '{"id":{"S":"1"},"x":"a"}',
    "list of nothing": '{"id":{"S":"1"},"x":{"L":[null]}}',
    "no item": "[1]",
    "deep": '{"id":{"S":"1"},"x":' + '{"L":[' * 3000 + "]}" * 3000 + "}",
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_image_that_is_no_item_is_quarantined_complete_and_the_others_are_applied(
    name: str, tmp_path: Path
) -> None:
    stream = ScriptedStream()
    for key in ("before", "odd", "after"):
        stream.put({"id": {"S": key}, "x": {"S": "usual"}, "l": {"L": [{"S": "a"}]}})
    image = ODD_IMAGES[name]
    stream.rewrite(stream.changes[1], stream.changes[1]._replace(new_image=image.encode()))
    rows = scripted(stream, tmp_path)
    assert sorted(row["id"] for row in rows) == ["after", "before"]
    quarantined = DeltaTable(tmp_path / "_quarantine" / "typed").to_pyarrow_table().to_pylist()
    assert [row["new_image"] for row in quarantined] == [image]
    assert quarantined[0]["reason"].startswith("the new image")


ODD_VALUES: dict[str, dict[str, Any]] = {
    "no number": {"N": "abc"},
    "not finite": {"N": "NaN"},
    "too many digits": {"N": "1" * 60},
    "out of range": {"N": "1E+400"},
    "plus": {"N": "+1"},
    "no base64": {"B": "!!"},
    "number set": {"NS": ["abc", "1"]},
    "bytes set": {"BS": ["!!"]},
}


@pytest.mark.parametrize("name", ODD_VALUES)
def test_a_text_that_does_not_fit_its_type_is_stored_as_text(name: str, tmp_path: Path) -> None:
    stream = ScriptedStream()
    ((descriptor, inner),) = ODD_VALUES[name].items()
    usual: Any = {"N": "1", "B": "AA==", "NS": ["1"], "BS": ["AA=="]}[descriptor]
    stream.put({"id": {"S": "usual"}, "x": {descriptor: usual}})
    stream.put({"id": {"S": "odd"}, "x": {descriptor: inner}})
    rows = {row["id"]: row for row in scripted(stream, tmp_path)}
    odd = rows["odd"]
    if name == "plus":
        assert odd["x"] == 1
        return
    assert odd["x"] is None
    sibling = odd[f"x__{descriptor.lower()}"]
    assert sibling == (sorted(inner) if isinstance(inner, list) else inner)
    assert rows["usual"]["x"] is not None


def test_numbers_as_strings_stay_strings(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "007"}, "zip": {"S": "01234"}, "big": {"S": "1E+400"}})
    (row,) = scripted(stream, tmp_path)
    assert (row["id"], row["zip"], row["big"]) == ("007", "01234", "1E+400")


def test_nested_values_of_the_mapping_can_be_read_from_the_table_alone(flow: Flow) -> None:
    """The mapping in the table's properties is enough to restore every item."""
    item: dict[str, Any] = {"a b": {"S": "x"}, "n": {"N": "1E-130"}, "m": {"M": {"N": {"N": "1"}}}}
    flow.put("1", item)
    flow.apply()
    delta = DeltaTable(flow.uri)
    mapping = AttributeMapping.from_json(delta.metadata().configuration[ATTRIBUTES])
    (row,) = delta.to_pyarrow_table().to_pylist()
    deserialize = TypeDeserializer().deserialize
    assert item_of(row, mapping) == {
        "id": "1",
        **{name: deserialize(value) for name, value in item.items()},
    }
    assert json.loads(delta.metadata().configuration[ATTRIBUTES])


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_key_of_another_type_than_its_column_is_quarantined(chunks: int, tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"S": "a"}})
    if chunks == 2:
        scripted(stream, tmp_path)
    stream.put({"id": {"N": "1"}, "x": {"S": "b"}})
    stream.put({"id": {"S": "2"}, "x": {"S": "c"}})
    rows = scripted(stream, tmp_path)
    assert sorted((row["id"], row["x"]) for row in rows) == [("1", "a"), ("2", "c")]
    assert not any(name.startswith("id__") for name in rows[0])
    quarantined = DeltaTable(tmp_path / "_quarantine" / "typed").to_pyarrow_table().to_pylist()
    assert [(row["keys"], row["reason"]) for row in quarantined] == [
        ('{"id":{"N":"1"}}', "the key 'id' is of another type than its column")
    ]
