"""The canonical key: injective, independent of the spelling of the JSON, never an exception."""

from __future__ import annotations

import base64
import contextlib
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.items.keys import canonical_key, key_column, keys_json, shown_key
from tests.model.test_number import dynamodb_numbers, spellings

Key = dict[str, tuple[str, object]]
"""Attribute -> (type, value); two JSON texts are one key if these are equal."""

NAMES = st.text(min_size=1, max_size=4)
VALUES: st.SearchStrategy[tuple[str, object]] = st.one_of(
    st.tuples(st.just("S"), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
    st.tuples(st.just("S"), st.text("0123:SN", max_size=6)),  # looks like a canonical key
    st.tuples(st.just("N"), dynamodb_numbers()),
    st.tuples(st.just("N"), st.integers(-5, 5).map(Decimal)),
    st.tuples(st.just("B"), st.binary(max_size=4)),
)
KEYS: st.SearchStrategy[Key] = st.dictionaries(
    st.one_of(st.sampled_from(["id", "sort"]), NAMES.filter(lambda n: n.isprintable())),
    VALUES,
    min_size=1,
    max_size=2,
)


@st.composite
def written(draw: st.DrawFn, key: Key) -> str:
    """Draw one of the JSON spellings of a key."""
    typed = {}
    for name in draw(st.permutations(list(key))):
        descriptor, value = key[name]
        if isinstance(value, Decimal):
            value = draw(st.sampled_from(spellings(value)))
        elif isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        typed[name] = {descriptor: value}
    return json.dumps(
        typed,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    )


@given(st.data(), KEYS)
def test_every_spelling_of_a_key_gives_one_text(data: st.DataObject, key: Key) -> None:
    texts = {canonical_key(data.draw(written(key))) for _ in range(3)}
    assert len(texts) == 1


@given(st.data(), KEYS)
def test_a_key_can_be_read_back_from_its_text(data: st.DataObject, key: Key) -> None:
    text = canonical_key(data.draw(written(key)))
    assert canonical_key(keys_json(text)) == text
    values = {name: value for name, (kind, value) in key.items() if kind == "S"}
    read = {name: typed["S"] for name, typed in json.loads(keys_json(text)).items() if "S" in typed}
    assert read == values


@given(st.text(max_size=20))
def test_any_other_text_is_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert canonical_key(keys_json(text)) == text


@given(st.data(), KEYS, KEYS)
def test_different_keys_have_different_texts(data: st.DataObject, one: Key, other: Key) -> None:
    same = canonical_key(data.draw(written(one))) == canonical_key(data.draw(written(other)))
    assert same == (one == other)


@settings(max_examples=60)
@given(st.data(), st.lists(KEYS, min_size=1, max_size=12))
def test_the_column_agrees_with_one_key_at_a_time(data: st.DataObject, keys: list[Key]) -> None:
    texts = [data.draw(written(key)) for key in keys]
    column, failures = key_column(pa.chunked_array([texts[:3], texts[3:]], pa.string()))
    assert column.to_pylist() == [canonical_key(text) for text in texts]
    assert failures == []


@settings(max_examples=100)
@given(
    name=st.sampled_from(["id", "a.b", "x-"]),
    values=st.lists(
        st.text(max_size=6) | st.text('"\\}{:é\x1f\x7f', max_size=4) | st.text("ab", max_size=3),
        min_size=1,
        max_size=6,
    ),
    spaced=st.booleans(),
)
def test_a_column_of_one_text_each_agrees_with_one_key_at_a_time(
    name: str, values: list[str], spaced: bool
) -> None:
    keys = [{name: {"S": value.encode("utf-8", "replace").decode()}} for value in values]
    texts = [json.dumps(key, ensure_ascii=False, separators=(",", ":")) for key in keys]
    texts[-1] = texts[-1].replace(":{", ": {", 1) if spaced else texts[-1]
    column = pa.array(["", *texts], pa.string()).slice(1)
    assert key_column(column)[0].to_pylist() == [canonical_key(text) for text in texts]


@settings(max_examples=100)
@given(st.lists(st.one_of(st.none(), st.text(max_size=8), st.text('{}":SNid[]1,\\', max_size=30))))
def test_no_text_is_ever_an_exception(texts: list[str | None]) -> None:
    safe = [t if t is None else t.encode("utf-8", "replace").decode() for t in texts]
    good = '{"id":{"S":"a"}}'
    column, failures = key_column(pa.array([good, *safe, good], pa.string()))
    assert column[0].as_py() == column[-1].as_py() == "2:idS1:a"
    failed = [row for row, key in enumerate(column.to_pylist()) if key is None]
    assert [failure.row for failure in failures] == failed


@pytest.mark.parametrize(
    ("keys", "canonical"),
    [
        ('{"id":{"S":"a"}}', "2:idS1:a"),
        ('{"id":{"N":"1.0"}}', "2:idN1:1"),
        ('{"id":{"B":"AAE="}}', "2:idB4:AAE="),
        ('{"sort":{"N":"1E0"},"id":{"S":""}}', "2:idS0:4:sortN1:1"),
        ('{"id":{"S":"\\u00e9\\ud83d\\ude00"}}', "2:idS2:é😀"),
    ],
)
def test_the_form_is_pinned_because_it_is_stored(keys: str, canonical: str) -> None:
    assert canonical_key(keys) == canonical
    assert key_column(pa.array([keys]))[0].to_pylist() == [canonical]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (None, "no keys"),
        ("", "not a map"),
        ("[]", "not a map"),
        ("{}", "0 attributes"),
        ('{"a":{"S":"1"},"b":{"S":"1"},"c":{"S":"1"}}', "3 attributes"),
        ('{"id":{}}', "exactly one type"),
        ('{"id":{"S":"a","N":"1"}}', "exactly one type"),
        ('{"id":{"S":1}}', "not a map"),
        ('{"id":{"N":"x"}}', "not a number"),
        ('{"id":{"N":"1E999"}}', "beyond the range"),
        ('{"id":{"B":"?"}}', "not base64"),
        ('{"id":{"BOOL":true}}', "not a map"),
        ('{"id":{"SS":"a"}}', "not S, N or B"),
        ('{"id":{"S":"a"},"id":{"S":"b"}}', "repeat a name"),
        ('{"id":{"S":"a"},"\\u0069d":{"S":"b"}}', "repeat a name"),
        ('{"id":{"S":"a","S":"b"}}', "repeat a name"),
        ('{"id":{"S":"\\ud800"}}', "not a map"),
    ],
)
def test_a_key_that_can_not_be_decoded_is_reported(keys: str | None, reason: str) -> None:
    good = '{"id":{"S":"secret"}}'
    column, failures = key_column(pa.array([good, keys, good], pa.string()))
    assert column.to_pylist() == ["2:idS6:secret", None, "2:idS6:secret"]
    assert [failure.row for failure in failures] == [1]
    assert reason in failures[0].reason


def test_the_fast_path_and_the_decoder_agree_on_quotes_inside_values() -> None:
    texts = ['{"id":{"S":"a"}}', '{"id":{"S":"a\\"}}"}}', '{"id":{"S":"a}}"}}', '{"id":{"N":"01"}}']
    column, failures = key_column(pa.array(texts))
    assert column.to_pylist() == ["2:idS1:a", '2:idS4:a"}}', "2:idS3:a}}", "2:idN1:1"]
    assert not failures


def test_an_empty_chunk() -> None:
    assert key_column(pa.chunked_array([], pa.string())) == (pa.array([], pa.string()), [])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("2:idS1:a", '{"id":{"S":"a"}}'),
        ("2:idS1:a2:skN3:1.5", '{"id":{"S":"a"},"sk":{"N":"1.5"}}'),
        ("2:idS4:\x1b[2J", r'{"id":{"S":"\u001b[2J"}}'),
        ("no key", "no key"),
        ("a\nb", r"a\nb"),
    ],
)
def test_an_error_shows_a_key_as_commands_take_it(key: str, text: str) -> None:
    assert shown_key(key) == text
