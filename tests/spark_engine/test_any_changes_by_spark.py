"""Whatever changes come, Spark makes the rows of the library's own engine of them."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import SparkEngine
from tests.examples import examples
from tests.spark_engine.server import Change, applied, both, flow

pytestmark = [pytest.mark.spark, pytest.mark.timeout(1200)]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "status": TEXTS.map(lambda text: {"S": text}) | st.just({"S": "hidden"}),
        "total": st.decimals(-999999, 999999, places=4).map(lambda n: {"N": f"{n:f}"}),
        "count": st.integers(-(2**53), 2**53).map(lambda n: {"N": str(n)}),
        "share": st.floats(-1e6, 1e6).map(lambda n: {"N": f"{n:.9f}"}),
        "open": st.booleans().map(lambda b: {"BOOL": b}),
        "tags": st.lists(TEXTS, min_size=1, max_size=3, unique=True).map(lambda t: {"SS": t}),
        "address": TEXTS.map(lambda text: {"M": {"city": {"S": text}}}),
        "day": st.dates(date(1950, 1, 1)).map(lambda one: {"S": one.isoformat()}),
    },
)
KEYS = ("a", "b", "ä", '"\\', "\U0001f600")

CHANGES = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from(KEYS), ITEMS | st.none()),
    min_size=1,
    max_size=24,
    unique_by=lambda change: change[0],
)


@st.composite
def chunks(draw: st.DrawFn, *, again: bool) -> list[list[Change]]:
    """Changes in some order, so that some come late, in chunks; some of them come again."""
    changes = draw(CHANGES)
    if again:
        changes += draw(st.lists(st.sampled_from(changes), max_size=6))
    changes = draw(st.permutations(changes))
    cuts = sorted(draw(st.sets(st.integers(1, len(changes)), max_size=3)) | {len(changes)})
    starts = [0, *cuts[:-1]]
    return [changes[start:end] for start, end in zip(starts, cuts, strict=True)]


def check(
    engine: SparkEngine, paths: pytest.TempPathFactory, chunks: list[list[Change]], **dataset: Any
) -> None:
    root = paths.mktemp("any")
    for changes in chunks:
        spark, ours = both(root, changes)
        found = applied(spark, flow(engine, **dataset))
        assert found == applied(ours, flow(None, **dataset))
    at = [DeltaTable(str(one / "d")).transaction_version("apply/orders") for one in (spark, ours)]
    assert at == [len(chunks), len(chunks)]


ANY = settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))


@ANY
@given(chunks=chunks(again=True))
def test_merged(
    engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory, chunks: list[list[Change]]
) -> None:
    check(engine, tmp_path_factory, chunks)


@ANY
@given(chunks=chunks(again=False))
def test_appended(
    engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory, chunks: list[list[Change]]
) -> None:
    """A change log has each event once."""
    check(engine, tmp_path_factory, chunks, mode="append")


@ANY
@given(chunks=chunks(again=True))
def test_partitioned(
    engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory, chunks: list[list[Change]]
) -> None:
    check(engine, tmp_path_factory, chunks, partition_by=("city", "open"))
