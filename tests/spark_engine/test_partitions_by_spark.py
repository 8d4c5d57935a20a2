"""Partitioned datasets that Spark writes: row for row those of the library's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from deltalake import DeltaTable

from datazone_dagster import SparkEngine
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.model.layout import Layout
from tests.spark_engine.server import Change, Item, applied, both, flow, uses_spark

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

TEXTS = [
    "plain",
    "a/b=c %",
    "Zürich",
    "€ 'ü\"",
    "x" * 199,
    " ",
    "A",
    "a",
    "line\nbreak",
    "{1}",
    ".",
]


def of_every_type(changes: Any) -> Any:
    return changes.select(
        "dynamodb.Keys.id.S as id",
        "dynamodb.NewImage.city.S as city",
        "cast(dynamodb.NewImage.day.S as date) as day",
        "cast(dynamodb.NewImage.total.N as decimal(12, 2)) as total",
        "cast(dynamodb.NewImage.count.N as bigint) as count",
        "dynamodb.NewImage.open.BOOL as open",
    )


def item(number: int, city: str) -> Item:
    return {
        "city": {"S": city},
        "day": {"S": f"2026-02-{number % 3 + 1:02}"},
        "total": {"N": f"{number % 3 - 1}.5"},
        "count": {"N": str(number % 3 - 1)},
        "open": {"BOOL": number % 2 == 0},
    }


@pytest.mark.parametrize("mode", ["merge", "append"])
@pytest.mark.parametrize(
    "partition_by", [("city",), ("day", "open"), ("total", "count")], ids="-".join
)
def test_rows_move_between_partitions(
    engine: SparkEngine,
    tmp_path: Path,
    mode: Literal["merge", "append"],
    partition_by: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    by_spark, by_us = (
        flow(one, of_every_type, mode=mode, partition_by=partition_by) for one in (engine, None)
    )
    first: list[Change] = [(at, f"k{at}", item(at, city)) for at, city in enumerate(TEXTS, 1)]
    moved: list[Change] = [
        (at + 100, f"k{at}", item(at + 1, city)) for at, city in enumerate(reversed(TEXTS), 1)
    ]
    chunks = [
        (by_spark, [*first, (50, "none", {})]),
        (by_us, [(60, "k1", item(2, "Zürich")), (61, "k2", {}), (62, "k3", None)]),
        (by_spark, [*moved[:6], (130, "k7", None), (131, "none", item(9, "Ü"))]),
        (by_us, [(140, "k8", item(1, "a/b=c %")), (141, "k9", None)]),
    ]
    for flowing, changes in chunks:
        spark, ours = both(tmp_path, changes)
        found = applied(spark, flowing)
        assert found == applied(ours, by_us)
    assert uses_spark(caplog)
    uri = str(spark / "d")
    assert DeltaTable(uri).metadata().partition_columns == list(partition_by)
    by_others = pl.scan_delta(uri).select("id", *partition_by).collect().to_arrow().to_pylist()
    assert len(by_others) == len(found[1])
    again = [{name: row[name] for name in ("id", *partition_by)} for row in by_others]
    ours_again = pl.scan_delta(str(ours / "d")).select("id", *partition_by).collect().to_dicts()
    assert sorted(map(repr, again)) == sorted(map(repr, ours_again))


@pytest.mark.parametrize("city", ["", "y" * 300, "a\0b", "__HIVE_DEFAULT_PARTITION__"])
def test_a_value_that_is_no_partition_is_left_to_ourselves(
    engine: SparkEngine, tmp_path: Path, city: str, caplog: pytest.LogCaptureFixture
) -> None:
    by_spark, by_us = (flow(one, of_every_type, partition_by="city") for one in (engine, None))
    spark, ours = both(tmp_path, [(1, "a", item(1, city)), (2, "b", item(2, "good"))])
    assert applied(spark, by_spark) == applied(ours, by_us)
    assert not uses_spark(caplog)
    waiting = [Quarantine(Layout(str(one)), "d").waiting() for one in (spark, ours)]
    assert waiting[0]["reason"] == waiting[1]["reason"]
