"""Sets, lists and maps: SQL and Python read the same values, which are those of DynamoDB."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.frame import Frame, item_values
from datazone_dagster.frame.plain import plain_list, plain_map, plain_text
from datazone_dagster.frame.query_session import MalformedImageError
from tests.dynamodb_values import ATTRIBUTE_NAMES, TYPED, as_boto, plain
from tests.examples import examples
from tests.frame.chunks import chunk

MANY = settings(max_examples=examples(20), deadline=None)


def column(values: Sequence[Any], types: dict[str, str] | None = None) -> Any:
    """Return the typed column of attribute `x` with these values."""
    changes = [({"id": {"S": str(at)}, "x": value}, None) for at, value in enumerate(values)]
    return Frame.of_changes(chunk(*changes), threads=1).items(types=types).arrow()


@MANY
@given(st.lists(st.one_of(TYPED["L"], TYPED["M"]), min_size=1, max_size=6))
def test_plain_json_is_exact_and_the_same_text_from_sql_and_from_python(values: list[Any]) -> None:
    table = column(values)
    for row, value in zip(table.to_pylist(), values, strict=True):
        ((descriptor, inner),) = value.items()
        if not inner and row.get("_dz_rest") is not None:
            assert json.loads(row["_dz_rest"]) == {"x": inner}
            continue
        text = next(row[n] for n in ("x", f"x__{descriptor.lower()}") if row.get(n) is not None)
        read = plain_map if descriptor == "M" else plain_list
        assert text == plain_text(read, json.dumps(inner))
        found = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        assert found == plain(TypeDeserializer().deserialize(as_boto(value)))


def test_sql_reads_the_structures_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads none of the usual maps and lists, which makes them fast."""

    def refuse(*_: object) -> object:
        raise AssertionError("read in Python")

    monkeypatch.setattr(item_values, "_read_again", refuse)
    line = {
        "M": {"sku": {"S": 'a "quoted" \\ é😀\n'}, "qty": {"N": "-1.5E+3"}, "no": {"NULL": True}}
    }
    value = {"L": [line, {"M": {}}, {"L": []}, {"BOOL": False}, {"SS": ["b", "a"]}, {"B": "AA=="}]}
    (row,) = column([value]).to_pylist()
    sku = 'a \\"quoted\\" \\\\ é😀\\n'
    assert row["x"] == (
        f'[{{"no":null,"qty":-1.5E+3,"sku":"{sku}"}},{{}},[],false,["a","b"],"AA=="]'
    )


@pytest.mark.parametrize(
    "odd",
    [
        '{"L":[{"N":5}]}',
        '{"L":[{"N":5},{"BOOL":"true"}]}',
        '{"L":[{"BOOL":"true"}]}',
        '{"L":[{"BOOL":1}]}',
        '{"L":[{"S":5}]}',
        '{"L":[{"S":null}]}',
        '{"L":[{"S":"a","N":"1"}]}',
        '{"L":[{"S":"a","S":"b"}]}',
        '{"L":[{"N":"05"}]}',
        '{"L":[{"N":"NaN"}]}',
        '{"L":["a"]}',
        '{"L":[null]}',
        '{"L":[{}]}',
        '{"L":[{"X":"a"}]}',
        '{"L":[{"SS":[1]}]}',
        '{"M":{"a":{"N":"1"},"a":{"N":"2"}}}',
        '{"M":{"a":"b"}}',
        '{"M":[]}',
        '{"L":{}}',
        '{"SS":[1]}',
        '{"SS":["a",null]}',
        '{"SS":"a"}',
        '{"S":{"x":1}}',
        '{"N":1}',
        '{"B":true}',
        '{"BOOL":"true"}',
        '{"S":"a","S":"b"}',
        '{"Q":"a"}',
        "[]",
        "5",
    ],
)
def test_invalid_dynamodb_json_is_refused_and_not_read_in_part(odd: str) -> None:
    usual = '{"L":[{"N":"1"},{"BOOL":true},{"S":"a"},{"SS":["a"]},{"M":{"a":{"N":"1"}}}]}'
    texts = [f'{{"id":{{"S":"1"}},"x":{text}}}' for text in (usual, odd)]
    with pytest.raises(MalformedImageError):
        Frame.of_changes(chunk(*((text, None) for text in texts))).items().arrow()


