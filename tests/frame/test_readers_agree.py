"""Sets, lists and maps: a value that SQL reads is the one that Python reads.

The texts are lists and maps with nesting, repeated names, values of wrong types and several types.
SQL may leave any text to Python; a text that Python refuses must never have a value in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.frame.containers import Reading, exactly, plain_content, typed_content
from datazone_dagster.frame.exact import UnfitError, exact_content
from datazone_dagster.frame.item_types import (
    ItemType,
    ListOf,
    MapOf,
    Scalar,
    arrow_type,
    descriptors_of,
    parse_type,
)
from datazone_dagster.frame.paths import from_json
from datazone_dagster.frame.plain import NotDynamoDBJsonError, plain_list, plain_map, plain_text
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.structure import learnt
from tests.dynamodb_values import TYPED
from tests.examples import examples

THOROUGH = settings(max_examples=examples(60), deadline=None)

_NAMES = st.sampled_from(["a", "b", "A", "S", 'q"q', "é", ""])
_LEAVES = st.one_of(
    *(values for descriptor, values in TYPED.items() if descriptor not in {"L", "M"})
).map(lambda typed: next((name, compact(inner)) for name, inner in typed.items()))
_NEAR_LEAVES = st.sampled_from(
    [
        *(("N", '"05"'), ("N", "1"), ("N", '"NaN"'), ("S", "1"), ("S", "null"), ("B", "true")),
        *(("BOOL", '"true"'), ("BOOL", "1"), ("SS", '["b",1]'), ("S", '"\\u0001"'), ("NULL", "1")),
    ]
)
_ANY_LEAVES = st.tuples(
    st.sampled_from(["S", "N", "BOOL", "NULL", "SS", "NS", "L", "M", "X"]),
    st.sampled_from(
        [
            *('"a"', '"1"', '"05"', '"1E+2"', '"\\u0001"', "1", "1e9", "true", "false", "null"),
            *("{}", "[]", "[null]", '["b","a"]', '["b",1]', '{"a":1}', '{"S":"a"}'),
        ]
    ),
)


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_object(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{compact(name)}:{text}" for name, text in members) + "}"


def contents(typed: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    """Return lists and maps of typed values, as descriptor and JSON; a name may be repeated."""
    return st.one_of(
        st.lists(typed, max_size=3).map(lambda texts: ("L", f"[{','.join(texts)}]")),
        st.lists(st.tuples(_NAMES, typed), max_size=3).map(lambda m: ("M", as_object(m))),
    )


def typed_texts(
    leaves: st.SearchStrategy[tuple[str, str]], most_descriptors: int
) -> st.SearchStrategy[str]:
    """Return typed values as JSON, nested, of up to so many descriptors where one is right."""
    return st.recursive(
        st.lists(leaves, min_size=1, max_size=most_descriptors).map(as_object),
        lambda inner: st.lists(
            st.one_of(leaves, contents(inner)), min_size=1, max_size=most_descriptors
        ).map(as_object),
        max_leaves=6,
    )


CONTENTS = contents(
    st.one_of(
        typed_texts(_LEAVES, 1),
        typed_texts(_NEAR_LEAVES, 1),
        typed_texts(_ANY_LEAVES | _NEAR_LEAVES | _LEAVES, 2),
    )
)
"""Lists and maps as JSON without whitespace, many of which are not DynamoDB JSON."""


def read_in_sql(reading: Reading, texts: list[str], kind: pa.DataType, *, plain: bool) -> list[Any]:
    """Return what SQL reads from texts, None where it leaves the text to Python."""
    parsed = f"SELECT text, {from_json('text', reading.shape)} AS parsed FROM texts"
    value = exactly(reading, "parsed", "text", plain=plain)
    session = Session({"texts": pa.table({"text": texts})}, threads=1)
    try:
        rows = session.table(f"SELECT {value} AS value FROM ({parsed})")
    finally:
        session.close()
    return list(rows["value"].cast(kind).to_pylist())


def read_in_python(read: Callable[[str], Any], text: str, kind: pa.DataType) -> Any:
    """Return what Python reads from a text, None if the text has no value of this type."""
    try:
        return pa.array([read(text)], kind).to_pylist()[0]
    except (UnfitError, NotDynamoDBJsonError):
        return None


@THOROUGH
@given(st.lists(CONTENTS, min_size=1, max_size=8), st.data())
def test_sql_reads_plain_json_as_python_does_or_not_at_all(
    found: list[tuple[str, str]], data: st.DataObject
) -> None:
    for descriptor, read in (("L", plain_list), ("M", plain_map)):
        texts = [text for kind, text in found if kind == descriptor]
        sample = data.draw(st.lists(st.sampled_from(texts), min_size=1)) if texts else []
        structure = learnt({descriptor: json.loads(text)} for text in sample)
        assert structure is not None
        reading = plain_content(structure, descriptor)
        if reading is None:  # nothing of this kind was in the sample
            continue
        for text, value in zip(
            texts, read_in_sql(reading, texts, pa.string(), plain=True), strict=True
        ):
            expected = read_in_python(partial(plain_text, read), text, pa.string())
            assert value in (None, expected)


DECLARED = [
    "list<string>",
    "list<long>",
    "list<double>",
    "list<binary>",
    "list<boolean>",
    "list<list<decimal(5,2)>>",
    "map<string,string>",
    "map<string,int>",
    "map<string,map<string,timestamp_s>>",
    "struct<a:string,b:decimal(38,9)>",
    "list<struct<a:string,S:list<string>>>",
    "struct<a:struct<b:boolean>,b:list<long>,S:map<string,string>>",
]


@THOROUGH
@given(st.sampled_from(DECLARED), st.data())
def test_sql_reads_declared_types_as_python_does_or_not_at_all(
    declared: str, data: st.DataObject
) -> None:
    item_type, kind = parse_type(declared), arrow_type(declared)
    descriptor = data.draw(st.sampled_from(descriptors_of(item_type)))
    of_kind = CONTENTS.filter(lambda content: content[0] == descriptor).map(lambda c: c[1])
    sets = st.one_of(
        TYPED[descriptor].map(lambda typed: compact(typed[descriptor])),
        st.sampled_from(["[]", '["1",2]', '["1",null]', "{}", '"a"', '["1","\\u0041"]']),
    )
    close = near(item_type, descriptor)
    texts = data.draw(
        st.lists(
            sets if descriptor.endswith("S") else st.one_of(close, of_kind), min_size=1, max_size=6
        )
    )
    reading = typed_content(item_type, descriptor)
    for text, value in zip(texts, read_in_sql(reading, texts, kind, plain=False), strict=True):
        expected = read_in_python(partial(exact_content, item_type, descriptor), text, kind)
        assert value is None or value == expected


def near(item_type: ItemType, descriptor: str) -> st.SearchStrategy[str]:
    """Return JSON of the content of a type, now and then with a value of another type in it."""
    if isinstance(item_type, Scalar):
        return TYPED[descriptor].map(lambda typed: compact(typed[descriptor])) | (
            st.sampled_from(['"1"', '"-2.5"', '"1E+2"', '"AA=="', "true", "false"])
        )
    if isinstance(item_type, ListOf):
        if descriptor != "L":
            return TYPED[descriptor].map(lambda typed: compact(typed[descriptor]))
        return st.lists(near_typed(item_type.element), max_size=3).map(lambda t: f"[{','.join(t)}]")
    if isinstance(item_type, MapOf):
        return st.lists(st.tuples(_NAMES, near_typed(item_type.value)), max_size=3).map(as_object)
    fields = [st.tuples(st.just(name), near_typed(field)) for name, field in item_type.fields]
    return st.lists(st.one_of(*fields), max_size=3).map(as_object)


def near_typed(item_type: ItemType) -> st.SearchStrategy[str]:
    of_type = st.sampled_from(descriptors_of(item_type)).flatmap(
        lambda descriptor: near(item_type, descriptor).map(
            lambda text: as_object([(descriptor, text)])
        )
    )
    return st.one_of(of_type, of_type, of_type, st.just('{"NULL":true}'), st.just('{"S":"1"}'))
