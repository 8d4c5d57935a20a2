"""Values without a column of their own: empty lists and maps, and what is beyond the limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster.dataset.properties import ATTRIBUTES
from datazone_dagster.frame import Frame
from datazone_dagster.model.attributes import MAX_COLUMNS, MAX_NAME_BYTES, AttributeMapping
from datazone_dagster.testing import ScriptedStream
from tests.frame.chunks import chunk
from tests.types.flow import scripted
from tests.types.table_items import item_of

EMPTY = {"L": {"L": []}, "M": {"M": {}}}
NO_KEY = {"S": "1"}


def types(root: Path) -> dict[str, str]:
    fields = DeltaTable(root / "typed").to_pyarrow_table().schema
    return {f.name: str(f.type) for f in fields if not f.name.startswith("_dz_")}


def items(root: Path) -> dict[str, Any]:
    delta = DeltaTable(root / "typed")
    mapping = AttributeMapping.from_json(delta.metadata().configuration[ATTRIBUTES])
    rows = delta.to_pyarrow_table().to_pylist()
    return {row["id"]: item_of(row, mapping) for row in rows}


VALUES: list[tuple[str, dict[str, Any], Any]] = [
    ("L", {"SS": ["b", "a"]}, ["a", "b"]),
    ("L", {"NS": ["2", "0.5"]}, None),
    ("L", {"BS": ["AA=="]}, [b"\0"]),
    ("L", {"L": [{"S": "a"}]}, ["a"]),
    ("L", {"M": {"a": {"S": "1"}}}, {"a": "1"}),
    ("L", {"S": "a"}, "a"),
    ("L", {"N": "5"}, 5),
    ("L", {"BOOL": True}, True),
    ("M", {"M": {"a": {"S": "1"}}}, {"a": "1"}),
    ("M", {"L": [{"S": "a"}]}, ["a"]),
    ("M", {"SS": ["a"]}, ["a"]),
    ("M", {"S": "a"}, "a"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES, ids=str)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_empty_list_or_map_fixes_no_type(
    tmp_path: Path, kind: str, value: dict[str, Any], expected: Any, at_once: bool
) -> None:
    found = []
    for name, order in (("empty first", ("e", "v")), ("empty last", ("v", "e"))):
        stream, root = ScriptedStream(), tmp_path / name
        for key in order:
            stream.put({"id": {"S": key}, "x": EMPTY[kind] if key == "e" else value})
            if not at_once:
                scripted(stream, root)
        scripted(stream, root)
        stored = items(root)
        assert stored["e"]["x"] == ([] if kind == "L" else {})
        if expected is not None:
            assert stored["v"]["x"] == expected
        found.append(types(root))
    assert found[0] == found[1]
    assert set(found[0]) == {"id", "x"}


def test_the_first_value_with_content_fixes_the_type_wherever_the_log_is_cut(
    tmp_path: Path,
) -> None:
    values: list[dict[str, Any]] = [{"L": []}, {"NULL": True}, {"L": [{"S": "a"}]}, {"S": "text"}]
    for name, cuts in (("one", set()), ("other", {1}), ("third", {1, 3}), ("fourth", {2})):
        stream = ScriptedStream()
        for position, value in enumerate(values):
            if position in cuts:
                scripted(stream, tmp_path / name)
            stream.put({"id": {"S": str(position)}, "x": value})
        scripted(stream, tmp_path / name)
        assert types(tmp_path / name) == {"id": "string", "x": "string", "x__s": "string"}
        assert items(tmp_path / name)["0"]["x"] == []


def test_an_empty_list_is_an_empty_set_and_other_lists_are_not(tmp_path: Path) -> None:
    stream = ScriptedStream()
    values = [{"SS": ["a"]}, {"L": []}, {"L": [{"S": "a"}]}, {"L": []}]
    for key, value in enumerate(values):
        stream.put({"id": {"S": str(key)}, "x": value})
    rows = {row["id"]: row for row in scripted(stream, tmp_path)}
    found = [(rows[str(key)]["x"], rows[str(key)]["x__l"]) for key in range(4)]
    assert found == [(["a"], None), ([], None), (None, '["a"]'), ([], None)]


def test_both_images_have_their_empty_values(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"L": []}, 'q"': {"M": {}}})
    stream.put({"id": {"S": "1"}, "y": {"M": {}}})
    (row,) = scripted(stream, tmp_path, image="both")
    assert json.loads(row["before__dz_rest"]) == {"x": [], 'q"': {}}
    assert json.loads(row["after__dz_rest"]) == {"y": {}}


def test_a_declared_list_takes_an_empty_one(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"L": []}, "m": {"M": {}}})
    declared = {"x": "list<long>", "m": "map<string,long>"}
    (row,) = scripted(stream, tmp_path, types=declared)
    assert (row["x"], row["m"]) == ([], [])
    assert "_dz_rest" not in row


# --- limits


def test_a_name_beyond_255_bytes_has_no_column(tmp_path: Path) -> None:
    stream = ScriptedStream()
    longest, longer = "é" * (MAX_NAME_BYTES // 2), "é" * (MAX_NAME_BYTES // 2 + 1)
    stream.put(
        {"id": {"S": "1"}, longest: {"S": "a"}, longer: {"S": "b"}, "n" * 60_000: {"N": "1"}}
    )
    (row,) = scripted(stream, tmp_path)
    assert json.loads(row["_dz_rest"]) == {longer: "b", "n" * 60_000: 1}
    assert "a" in row.values()
    log = sum(file.stat().st_size for file in (tmp_path / "typed" / "_delta_log").iterdir())
    assert log < 30_000


def test_columns_are_limited_not_attributes(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {"S": "a"},
        {"N": "1.5"},
        {"BOOL": True},
        {"B": "AA=="},
        {"SS": ["a"]},
        {"L": [{"N": "1"}]},
        {"M": {"a": {"S": "1"}}},
    ]
    stream, attributes = ScriptedStream(), [f"a{number:03d}" for number in range(MAX_COLUMNS - 1)]
    for position, value in enumerate(kinds):
        stream.put({"id": {"S": str(position)}, **dict.fromkeys(attributes, value)})
        scripted(stream, tmp_path)
    assert len(types(tmp_path)) == MAX_COLUMNS
    expected: list[Any] = ["a", 1.5, True, "AA==", ["a"], [1], {"a": "1"}]
    for key, item in items(tmp_path).items():
        wanted = dict.fromkeys(attributes, expected[int(key)])
        assert {name: item[name] for name in attributes} == wanted


def test_a_number_that_fits_no_column_is_in_the_rest_of_a_full_table() -> None:
    mapping = AttributeMapping().with_column("id", "S", "string")
    for number in range(MAX_COLUMNS - 1):
        mapping = mapping.with_column(
            f"a{number:03d}", "NS" if number else "N", "list<long>" if number else "long"
        )
    changes = chunk(
        ({"id": NO_KEY, "a000": {"N": "1E-30"}, "a001": {"NS": ["1E-30", "2"]}}, None),
        ({"id": NO_KEY, "a000": {"N": "2"}, "a002": {"L": []}, "new": {"M": {}}}, None),
    )
    frame = Frame.of_changes(changes, attributes=mapping).items()
    rests = [json.loads(text) for text in frame.arrow()["_dz_rest"].to_pylist()[:1]]
    assert rests == [{"a000": 1e-30, "a001": [1e-30, 2]}]
    assert frame.arrow().to_pylist()[1]["a002"] == []
    assert json.loads(frame.arrow()["_dz_rest"].to_pylist()[1]) == {"new": {}}
    assert len(frame.attributes) == MAX_COLUMNS