def test_an_image_that_repeats_a_name_is_refused() -> None:
    with pytest.raises(MalformedImageError):
        Frame.of_changes(chunk(('{"id":{"S":"1"},"x":{"S":"a"},"x":{"S":"b"}}', None))).items()


LINES = "list<struct<sku:string,qty:int>>"


def test_declared_lists_maps_and_structs() -> None:
    line = {"M": {"sku": {"S": "a"}, "qty": {"N": "2"}}}
    assert column([{"L": [line, {"M": {"sku": {"S": "b"}}}, {"NULL": True}]}], {"x": LINES})[
        "x"
    ].to_pylist() == [[{"sku": "a", "qty": 2}, {"sku": "b", "qty": None}, None]]
    assert column([{"M": {"b": {"S": "2"}, "a": {"S": "1"}}}], {"x": "map<string,string>"})[
        "x"
    ].to_pylist() == [[("a", "1"), ("b", "2")]]
    assert column([{"L": [{"S": "b"}, {"S": "a"}]}, {"SS": ["b", "a"]}], {"x": "list<string>"})[
        "x"
    ].to_pylist() == [["b", "a"], ["a", "b"]]
    nested = "struct<at:timestamp_ms,tags:map<string,list<decimal(5,2)>>>"
    value = {"M": {"at": {"N": "1500"}, "tags": {"M": {"t": {"L": [{"N": "1E1"}, {"N": "0.5"}]}}}}}
    (row,) = column([value], {"x": nested})["x"].to_pylist()
    assert row["at"].isoformat() == "1970-01-01T00:00:01.500000+00:00"
    assert row["tags"] == [("t", [Decimal(10), Decimal("0.5")])]


@pytest.mark.parametrize(
    "value",
    [
        {"L": [{"M": {"sku": {"S": "a"}, "qty": {"N": "1.5"}}}]},
        {"L": [{"M": {"sku": {"S": "a"}, "qty": {"N": "3000000000"}}}]},
        {"L": [{"M": {"sku": {"BOOL": True}}}]},
        {"L": [{"S": "a"}]},
        {"L": [{"L": []}]},
    ],
)
def test_a_value_that_does_not_fit_its_declared_type_goes_complete_to_a_sibling(value: Any) -> None:
    fits = {"L": [{"M": {"sku": {"S": "a"}, "qty": {"N": "1"}}}]}
    rows = column([fits, value], {"x": LINES}).to_pylist()
    assert [row["x"] for row in rows] == [[{"sku": "a", "qty": 1}], None]
    assert rows[0]["x__l"] is None
    assert rows[1]["x__l"] == plain_text(plain_list, json.dumps(value["L"]))


def test_a_descriptor_other_than_the_declared_goes_to_a_sibling() -> None:
    rows = column([{"L": []}, {"M": {"a": {"S": "b"}}}, {"S": "text"}], {"x": LINES}).to_pylist()
    assert [row["x"] for row in rows] == [[], None, None]
    assert rows[1]["x__m"] == '{"a":"b"}'
    assert rows[2]["x__s"] == "text"


STRUCT = "struct<s:string,n:decimal(38,9),b:binary,f:boolean,l:list<string>,m:map<string,long>>"
FITTING = st.fixed_dictionaries(
    {},
    optional={
        "s": TYPED["S"],
        "n": st.integers(-(10**28), 10**28).map(lambda n: {"N": str(n)}),
        "b": TYPED["B"],
        "f": TYPED["BOOL"],
        "l": st.one_of(TYPED["SS"], st.lists(TYPED["S"], max_size=3).map(lambda v: {"L": v})),
        "m": st.dictionaries(
            ATTRIBUTE_NAMES,
            st.integers(-(2**63), 2**63 - 1).map(lambda n: {"N": str(n)}),
            max_size=3,
        ).map(lambda v: {"M": v}),
        "x": TYPED["NULL"],
    },
)


_READ: dict[str, Callable[[Any], Any]] = {
    "S": lambda v: v,
    "N": Decimal,
    "B": base64.b64decode,
    "BOOL": lambda v: v,
    "SS": sorted,
    "L": lambda v: [one["S"] for one in v],
    "M": lambda v: sorted((key, int(one["N"])) for key, one in v.items()),
}


