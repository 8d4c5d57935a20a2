"""Columns of numbers: integers, then decimals from the first fraction on, and never a null key."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.properties import ATTRIBUTES
from datazone_dagster.frame import Frame
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.schema_change import schema_status
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream, run_transform
from tests.examples import examples
from tests.frame.chunks import chunk
from tests.types.flow import scripted

LONG = pa.int64()
DECIMAL = pa.decimal128(38, 18)
LATITUDE = "33.10318374633789"


def put(stream: ScriptedStream, key: str, number: str) -> None:
    stream.put({"id": {"S": key}, "x": {"N": number}})


def stored(root: Path) -> pa.Table:
    table: pa.Table = DeltaTable(root / "typed").to_pyarrow_table()
    return table


def by_key(table: pa.Table, column: str = "x") -> dict[str, Any]:
    return dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True))


def test_a_column_of_integers_is_long(tmp_path: Path) -> None:
    stream = ScriptedStream()
    for key, number in enumerate(("3", "-9223372036854775808", "9223372036854775807", "1E+2")):
        put(stream, str(key), number)
    scripted(stream, tmp_path)
    table = stored(tmp_path)
    assert table["x"].type == LONG
    assert by_key(table) == {"0": 3, "1": -(2**63), "2": 2**63 - 1, "3": 100}
    assert "x__n" not in table.column_names


def test_the_average_of_coordinates_is_that_of_all_of_them(tmp_path: Path) -> None:
    stream = ScriptedStream()
    for key, number in enumerate((LATITUDE, "33", "33.5")):
        put(stream, str(key), number)
    scripted(stream, tmp_path)
    table = stored(tmp_path)
    assert table["x"].type == DECIMAL
    assert by_key(table) == {"0": Decimal(LATITUDE), "1": 33, "2": Decimal("33.5")}
    assert "x__n" not in table.column_names
    expected = (float(LATITUDE) + 33 + 33.5) / 3
    assert float(pc.mean(table["x"]).as_py()) == pytest.approx(expected)


def test_the_first_fraction_widens_the_column_once(tmp_path: Path) -> None:
    stream = ScriptedStream()
    put(stream, "1", "3")
    scripted(stream, tmp_path)
    assert stored(tmp_path)["x"].type == LONG
    for number in ("0.5", "0.25"):
        before = DeltaTable(tmp_path / "typed").version()
        put(stream, number, number)
        scripted(stream, tmp_path)
    table = stored(tmp_path)
    assert table["x"].type == DECIMAL
    assert by_key(table) == {"1": 3, "0.5": Decimal("0.5"), "0.25": Decimal("0.25")}
    assert DeltaTable(tmp_path / "typed").version() == before + 1  # the second fraction: rows only


def test_a_set_of_numbers_widens_like_a_number(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"NS": ["3", "-2"]}})
    scripted(stream, tmp_path)
    assert stored(tmp_path)["x"].type == pa.list_(LONG)
    stream.put({"id": {"S": "2"}, "x": {"NS": [LATITUDE, "1"]}})
    scripted(stream, tmp_path)
    table = stored(tmp_path)
    assert table["x"].type.value_type == DECIMAL
    assert by_key(table) == {"1": [-2, 3], "2": [1, Decimal(LATITUDE)]}


@pytest.mark.parametrize("number", ["1E-30", "9.99E+125", "1" * 21, "0." + "1" * 19])
def test_a_number_that_fits_no_column_does_not_widen_it(tmp_path: Path, number: str) -> None:
    stream = ScriptedStream()
    put(stream, "1", "3")
    put(stream, "2", number)
    scripted(stream, tmp_path)
    table = stored(tmp_path)
    assert table["x"].type == LONG
    assert (by_key(table), by_key(table, "x__n")) == ({"1": 3, "2": None}, {"1": None, "2": number})


def test_both_images_widen_together(tmp_path: Path) -> None:
    stream = ScriptedStream()
    put(stream, "1", "3")
    put(stream, "1", "0.5")
    (row,) = scripted(stream, tmp_path, image="both")
    assert (row["before_x"], row["after_x"]) == (3, Decimal("0.5"))
    assert stored(tmp_path)["before_x"].type == DECIMAL


def test_a_declared_long_stays_long(tmp_path: Path) -> None:
    stream = ScriptedStream()
    put(stream, "1", "3")
    scripted(stream, tmp_path)
    for number in ("0.5", "4"):
        put(stream, number, number)
        scripted(stream, tmp_path, types={"x": "long"})
    table = stored(tmp_path)
    assert table["x"].type == LONG
    assert by_key(table) == {"1": 3, "0.5": None, "4": 4}
    assert by_key(table, "x__n") == {"1": None, "0.5": "0.5", "4": None}


@pytest.mark.parametrize("declared", ["int", "long", "decimal(18,2)", "double"])
@pytest.mark.parametrize("text", ["1_000", "\N{FULLWIDTH DIGIT ONE}", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_text_that_only_python_takes_for_a_number_is_none(
    tmp_path: Path, declared: str, text: str
) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "1"}, "x": {"S": text}})
    (row,) = scripted(stream, tmp_path, types={"x": declared})
    assert (row["x"], row["x__s"]) == (None, text)


def test_a_table_of_an_older_version_keeps_its_columns(tmp_path: Path) -> None:
    old = AttributeMapping().with_column("id", "S", "string").with_column("x", "N", "decimal(38,9)")
    changes = chunk(
        ({"id": {"S": "1"}, "x": {"N": "3"}}, None),
        ({"id": {"S": "2"}, "x": {"N": LATITUDE}}, None),
    )
    frame = Frame.of_changes(changes, attributes=old).items()
    table = frame.arrow()
    assert table["x"].type == pa.decimal128(38, 9)
    assert by_key(table) == {"1": 3, "2": None}
    assert by_key(table, "x__n") == {"1": None, "2": LATITUDE}
    assert frame.attributes.columns[1] == old.columns[1]


# --- keys


def keyed_by_number(mode: Any = "merge") -> Transform[Any, Any]:
    @transform(
        input_mapping={
            "changes": Input(Stream(source=DynamoDBSource("orders", region="eu-west-1")))
        },
        output_mapping={"typed": Output(Dataset(id="typed", mode=mode))},
        name="typed",
    )
    def rows(changes: Frame) -> Frame:
        return changes.items()

    return rows


def apply(stream: ScriptedStream, root: Path, mode: Any = "merge") -> pa.Table:
    return run_transform(keyed_by_number(mode), stream, root)["typed"]


@pytest.mark.parametrize("mode", ["merge", "append", "history"])
@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (["3", "-7"], LONG),
        (["3", "0.5"], DECIMAL),
        (["3", "12345678901234567890"], DECIMAL),
        (["3", "1E-30"], pa.string()),
        (["0.5", "1E-30"], pa.string()),
        (["3", "0.000000001", "12345678901234567890123456789012345678"], pa.string()),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_numeric_key_is_never_null(
    tmp_path: Path, numbers: list[str], kind: pa.DataType, mode: str, at_once: bool
) -> None:
    stream = ScriptedStream()
    for position, number in enumerate(numbers):
        stream.put({"id": {"N": number}, "x": {"S": str(position)}})
        if not at_once:
            apply(stream, tmp_path, mode)
    stream.put({"id": {"N": numbers[0]}, "x": {"S": "again"}})
    table = apply(stream, tmp_path, mode)
    assert table["id"].type == kind
    assert table["id"].null_count == 0
    assert "id__n" not in table.column_names
    latest = {Decimal(str(row["id"])): row["x"] for row in table.to_pylist()}
    if mode == "merge":
        assert latest == {
            Decimal(number): "again" if position == 0 else str(position)
            for position, number in enumerate(numbers)
        }
    assert {Decimal(str(key)) for key in table["id"].to_pylist()} == set(map(Decimal, numbers))


def test_keys_that_became_text_are_canonical_whatever_they_were_before(tmp_path: Path) -> None:
    stream = ScriptedStream(key=("id",))
    for number in ("0", "5", "-0.5", "1E-9", "120", "1E+20", "1E-30", "1E+2", "7.50"):
        stream.put({"id": {"N": number}})
        apply(stream, tmp_path)
    expected = ["-0.5", "0", "0.000000001", "0.000000000000000000000000000001", "100"]
    expected += ["100000000000000000000", "120", "5", "7.5"]
    assert sorted(apply(stream, tmp_path)["id"].to_pylist()) == sorted(expected)
    properties = DeltaTable(tmp_path / "typed").metadata().configuration[ATTRIBUTES]
    assert [entry["type"] for entry in json.loads(properties)] == ["string"]


def test_a_deleted_item_is_found_by_a_key_that_became_text(tmp_path: Path) -> None:
    stream = ScriptedStream()
    stream.put({"id": {"N": "5"}})
    apply(stream, tmp_path)
    stream.put({"id": {"N": "1E-30"}})
    apply(stream, tmp_path)
    stream.delete({"id": {"N": "5"}})
    assert apply(stream, tmp_path)["id"].to_pylist() == ["0." + "0" * 29 + "1"]


def test_a_key_that_does_not_fit_its_declared_type_is_quarantined(tmp_path: Path) -> None:
    stream = ScriptedStream()
    for key in ("5", "0.5", "6"):
        stream.put({"id": {"N": key}, "x": {"N": "1"}})
    rows = scripted(stream, tmp_path, types={"id": "long"})
    assert sorted(row["id"] for row in rows) == [5, 6]
    refused = DeltaTable(tmp_path / "_quarantine" / "typed").to_pyarrow_table().to_pylist()
    assert [row["keys"] for row in refused] == ['{"id":{"N":"0.5"}}']


NUMBERS = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-99).map(repr),
    st.sampled_from(["0", "1E-18", "1E-19", "1E+19", "1E+20", "-1.50", "1E+125", "3.0"]),
)


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.data())
def test_the_types_do_not_depend_on_how_the_log_is_cut(
    numbers: list[str], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(numbers)))
    order = data.draw(st.permutations(numbers))

    def mapping(*pieces: list[str]) -> AttributeMapping:
        found = AttributeMapping()
        for piece in filter(None, pieces):
            changes = [({"id": {"N": n}, "x": {"N": n}}, None) for n in piece]
            found = Frame.of_changes(chunk(*changes), attributes=found).items().attributes
        return found

    at_once, in_pieces = mapping(numbers), mapping(list(order[:cut]), list(order[cut:]))
    assert {(c.column, c.type) for c in at_once} == {(c.column, c.type) for c in in_pieces}


def test_values_that_fit_no_column_are_counted_and_warned_of(tmp_path: Path) -> None:
    stream = ScriptedStream()
    for key, number in enumerate(("3", "1E-30", "1E-40")):
        put(stream, str(key), number)
    stream.put({"id": {"S": "9"}, "x": {"S": "three"}})
    layout, typed = Layout(str(tmp_path)), keyed_by_number()
    drain_once(typed.source, stream, layout)
    report = apply_transform(typed, layout)["typed"]
    assert dict(report.sibling_values) == {"x__n": 2, "x__s": 1}
    status = schema_status(
        report.columns,
        report.columns,
        (),
        contract=typed.outputs["typed"].contract,
        dataset_id="typed",
        sibling_values=report.sibling_values,
    )
    assert status.level is Level.WARN
    assert "1 in 'x__s', 2 in 'x__n'" in status.reason
    put(stream, "4", "4")
    drain_once(typed.source, stream, layout)
    assert apply_transform(typed, layout)["typed"].sibling_values == ()
