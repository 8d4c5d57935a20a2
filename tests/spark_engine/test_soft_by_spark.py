"""Soft deletes that Spark applies: rows, marks and tombstones of the library's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from datazone_dagster import SparkEngine
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from tests.examples import examples
from tests.spark_engine.server import Change, both, flow, rows, uses_spark
from tests.spark_engine.test_any_changes_by_spark import chunks

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

OPEN: Any = {"status": {"S": "open"}}
HIDDEN: Any = {"status": {"S": "hidden"}}
KEYS = [
    "2:idS1:a",
    "2:idS1:b",
    "2:idS1:c",
    "2:idS1:d",
    "2:idS1:e",
    '2:idS2:"\\',
    "2:idS1:ä",
    "2:idS1:\U0001f600",
]


def seen(changes: Any) -> Any:
    return changes.filter("dynamodb.NewImage.status.S is distinct from 'hidden'").select(
        "dynamodb.Keys.id.S as id",
        "dynamodb.NewImage.status.S as status",
        "eventName as image",
        "eventName as cause",
    )


def tombstones(root: Path) -> list[str]:
    """Return what the tombstones say, each once: a run that is repeated may write one again."""
    found = Tombstones(Layout(str(root)), "d", "orders").for_keys(pa.chunked_array([KEYS]))
    return sorted({repr(sorted(one.items())) for one in found.to_pylist()})


def compare(
    root: Path, engine: SparkEngine | None, changes: list[Change], **dataset: Any
) -> list[str]:
    """Apply changes in both lakehouses; return the rows."""
    spark, ours = both(root, changes)
    reports = []
    for one, by in ((spark, engine), (ours, None)):
        flowing = flow(by, seen, deletes="soft", **dataset)
        reports.append(apply_transform(flowing, Layout(str(one)))["d"])
    assert rows(spark) == rows(ours)
    assert tombstones(spark) == tombstones(ours)
    assert reports[0].counts == reports[1].counts
    assert reports[0].deletes == reports[1].deletes
    return rows(spark)[1]


@pytest.mark.parametrize("partition_by", [(), ("status",)])
def test_rows_marks_and_tombstones_are_the_same(
    engine: SparkEngine,
    tmp_path: Path,
    partition_by: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def apply(by: SparkEngine | None, *changes: Change) -> list[str]:
        return compare(tmp_path, by, list(changes), partition_by=partition_by)

    apply(engine, (10, "a", OPEN), (11, "b", OPEN), (12, "b", None), (13, "c", None))
    apply(engine, (20, "a", None), (21, "d", OPEN), (22, "b", {}))
    apply(None, (30, "d", None), (31, "c", OPEN))
    apply(engine, (15, "a", {"status": {"S": "late"}}), (14, "c", OPEN), (32, "b", HIDDEN))
    apply(engine, (29, "d", OPEN), (19, "b", OPEN), (18, "a", None), (33, "c", None))
    apply(None, (34, "c", OPEN), (35, "a", OPEN), (27, "b", None))
    found = apply(engine, (36, "c", HIDDEN), (36, "c", HIDDEN), (37, "a", None), (38, "b", OPEN))
    assert sum("'_dz_deleted': True" in row for row in found) == 2
    # Deleted after an image that is filtered out: an older image must not take its place.
    assert apply(engine, (41, "e", HIDDEN), (42, "e", None)) == found
    assert apply(engine, (40, "e", OPEN)) == found
    assert uses_spark(caplog)


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(chunks=chunks(again=True))
def test_any_changes(
    engine: SparkEngine, tmp_path_factory: pytest.TempPathFactory, chunks: list[list[Change]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    for changes in chunks:
        # Landing keeps a change out that the log has, so no chunk has one twice.
        compare(root, engine, list({change[0]: change for change in changes}.values()))


def test_hard_deletes_become_soft_and_hard_again(engine: SparkEngine, tmp_path: Path) -> None:
    for number, deletes in enumerate(("hard", "soft", "hard", "soft")):
        first = 10 * number
        changes: list[Change] = [(first + 1, "a", OPEN), (first + 2, "b", OPEN)]
        changes += [(first + 3, "b", None), (first + 4, "c", OPEN if number % 2 else None)]
        spark, ours = both(tmp_path, changes)
        for one, by in ((spark, engine), (ours, None)):
            apply_transform(flow(by, seen, deletes=deletes), Layout(str(one)))
        assert rows(spark) == rows(ours)