@MANY
@given(st.lists(FITTING, min_size=1, max_size=5))
def test_declared_structs_are_exact(values: list[dict[str, Any]]) -> None:
    rows = column([{"M": value} for value in values], {"x": STRUCT}).to_pylist()
    for row, value in zip(rows, values, strict=True):
        expected: dict[str, Any] = dict.fromkeys(("s", "n", "b", "f", "l", "m"))
        for name, typed in value.items():
            ((descriptor, inner),) = typed.items()
            if descriptor == "NULL":  # an attribute that the struct lacks, and need not have
                continue
            expected[name] = _READ[descriptor](inner)
        assert row["x"] == expected
        assert "x__m" not in row


@pytest.mark.parametrize(
    ("declared", "text", "expected"),
    [
        ("timestamp", "2024-02-29", "2024-02-29T00:00:00+00:00"),
        ("timestamp", "2024-02-29T12:30Z", "2024-02-29T12:30:00+00:00"),
        ("timestamp", "2024-02-29 12:30:01.5+02:00", "2024-02-29T10:30:01.500000+00:00"),
        ("timestamp", "2024-02-29T12:30:01.123456-0530", "2024-02-29T18:00:01.123456+00:00"),
        ("timestamp", "2023-02-29", None),
        ("timestamp", "2024-02-29T12:30:01.1234567Z", None),
        ("timestamp", "9999-12-31T23:59:59-14:00", None),
        ("timestamp", "0000-01-01", None),
        ("timestamp", "1700000000", None),
        ("timestamp_s", "1700000000", "2023-11-14T22:13:20+00:00"),
        ("timestamp_s", "-0.000001", "1969-12-31T23:59:59.999999+00:00"),
        ("timestamp_s", "0.0000001", None),
        ("timestamp_s", "1.7E9", "2023-11-14T22:13:20+00:00"),
        ("timestamp_s", "1.7E+9", "2023-11-14T22:13:20+00:00"),
        ("timestamp_s", "1.700000000123456E9", "2023-11-14T22:13:20.123456+00:00"),
        ("timestamp_s", "1700000000.1230000", "2023-11-14T22:13:20.123000+00:00"),
        ("timestamp_s", "-1E-6", "1969-12-31T23:59:59.999999+00:00"),
        ("timestamp_s", "1E-7", None),
        ("timestamp_s", "1E+125", None),
        ("timestamp_s", "1E-130", None),
        ("timestamp_ms", "1.7E+12", "2023-11-14T22:13:20+00:00"),
        ("timestamp_ms", "253402300799999.999", "9999-12-31T23:59:59.999999+00:00"),
        ("timestamp_ms", "2.53402300799999999E+14", "9999-12-31T23:59:59.999999+00:00"),
        ("timestamp_ms", "2534023008E5", None),
        ("timestamp_s", "-99999999999", None),
        ("timestamp_ms", "1700000000123", "2023-11-14T22:13:20.123000+00:00"),
        ("timestamp_ms", "1.001", "1970-01-01T00:00:00.001001+00:00"),
        ("timestamp_ms", "99999999999999999", None),
        ("date", "2024-02-29", "2024-02-29"),
        ("date", "2024-02-29T00:00:00Z", None),
    ],
)
def test_times_are_read_as_declared_from_sql_and_from_python(
    declared: str, text: str, expected: str | None
) -> None:
    descriptor = "N" if declared[9:] else "S"
    sibling = f"x__{descriptor.lower()}"
    (row,) = column([{descriptor: text}], {"x": declared}).to_pylist()
    assert (row["x"] and row["x"].isoformat()) == expected
    assert row.get(sibling) == (None if expected else text)
    # with a number that only Python can read, Python reads the complete value
    odd = {"M": {"n": {"N": "1E0"}, "t": {descriptor: text}}}
    (row,) = column([odd], {"x": f"struct<n:long,t:{declared}>"}).to_pylist()
    assert (row["x"] and row["x"]["t"].isoformat()) == expected


@pytest.mark.parametrize("declared", ["int", "long", "decimal(38,18)", "timestamp_s"])
def test_a_number_of_any_length_is_not_rounded(declared: str) -> None:
    nearly_one = f"1.{'0' * 250}1"
    descriptor = "N" if declared == "timestamp_s" else "S"
    (row,) = column([{descriptor: nearly_one}], {"x": declared}).to_pylist()
    assert row["x"] is None
    assert row[f"x__{descriptor.lower()}"] == nearly_one
    (row,) = column([{descriptor: f"1.{'0' * 150}"}], {"x": declared}).to_pylist()
    assert row["x"] is not None
