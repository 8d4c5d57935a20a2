"""Items of known attributes, read in one pass: the same rows as by discovery, or not read."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.errors import TransformError
from datazone_dagster.frame import items as items_module
from datazone_dagster.frame import known_items, look_ahead, query_session
from datazone_dagster.frame.discovery import KnownItems
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.items import ImageChoice
from datazone_dagster.frame.structure import Structure
from datazone_dagster.frame.structure import learnt as structures_of
from datazone_dagster.model.attributes import AttributeMapping
from tests.dynamodb_values import NUMBERS, TEXTS, TYPED
from tests.examples import LONG
from tests.frame.chunks import Image, chunk

TYPES = {
    "lines": "list<struct<sku:string,qty:long>>",
    "address": "struct<city:string,size:decimal(10,2),at:timestamp,tags:list<string>>",
    "numbers": "list<long>",
    "when": "timestamp",
    "day": "date",
    "seconds": "timestamp_s",
    "weight": "double",
    "prices": "map<string,struct<net:decimal(10,2),at:timestamp>>",
}
FULL: dict[str, Any] = {
    "id": {"S": "k"},
    "name": {"S": "é\u0000😀"},
    "total": {"N": "12"},
    "flag": {"BOOL": True},
    "data": {"B": "AAE="},
    "nothing": {"NULL": True},
    "names": {"SS": ["b", "a"]},
    "counts": {"NS": ["10", "9"]},
    "blobs": {"BS": ["AQ==", "AA=="]},
    "lines": {"L": [{"M": {"sku": {"S": "x"}, "qty": {"N": "2"}}}, {"M": {"sku": {"N": "5"}}}]},
    "address": {
        "M": {
            "city": {"S": "Ulm"},
            "size": {"N": "1.5"},
            "at": {"S": "2024-05-06T07:08:09Z"},
            "tags": {"SS": ["z", "y"]},
        }
    },
    "plain": {
        "M": {
            "b": {"S": 'say "hi"\n\t/'},
            "a": {"N": "1.50"},
            "é": {"L": [{"BOOL": True}, {"NULL": True}, {"M": {"x": {"B": "AA=="}}}, {"L": []}]},
            "set": {"SS": ["z", "y"]},
        }
    },
    "rows": {"L": [{"S": "x"}, {"N": "1E+2"}, {"M": {"k": {"S": ""}}}]},
    "empty": {"L": [{"L": []}]},
    "numbers": {"L": [{"N": "3"}, {"NULL": True}, {"N": "1"}]},
    "when": {"S": "2024-05-06 07:08:09.5+02:00"},
    "day": {"S": "2024-05-06"},
    "seconds": {"N": "1700000000"},
    "weight": {"N": "1.25"},
    "prices": {"M": {"A-1": {"M": {"net": {"N": "1.50"}}}, "a-1": {"M": {"net": {"N": "2"}}}}},
    "sizes": {"M": {f"sku-{number}": {"N": str(number)} for number in range(250)}},
}


@pytest.fixture(autouse=True, params=["query", "reader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse images of any size as many are, or as few."""
    least = 0 if request.param == "query" else 1 << 40
    monkeypatch.setattr(known_items, "WORTH_A_QUERY", least)


def read(
    changes: pa.Table, known: KnownItems, mapping: AttributeMapping, image: ImageChoice = "new"
) -> tuple[pa.Table, AttributeMapping]:
    frame = Frame.of_changes(changes, threads=1, attributes=mapping, known_items=known)
    rows = frame.items(image, types=TYPES).arrow()
    return rows, frame.attributes


def by_discovery() -> KnownItems:
    """Return nothing, after so many failures that no item is read in one pass."""
    return KnownItems(failures=3)


def learnt(image: ImageChoice = "new") -> tuple[KnownItems, AttributeMapping]:
    """Return what a chunk of two full items teaches; each test may learn more."""
    known, mapping = learnt_once(image)
    return copy.deepcopy(known), mapping


@functools.cache
def learnt_once(image: ImageChoice) -> tuple[KnownItems, AttributeMapping]:
    known = KnownItems()
    _, mapping = read(chunk((FULL, FULL)), known, AttributeMapping(), image)
    assert known.is_worth_trying
    return known, mapping


@pytest.mark.parametrize("image", ["new", "old", "both"])
def test_known_items_need_no_discovery(monkeypatch: pytest.MonkeyPatch, image: ImageChoice) -> None:
    known, mapping = learnt(image)
    less = {name: value for name, value in FULL.items() if name in {"id", "lines", "total"}}
    empty = FULL | {"lines": {"L": []}, "address": {"M": {}}, "nothing": {"NULL": True}}
    empty |= {"plain": {"M": {}}, "rows": {"L": []}, "empty": {"L": []}}
    large = FULL | {"name": {"S": "x" * (3 << 20)}}
    changes = chunk((FULL, None), (less, FULL), (None, less), (empty, None), (large, None))
    slow, slow_mapping = read(changes, by_discovery(), mapping, image)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(items_module, "discovered", never)
    fast, fast_mapping = read(changes, known, mapping, image)
    assert fast.equals(slow, check_metadata=True)
    assert fast_mapping == slow_mapping
    assert known.failures == 0


