"""Columns of lists and structs that Spark writes: those of the library's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import SparkEngine
from tests.examples import examples
from tests.spark_engine.server import Change, Item, applied, both, flow, uses_spark

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

LINES = "dynamodb.NewImage.lines.L"


def nested(changes: Any) -> Any:
    return changes.select(
        "dynamodb.Keys.id.S as id",
        f"{LINES}[1].M.sku.S as first",
        f"{LINES}[-1].M.Sku.S as last",
        f"{LINES}[2].L[1].N as inner_one",
        f"{LINES}[1].M.tags.SS as tags",
        f"{LINES}[1].BOOL as open",
        f"{{'sku': {LINES}[1].M.sku.S, 'at': {{'n': [1, 2], 'x': eventName}}}} as place",
        f"[{LINES}[1].M.sku.S, eventName, null] as names",
        "dynamodb.NewImage.tags.SS as plain",
        "len(dynamodb.NewImage.tags.SS) as count",
        "list_contains(dynamodb.NewImage.tags.SS, 'a') as has_a",
        "list_contains([1, 2, null], 3) as has_three",
        "dynamodb.NewImage.tags.SS[2] as second",
        "userIdentity as who",
        "userIdentity.principalId as principal",
    ).with_columns("place.at.n[2] as two", "(place).sku || '!' as loud")


LINE = {"M": {"sku": {"S": 'a"\\ü'}, "Sku": {"S": "other"}, "tags": {"SS": ["b", "a"]}}}


@pytest.mark.parametrize("mode", ["merge", "append"])
def test_lists_and_structs_are_the_same(
    engine: SparkEngine,
    tmp_path: Path,
    mode: Literal["merge", "append"],
    caplog: pytest.LogCaptureFixture,
) -> None:
    by_spark, by_us = flow(engine, nested, mode=mode), flow(None, nested, mode=mode)
    rich: Item = {"lines": {"L": [LINE, {"L": [{"N": "1.50"}]}]}, "tags": {"SS": ["a", "b"]}}
    chunks: list[tuple[Any, list[Change]]] = [
        (by_spark, [(1, "a", rich), (2, "b", {"lines": {"L": []}}), (3, "c", {})]),
        (by_us, [(4, "a", {"lines": {"L": [{"S": "x"}, LINE]}}), (5, "d", rich)]),
        (
            by_spark,
            [
                (6, "d", {"lines": {"L": [{"BOOL": True}, {"NULL": True}]}, "tags": {"SS": ["c"]}}),
                (7, "b", rich),
                (8, "e", {"lines": {"NULL": True}, "tags": {"NULL": True}}),
                (9, "c", None),
            ],
        ),
    ]
    for flowing, changes in chunks:
        spark, ours = both(tmp_path, changes)
        found = applied(spark, flowing)
        assert found == applied(ours, by_us)
    assert uses_spark(caplog)
    assert len(found[1]) == {"merge": 4, "append": 9}[mode]


def test_fields_that_come_later(engine: SparkEngine, tmp_path: Path) -> None:
    """The column has fields that the function did not return before, or does not any more."""

    def first(changes: Any) -> Any:
        return changes.select("{'a': cast(dynamodb.NewImage.n.N as int)} as s")

    def more(changes: Any) -> Any:
        return changes.select(
            "{'a': cast(dynamodb.NewImage.n.N as bigint), 'b': {'c': eventName}} as s"
        )

    for number, function in enumerate((first, more, first), 1):
        changes: list[Change] = [(number, "a", {"n": {"N": "1"}}), (number + 10, str(number), {})]
        spark, ours = both(tmp_path, changes)
        expected = applied(ours, flow(None, function))
        assert applied(spark, flow(engine, function)) == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
VALUES = st.recursive(
    TEXTS.map(lambda text: {"S": text})
    | st.booleans().map(lambda value: {"BOOL": value})
    | st.integers(-99, 99).map(lambda number: {"N": str(number)})
    | st.just({"NULL": True}),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: {"L": found})
        | st.dictionaries(st.sampled_from(["sku", "Sku", "n"]), inner, max_size=3).map(
            lambda found: {"M": found}
        )
    ),
    max_leaves=5,
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "lines": st.lists(VALUES, max_size=3).map(lambda found: {"L": found}),
        "tags": st.lists(TEXTS, min_size=1, max_size=3, unique=True).map(lambda t: {"SS": t}),
    },
)


@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(items=st.lists(ITEMS, min_size=6, max_size=24))
def test_any_values(
    engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory, items: list[Item]
) -> None:
    root = tmp_path_factory.mktemp("any")
    half = len(items) // 2
    for part in (range(half), range(half, len(items))):
        spark, ours = both(root, [(at + 1, f"k{at % 5}", items[at]) for at in part])
        expected = applied(ours, flow(None, nested, mode="append"))
        assert applied(spark, flow(engine, nested, mode="append")) == expected
