"""Images parsed by a fixed schema: exactly what is in them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.frame.parsed_images import (
    JSON_TEXT,
    Layout,
    Parsed,
    parse_accounted,
    parse_strictly,
)
from datazone_dagster.frame.query_session import Session
from tests.examples import examples

TEXT = {"NULL": pa.bool_(), "S": pa.string()}
LAYOUT = {
    "id": TEXT,
    'é"': {"NULL": pa.bool_(), "S": pa.string(), "N": pa.string()},
    "flag": {"NULL": pa.bool_(), "BOOL": pa.bool_()},
    "names": {"NULL": pa.bool_(), "SS": pa.list_(pa.string())},
    "rows": {
        "NULL": pa.bool_(),
        "L": pa.list_(
            pa.struct(
                [
                    ("BOOL", pa.bool_()),
                    ("M", pa.struct([("b", pa.struct(TEXT)), ("a", pa.struct(TEXT))])),
                ]
            )
        ),
    },
}
MAPS = {
    **LAYOUT,
    "map": {"NULL": pa.bool_(), "M": pa.map_(pa.string(), pa.struct([*TEXT.items()]))},
    "json": {"NULL": pa.bool_(), "L": JSON_TEXT, "M": JSON_TEXT},
}
"""A layout that only DuckDB reads."""

ROWS = [{"M": {"b": {"S": "x"}, "a": {"S": ""}}}, {"M": {"a": {"S": "y"}}}, {"BOOL": False}]
GOOD: list[dict[str, Any]] = [
    {"id": {"S": "k"}, 'é"': {"S": 'null 😀 say "hi"\\ \n\t\x01'}, "flag": {"BOOL": True}},
    {"id": {"S": ""}, 'é"': {"N": "1"}, "flag": {"NULL": True}, "names": {"SS": ["b", "é"]}},
    {"flag": {"BOOL": False}, "names": {"SS": []}, "rows": {"L": ROWS}},
    {"rows": {"L": [{"M": {}}]}},
    {"rows": {"L": []}},
    {},
]
GOOD_MAPS: list[dict[str, Any]] = [
    {"map": {"M": {'b"\\\n': {"S": "x"}, "a": {"NULL": True}, "é": {"S": '"'}}}, "id": {"S": "k"}},
    {"map": {"M": {}}, "json": {"M": {"x": {"L": [{"N": "1"}, {"S": '"\\'}]}}}},
    {"map": {"NULL": True}, "json": {"L": []}},
    {"id": {"S": "k"}},
]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    one = Session({})
    yield one
    one.close()


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def image_of(parsed: Parsed, row: int) -> dict[str, Any]:
    """Return the image that was parsed."""
    found: dict[str, Any] = {}
    for (name, descriptor), values in parsed.items():
        value = values[row].as_py()
        if value is not None:
            kind = MAPS[name][descriptor]
            found.setdefault(name, {})[descriptor] = written(value, kind)
    return found


def written(value: Any, kind: pa.DataType) -> Any:
    """Return the JSON of a value; a boolean may be its text."""
    if value is None:
        return None
    if kinds.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        found = {name: written(one, fields[name]) for name, one in value.items() if one is not None}
        if not found and all(map(str.isupper, fields)):
            raise LeftToConversionError
        return found
    if kinds.is_list(kind):
        return [written(one, kind.value_type) for one in value]
    if kinds.is_map(kind):
        return {name: written(one, kind.item_type) for name, one in value}
    is_json = kinds.is_boolean(kind) or kind == JSON_TEXT
    if is_json and isinstance(value, str):
        return json.loads(value, object_pairs_hook=without_repeats)
    return value


def as_written(text: str) -> object:
    """Return the value of a JSON text; None if it is malformed, or repeats a name."""
    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except ValueError:
        return None


def check(parsed: Parsed, row: int, text: str) -> None:
    """Compare an image with its text, unless its conversion will do that."""
    with suppress(LeftToConversionError):
        assert image_of(parsed, row) == as_written(text)


class LeftToConversionError(ValueError):
    """A typed value of which no part was read, or a name that is repeated in a JSON text."""


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise LeftToConversionError
    return dict(pairs)


def accounted(session: Session, images: pa.ChunkedArray, layout: Layout = MAPS) -> Parsed | None:
    return parse_accounted(session, images, layout)


def strictly(_: Session, images: pa.ChunkedArray, layout: Layout = LAYOUT) -> Parsed | None:
    return parse_strictly(images, layout)


Parser = Callable[..., Parsed | None]
BOTH = pytest.mark.parametrize("parse", [accounted, strictly])


@BOTH
@pytest.mark.parametrize("image", GOOD, ids=compact)
def test_images_of_the_layout_are_parsed_with_those_around_them(
    session: Session, parse: Parser, image: dict[str, Any]
) -> None:
    images = [compact(image), None, compact(GOOD[0]), compact(image)]
    some = pa.array(images, pa.string())
    for chunks in ([some], [some.slice(0, 1), some.slice(1)], [some.slice(3), some.slice(0, 0)]):
        texts = pa.chunked_array(chunks)
        parsed = parse(session, texts)
        assert parsed is not None
        for row, text in enumerate(texts.to_pylist()):
            assert image_of(parsed, row) == ({} if text is None else json.loads(text))


@pytest.mark.parametrize("image", GOOD_MAPS, ids=compact)
def test_maps_whose_names_are_data_are_accounted_for(
    session: Session, image: dict[str, Any]
) -> None:
    images = pa.array([compact(one) for one in (*GOOD_MAPS, image, image)])
    for texts in (images, images.slice(4, 1), images.slice(1)):
        parsed = accounted(session, pa.chunked_array([texts]))
        assert parsed is not None
        assert image_of(parsed, len(texts) - 1) == image
    assert strictly(session, pa.chunked_array([images]), MAPS) is None


@BOTH
def test_images_keep_their_order(session: Session, parse: Parser) -> None:
    images = [compact({"id": {"S": str(number)}}) for number in range(200_000)]
    parsed = parse(session, pa.chunked_array([images]))
    assert parsed is not None
    assert parsed["id", "S"].to_pylist() == [str(number) for number in range(200_000)]


@BOTH
def test_a_chunk_without_images_has_no_value(session: Session, parse: Parser) -> None:
    nulls = pa.chunked_array([pa.nulls(3, pa.string())])
    for texts in (nulls, nulls.slice(0, 0), pa.chunked_array([], pa.string())):
        parsed = parse(session, texts)
        assert parsed is None or {len(one) - one.null_count for one in parsed.values()} == {0}
        assert parsed is not None or not len(texts)


@BOTH
def test_bytes_of_nulls_and_of_slices_are_left_out(session: Session, parse: Parser) -> None:
    texts = [json.dumps({"id": {"S": str(number)}}, separators=(",", ":")) for number in range(4)]
    whole = pa.array(texts)
    empty = whole.slice(0, 0)
    parsed = parse(session, pa.chunked_array([whole.slice(1, 2), empty]))
    assert parsed is not None
    assert image_of(parsed, 1) == {"id": {"S": "2"}}
    masked = pa.Array.from_buffers(
        pa.string(), 4, [pa.py_buffer(bytes([0b1011])), *whole.buffers()[1:]]
    )
    parsed = parse_strictly(pa.chunked_array([masked.slice(1, 3), empty]), LAYOUT)
    assert parsed is not None
    assert parsed["id", "S"].to_pylist() == ["1", None, "3"]


def test_names_that_differ_in_case_only_are_left_to_the_reader(session: Session) -> None:
    layout = {"id": TEXT, "Id": TEXT}
    texts = pa.chunked_array([[compact({"id": {"S": "a"}, "Id": {"S": "b"}})]])
    assert accounted(session, texts, layout) is None
    parsed = strictly(session, texts, layout)
    assert parsed is not None
    assert [parsed[name, "S"][0].as_py() for name in layout] == ["a", "b"]


ODD = [
    "",
    "5",
    "[]",
    "null",
    "{",
    '{"id":{}}',
    '{"id":null}',
    '{"id":5}',
    '{"id":"x"}',
    '{"id":["S"]}',
    '{"id":{"S":null}}',
    '{"id":{"S":5}}',
    '{"id":{"S":1e5}}',
    '{"id":{"S":5  }}',
    '{"id":{"S":["b"]  }}',
    '{"id":{"S":true}}',
    '{"id":{"S":["b"]}}',
    '{"id":{"S":{"b":1}}}',
    '{"id":{"S":"x","N":"1"}}',
    '{"id":{"S":"x","S":"y"}}',
    '{"id":{"S":"x"},"id":{"S":"y"}}',
    '{"id":{"S":"x"}}{"id":{"S":"y"}}',
    '{"id":{"S":"x",}}',
    '{"id":{"S":"\\ud800"}}',
    '{"other":{"S":"x"}}',
    '{"id":{"S":"x"},"other":null}',
    '{"flag":{"BOOL":"true"}}',
    '{"flag":{"BOOL":1}}',
    '{"flag":{"BOOL":"a \\"quote\\""}}',
    '{"flag":{"NULL":"x"}}',
    '{"names":{"SS":null}}',
    '{"names":{"SS":{}}}',
    '{"names":{"SS":["a",null]}}',
    '{"names":{"SS":["a",5]}}',
    '{"names":{"SS":["a",["b"]]}}',
    '{"rows":{"L":[null]}}',
    '{"rows":{"L":[5]}}',
    '{"rows":{"L":{}}}',
    '{"rows":{"L":[{"M":[]}]}}',
    '{"rows":{"L":[{"M":5}]}}',
    '{"rows":{"L":[{"M":"x"}]}}',
    '{"rows":{"L":[{"M":null}]}}',
    '{"rows":{"L":[{"M":{"a":null}}]}}',
    '{"rows":{"L":[{"M":{"a":{"N":"1"}}}]}}',
    '{"rows":{"L":[{"M":{"other":{"S":"x"}}}]}}',
    '{"rows":{"L":[55]}}',
    '{"map":{"M":[]}}',
    '{"map":{"M":5}}',
    '{"map":{"M":"x"}}',
    '{"map":{"M":{"a":null}}}',
    '{"map":{"M":{"a":55}}}',
    '{"map":{"M":{"a":{"S":"x"},"a":{"S":"y"}}}}',
    '{"map":{"M":{"a":{"N":"1"}}}}',
    '{"map":{"M":{"a":{"S":"x","N":"1"}}}}',
    '{"json":{"M":[]}}',
    '{"json":{"M":"{}"}}',
    '{"json":{"L":{}}}',
    '{"json":{"L":5}}',
]


@BOTH
@pytest.mark.parametrize("odd", ODD)
def test_anything_else_is_not_parsed(session: Session, parse: Parser, odd: str) -> None:
    parsed = parse(session, pa.chunked_array([[compact(GOOD[1]), odd, compact(GOOD[3])]]))
    if parsed is not None:
        check(parsed, 1, odd)
    usual = pa.chunked_array([[compact(GOOD[1]), compact(GOOD[3])]])
    assert parse(session, usual) is not None


SCALARS = st.sampled_from(
    [
        *('"x"', '""', '"é"', '"a\\"b"', '"\\n"', '"\\u000a"', '"\\/"', '"\\u0022"', '" null"'),
        *("5", "-1.50", "1e5", "true", "false", "null", "NaN"),
    ]
)
VALUES: st.SearchStrategy[str] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda all_: f"[{','.join(all_)}]"),
        st.lists(
            st.tuples(st.sampled_from(["S", "M", "L", "SS", "BOOL", "NULL", "b", "a", "x"]), inner),
            max_size=2,
        ).map(lambda pairs: "{" + ",".join(f'"{name}":{one}' for name, one in pairs) + "}"),
    ),
    max_leaves=4,
)
USUAL = st.sampled_from(
    [(name, compact(one)) for image in (*GOOD, *GOOD_MAPS) for name, one in image.items()]
)
MEMBERS = st.one_of(USUAL, USUAL, st.tuples(st.sampled_from([*MAPS, "other"]), VALUES.filter(bool)))
SPACED = st.sampled_from(["", "", "", " ", "  ", "\n"])
IMAGES = st.builds(
    lambda members, space: (
        "{"
        + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{one}{space}" for name, one in members)
        + "}"
    ),
    st.lists(MEMBERS, max_size=4),
    SPACED,
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(IMAGES, min_size=1, max_size=4))
def test_images_are_parsed_to_the_last_member_or_not_at_all(images: list[str]) -> None:
    session = Session({})
    texts = pa.chunked_array([images])
    for parse in (accounted, strictly):
        parsed = parse(session, texts)
        if parsed is not None:
            for row, text in enumerate(images):
                check(parsed, row, text)
    session.close()


def test_an_image_as_the_service_writes_it_is_accounted_for(session: Session) -> None:
    texts = pa.chunked_array([list(map(compact, GOOD))])
    assert accounted(session, texts) is not None
    spaced = pa.chunked_array([list(map(json.dumps, GOOD))])
    assert accounted(session, spaced) is None
    assert strictly(session, spaced) is not None