def test_more_rows_than_duckdb_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_session, "_BATCH_ROWS", 4)
    known, mapping = learnt()
    some = {name: FULL[name] for name in ("id", "lines", "address", "plain")}
    changes = pa.concat_tables([chunk((some, None), (None, some), (some, some))] * 5)
    slow, _ = read(changes, by_discovery(), mapping)
    fast, _ = read(changes, known, mapping)
    assert known.failures == 0
    assert fast.equals(slow)


PLAIN = st.one_of(
    st.dictionaries(
        st.sampled_from(["b", "a", "é", "set", "B"]),
        st.one_of(*(TYPED[kind] for kind in ("S", "N", "BOOL", "NULL", "SS", "L"))),
        max_size=3,
    ).map(lambda fields: {"M": fields}),
    st.lists(
        st.sampled_from(
            [{"S": "\u0001"}, {"S": "\\"}, {"N": "01"}, {"N": "-0.50"}, {"M": {"k": {"S": "\b"}}}]
        )
    ).map(lambda items: {"L": items}),
)
SCALARS = st.one_of(
    st.fixed_dictionaries({"S": TEXTS}),
    st.fixed_dictionaries({"N": NUMBERS}),
    st.sampled_from([{"BOOL": False}, {"NULL": True}, {"S": "2024-01-02"}, {"N": "7"}]),
)
CONTAINERS = st.one_of(
    st.lists(SCALARS, max_size=3).map(lambda all_: {"L": all_}),
    st.dictionaries(st.sampled_from(["sku", "qty", "city", "size", "other"]), SCALARS).map(
        lambda fields: {"L": [{"M": fields}, {"M": {}}]}
    ),
    st.dictionaries(st.sampled_from(["city", "size", "at", "tags", "City"]), SCALARS).map(
        lambda fields: {"M": fields}
    ),
    *(TYPED[kind] for kind in ("SS", "NS", "BS")),
)
MALFORMED: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"S": None},
        {"S": 5},
        {},
        None,
        {"S": "a", "N": "1"},
        {"BOOL": "true"},
        {"SS": ["a", None]},
        {"L": [None]},
        {"L": [{}]},
        {"L": [{"M": {"sku": {}}}]},
        {"M": {"city": {"S": "a", "N": "1"}}},
        {"M": {"city": None}},
        {"X": "1"},
    ]
)
USUAL = {name: st.just(value) for name, value in FULL.items() if name != "id"}
OTHER = {
    name: st.one_of(SCALARS, CONTAINERS, PLAIN, MALFORMED) for name in (*USUAL, "later", "Name")
}
ITEMS = st.builds(
    lambda usual, other: {"id": {"S": "k"}, **usual, **dict(list(other.items())[:1])},
    st.fixed_dictionaries({}, optional=USUAL),
    st.fixed_dictionaries({}, optional=OTHER),
)
RAW = st.sampled_from(
    [
        '{"id":{"S":"k"}} {"id":{"S":"l"}}',
        '{"id":{"S":"k"},"name":{"S":"a"},"name":{"S":"b"}}',
        '\n{"id":{"S":"k"},\n"name" : {"S":"a"}}\n',
        '{"id":{"S":"k"},"name":{"S":"\\ud800"}}',
        '{"id":{"S":"k"},"name":{"S":": null"}}',
        '{"id":{"S":"k"},"total":{"N":"1E+2"}}',
        "{",
        "[]",
        "",
    ]
)


def outcome(
    changes: pa.Table, known: KnownItems, mapping: AttributeMapping, image: ImageChoice = "new"
) -> tuple[object, AttributeMapping] | str:
    try:
        rows, after = read(changes, known, mapping, image)
    except TransformError as error:
        return str(error)
    return rows.to_pylist(), after


def spaced(image: Image) -> Image:
    """Return an image with spaces and escapes that the service does not write."""
    return json.dumps(image) if isinstance(image, Mapping) else image


@settings(max_examples=60 if LONG else 8, deadline=None)
@given(st.lists(ITEMS | ITEMS | RAW, min_size=1, max_size=3), st.booleans())
def test_rows_are_those_by_discovery_whatever_the_images(
    images: list[Image], is_compact: bool
) -> None:
    known, mapping = learnt()
    changes = chunk(*((one if is_compact else spaced(one), None) for one in images))
    fast = outcome(changes, known, mapping)
    slow = outcome(changes, by_discovery(), mapping)
    assert repr(fast) == repr(slow)


