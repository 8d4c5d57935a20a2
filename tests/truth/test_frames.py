"""Chains of frames give what plain Python computes from the same changes, row by row."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.frame.frame import Frame
from tests import dynamodb_values
from tests.examples import LONG, examples
from tests.frame.chunks import chunk
from tests.truth.items import KEYS, NAMES, TYPED
from tests.truth.reference import Change, Item, in_text, plain_item, shown, value
from tests.types.table_items import item_of

NEWEST = (
    "select * from changes qualify "
    "row_number() over (partition by _dz_key order by _dz_version desc) = 1"
)
GROUPED = (
    "select _dz_key, max(_dz_version) as _dz_version, max(_dz_event_time) as _dz_event_time, "
    "arg_max(dynamodb, _dz_version) as dynamodb from changes group by _dz_key"
)
NUMBERED = "select *, count(*) over (partition by _dz_key) as counted from changes"
JOINED = (
    "select changes.*, people.label from changes "
    'left join people on people.name = changes.dynamodb.NewImage."a".S'
)
LAGGED = (
    "select changes.* exclude (dynamodb), coalesce(lag(dynamodb) over "
    "(partition by _dz_key order by _dz_version), dynamodb) as dynamodb from changes"
)
PEOPLE: list[tuple[str | None, str]] = [
    ("a", "one"),
    ("a", "two"),
    ("b", "three"),
    (None, "nobody"),
]

Rows = list[tuple[Change, Change, dict[str, Any]]]
"""Rows: the change that they come from, the change whose record they hold, and more columns."""


def _newest(rows: Rows) -> Rows:
    return list({one[0].key: one for one in rows}.values())


def _joined(rows: Rows) -> Rows:
    found = []
    for own, record, more in rows:
        name = value(record.new, "a", "S")
        labels = [label for known, label in PEOPLE if name is not None and known == name]
        shown_labels: list[str | None] = [*labels] or [None]
        found += [(own, record, {**more, "label": label}) for label in shown_labels]
    return found


def _lagged(rows: Rows) -> Rows:
    before: dict[str, Change] = {}
    found = []
    for own, record, more in rows:
        found.append((own, before.get(own.key, record), more))
        before[own.key] = record
    return found


def _numbered(rows: Rows) -> Rows:
    counts = Counter(own.key for own, *_ in rows)
    return [(own, record, {**more, "counted": counts[own.key]}) for own, record, more in rows]


def _put(rows: Rows) -> Rows:
    return [one for one in rows if one[1].new is not None]


STEPS: dict[str, tuple[Callable[[Frame], Frame], Callable[[Rows], Rows]]] = {
    "newest": (lambda frame: frame.sql(NEWEST), _newest),
    "grouped": (lambda frame: frame.sql(GROUPED), _newest),
    "numbered": (lambda frame: frame.sql(NUMBERED), _numbered),
    "put": (lambda frame: frame.filter("dynamodb.NewImage is not null"), _put),
    "joined": (lambda frame: frame.sql(JOINED), _joined),
    "lagged": (lambda frame: frame.sql(LAGGED), _lagged),
}
CHAINS: Sequence[Sequence[str]] = [
    [],
    *([step] for step in STEPS),
    ["put", "joined"],
    ["put", "lagged"],
    ["newest", "joined"],
    ["lagged", "newest"],
    ["grouped", "put"],
    ["put", "numbered"],
]
PATHS: Mapping[str, Sequence[str | int]] = {
    'dynamodb.NewImage."a".S': ("a", "S"),
    'dynamodb.NewImage."A".N': ("A", "N"),
    "dynamodb.NewImage.tags.SS": ("tags", "SS"),
    'dynamodb.NewImage."order id".L[-1].S': ("order id", "L", -1, "S"),
    'dynamodb.NewImage."select".BOOL': ("select", "BOOL"),
    'dynamodb.NewImage."x.""y".M.a.S': ('x."y', "M", "a", "S"),
    'dynamodb.NewImage."é"."NULL"': ("é", "NULL"),
}


def table_of(changes: Sequence[Change], style: Mapping[str, Any]) -> pa.Table:
    def text(image: Item | None) -> str | None:
        return None if image is None else json.dumps(image, **style)

    rows = chunk(*((one.new, one.old) for one in changes))
    for name, images in (
        ("new_image", [one.new for one in changes]),
        ("old_image", [one.old for one in changes]),
    ):
        texts = pa.array([text(image) for image in images], pa.string())
        rows = rows.set_column(rows.column_names.index(name), name, texts)
    return rows


def check(changes: Sequence[Change], chain: Sequence[str], style: Mapping[str, Any]) -> None:
    """Compare the paths and the items after a chain with plain Python."""
    table = table_of(changes, style)
    people = pa.table(dict(zip(("name", "label"), zip(*PEOPLE, strict=True), strict=True)))
    frame = Frame.of_changes(table, lookups={"people": people}, threads=4)
    rows: Rows = [(one, one, {}) for one in changes]
    for step in chain:
        query, reference = STEPS[step]
        frame, rows = query(frame), reference(rows)
    numbers = {version: at for at, version in enumerate(table["_dz_version"].to_pylist())}
    more = [name for name in ("counted", "label") if name in frame.columns]

    selected = frame.select(*(f"{path} as p{at}" for at, path in enumerate(PATHS)), *more)
    found = [
        [numbers[row["_dz_version"]], *(row[f"p{at}"] for at in range(len(PATHS)))]
        + [row[name] for name in more]
        for row in selected.arrow().to_pylist()
    ]
    expected = [
        [own.number, *(value(record.new, *path) for path in PATHS.values())]
        + [values[name] for name in more]
        for own, record, values in rows
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))

    items = frame.items()
    read = [
        {"#": numbers[row["_dz_version"]], **in_text(item_of(row, items.attributes))}
        | {f"+{name}": row[name] for name in more}
        for row in items.arrow().to_pylist()
    ]
    wanted = [
        {"#": own.number, **in_text(plain_item(record.new) | {"id": own.key})}
        | {f"+{name}": values[name] for name in more}
        for own, record, values in rows
    ]
    assert shown(read) == shown(wanted)


TIME = datetime(2024, 1, 1, tzinfo=timezone.utc)


def history(operations: Sequence[tuple[str, Item | None]]) -> list[Change]:
    """Return the changes of puts and deletes; a delete of an absent item is none."""
    items: dict[str, Item] = {}
    found: list[Change] = []
    for key, attributes in operations:
        old = items.pop(key, None)
        new = None if attributes is None else {"id": {"S": key}, **attributes}
        if new is not None:
            items[key] = new
        if new is not None or old is not None:
            found.append(Change(len(found), key, new, old, TIME))
    return found


VALUES = st.one_of(st.sampled_from(TYPED), dynamodb_values.VALUES)
ITEMS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
STYLES = st.sampled_from(
    [{}, {"ensure_ascii": False}, {"separators": (",", ":"), "ensure_ascii": False}]
)


@settings(max_examples=examples(36), deadline=None)
@given(
    st.lists(st.tuples(KEYS, st.none() | ITEMS), min_size=1, max_size=25),
    st.sampled_from(CHAINS),
    STYLES,
)
def test_a_chain_gives_what_python_computes(
    operations: list[tuple[str, Item | None]], chain: Sequence[str], style: Mapping[str, Any]
) -> None:
    changes = history(operations)
    if changes:
        check(changes, chain, style)


MANY = 110_000 if LONG else 3_000
"""Changes of which DuckDB's threads get several parts."""

WITHOUT_ORDER = [["newest"], ["grouped"], ["joined"], ["lagged"]]


@pytest.mark.parametrize("chain", WITHOUT_ORDER, ids="-".join)
def test_many_changes_do_not_get_mixed_up(chain: Sequence[str]) -> None:
    """Each item has values of its own, so that one of another item shows."""
    draw = random.Random(1)

    def attributes(at: int) -> Item:
        own: dict[str, Any] = {"a": {"S": draw.choice(["a", "b", f"s{at}"])}, "A": {"N": str(at)}}
        own["tags"] = {"SS": [f"t{at}", f"u{at}"]}
        own |= {name: draw.choice(TYPED) for name in draw.sample(NAMES[3:], 2)}
        wide = {f"w{number}": {"S": f"{number} of {at}"} for number in range(70)}
        return own | (wide if at % 50 == 0 else {})

    keys = [f"k{draw.randrange(MANY // 2)}" for _ in range(MANY)]
    operations = [
        (key, attributes(at) if draw.random() < 0.9 else None) for at, key in enumerate(keys)
    ]
    check(history(operations), chain, {})