@settings(max_examples=60 if LONG else 8, deadline=None)
@given(st.lists(ITEMS | ITEMS | RAW, min_size=1, max_size=4), st.sampled_from(["new", "both"]))
def test_first_items_show_what_all_have_or_all_are_looked_at(
    images: list[Image], image: ImageChoice
) -> None:
    """Columns, their order, siblings and errors are those of a look at every image."""
    changes = chunk(*((one, None if at % 2 else FULL) for at, one in enumerate(images)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look_ahead, "FIRST_ROWS", 2)
        fast = outcome(changes, KnownItems(), AttributeMapping(), image)
    slow = outcome(changes, by_discovery(), AttributeMapping(), image)
    assert repr(fast) == repr(slow)


def test_items_are_read_in_one_pass_at_first_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(items_module, "raw_values", never)
    known = KnownItems()
    read(chunk((FULL, None), (None, FULL)), known, AttributeMapping())
    assert known.failures == 0


def test_names_of_a_large_map_are_data() -> None:
    known, mapping = learnt()
    sizes = known.structures["sizes", "M"]
    assert sizes is not None
    assert sizes.fields is None
    assert sizes.values == Structure({"N"})
    other = FULL | {"sizes": {"M": {"sku-999": {"N": "1"}, "sku-1": {"N": "2"}}}}
    rows, _ = read(chunk((other, None)), known, mapping)
    assert known.failures == 0
    assert rows["sizes"].to_pylist() == ['{"sku-1":2,"sku-999":1}']


def test_large_maps_within_maps_and_lists_have_one_structure_for_their_values() -> None:
    prices = {"net": {"N": "1"}, "Net": {"N": "1"}, "gross": {"L": [{"S": "x"}]}}
    ids = {f"sku-{number}": {"M": prices} for number in range(90)}
    structure = structures_of([{"M": {"a": {"L": [{"M": ids}]}, "b": {"BOOL": True}}}])
    assert structure is not None
    assert structure.fields is not None
    inner = structure.fields["a"].element
    assert inner is not None
    assert inner.fields is None
    assert inner.values == Structure(
        fields={"net": Structure({"N"}), "gross": Structure(element=Structure({"S"}))}
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"lines": {"L": [{}]}},
        {"lines": {"L": [{"M": {"sku": {}}}]}},
        {"lines": {"L": [{"M": {"qty": {"N": "1.5"}}}]}},
        {"address": {"M": {"city": {"S": "a", "N": "1"}}}},
        {"rows": {"L": [{"S": "x", "N": "1"}]}},
        {"rows": {"L": [{"S": "\u0001"}]}},
        {"rows": {"L": [{"N": "0x1"}]}},
        {"plain": {"M": {"b": {}}}},
        {"plain": {"M": {"b": {"S": "\u007f"}}}},
        {"plain": {"M": {"set": {"SS": ["\u0000"]}}}},
        {"plain": {"M": {"é": {"L": [{"BOOL": "true"}]}}}},
        {"plain": {"M": {"a": {"NULL": "true"}}}},
        {"prices": {"M": 5}},
        {"sizes": {"M": [5]}},
    ],
    ids=json.dumps,
)
def test_odd_parts_of_lists_and_maps_are_left_to_discovery(odd: dict[str, Any]) -> None:
    known, mapping = learnt()
    changes = chunk((FULL | odd, None), (FULL, None))
    slow = outcome(changes, by_discovery(), mapping)
    assert repr(outcome(changes, known, mapping)) == repr(slow)
    assert known.failures == 1


@pytest.mark.parametrize(
    "images",
    [
        {"name": {"NULL": True}},
        {"lines": {"NULL": True}},
        {"plain": {"M": {"a": {"NULL": True}}}},
        {"rows": {"L": [{"NULL": True}, {"M": {"k": {"NULL": True}}}]}},
        {"empty": {"L": [{"NULL": True}]}},
    ],
    ids=json.dumps,
)
def test_a_null_where_none_was_is_read_in_one_pass(images: dict[str, Any]) -> None:
    known, mapping = learnt()
    changes = chunk((FULL | images, None), (FULL, None))
    slow = outcome(changes, by_discovery(), mapping)
    assert repr(outcome(changes, known, mapping)) == repr(slow)
    assert known.failures == 0


@pytest.mark.parametrize("number", ["0", "10", "-0", "1.50", "01", "00", "", " 1", "1:", "٣"])
def test_numbers_in_plain_lists_are_json_numbers(number: str) -> None:
    known, mapping = learnt()
    fitting = {"rows": {"L": [{"N": "7"}, {"N": number}]}}
    changes = chunk((FULL | {"rows": {"L": [{"N": "1"}]}}, None), (FULL | fitting, None))
    slow = outcome(changes, by_discovery(), mapping)
    assert repr(outcome(changes, known, mapping)) == repr(slow)


def test_images_that_vary_are_soon_read_by_discovery_at_once() -> None:
    known, mapping = learnt()
    for number in range(5):
        _, mapping = read(chunk(({**FULL, f"new{number}": {"S": "x"}}, None)), known, mapping)
    assert not known.is_worth_trying


def test_changes_without_one_of_the_images_are_read_in_one_pass() -> None:
    known, mapping = learnt("both")
    read(chunk((FULL, None), (FULL, None)), known, mapping, "both")
    read(chunk((None, FULL)), known, mapping, "both")
    assert known.failures == 0
