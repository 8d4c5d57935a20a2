"""Datasets that Spark writes: row for row those of the library's own engine."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from datazone_dagster import SparkEngine
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.errors import SparkError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.process import crash_points
from datazone_dagster.rows.merge_batch import KEYED_CHANGES_SCHEMA
from datazone_dagster.spark import probe_server, spark_server
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.spark_engine.server import (
    ORDER,
    Change,
    applied,
    both,
    flow,
    land,
    rows,
    sail_server,
    uses_spark,
)

pytestmark = [pytest.mark.spark, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("mode", ["merge", "append"])
def test_rows_are_the_same(
    engine: SparkEngine,
    tmp_path: Path,
    mode: Literal["merge", "append"],
    caplog: pytest.LogCaptureFixture,
) -> None:
    by_spark, by_us = flow(engine, mode=mode), flow(None, mode=mode)
    hidden = {**ORDER, "status": {"S": "hidden"}}
    chunks: list[tuple[Any, list[Change]]] = [
        (by_spark, [(1, "a", ORDER), (2, "b", {}), (3, "a", {**ORDER, "total": {"N": "-2.675"}})]),
        (by_us, [(4, "a", {}), (5, "c", ORDER), (6, "never there", None)]),
        (
            by_spark,
            [
                (7, "b", None),
                (8, "c", hidden),
                (9, "new", {**ORDER, "status": {"NULL": True}}),
                (10, "b", ORDER),
                (11, "d", None),
                (12, "d", {"status": {"S": ""}}),
            ],
        ),
    ]
    for flowing, changes in chunks:
        spark, ours = both(tmp_path, changes)
        found = applied(spark, flowing)
        assert found == applied(ours, by_us)
    assert uses_spark(caplog)
    assert len(found[1]) == {"merge": 4, "append": 11}[mode]
    positions = [
        DeltaTable(str(one / "d")).transaction_version("apply/orders") for one in (spark, ours)
    ]
    assert positions == [3, 3]


def test_values_that_spark_may_read_otherwise_are_applied_by_us(
    engine: SparkEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another type, and no number at all."""
    by_spark, by_us = flow(engine, on_error="quarantine"), flow(None, on_error="quarantine")
    for changes in (
        [(1, "a", {**ORDER, "total": {"S": "5"}}), (2, "b", ORDER)],
        [(3, "c", {**ORDER, "total": {"N": "no number"}}), (4, "d", ORDER)],
    ):
        caplog.clear()
        spark, ours = both(tmp_path, changes)
        assert applied(spark, by_spark) == applied(ours, by_us)
        assert not uses_spark(caplog)


def test_columns_are_added_and_widened(engine: SparkEngine, tmp_path: Path) -> None:
    def first(changes: Any) -> Any:
        return changes.select("cast(dynamodb.NewImage.count.N as int) as count")

    def then(changes: Any) -> Any:
        return changes.select(
            "cast(dynamodb.NewImage.count.N as bigint) as count", "dynamodb.Keys.id.S as id"
        )

    for function, number in ((first, 1), (then, 2)):
        spark, ours = both(tmp_path, [(number, "a", ORDER), (number + 10, f"{number}", ORDER)])
        expected = applied(ours, flow(None, function))
        assert applied(spark, flow(engine, function)) == expected


def test_a_late_change_does_not_bring_a_deleted_row_back(
    engine: SparkEngine, tmp_path: Path
) -> None:
    spark, ours = both(tmp_path, [(1, "a", ORDER), (9, "b", ORDER)])
    assert applied(spark, flow(None)) == applied(ours, flow(None))
    spark, ours = both(tmp_path, [(5, "a", None), (6, "x", None)])
    assert applied(spark, flow(engine)) == applied(ours, flow(None))
    spark, ours = both(tmp_path, [(3, "a", ORDER), (4, "x", ORDER), (8, "b", {})])
    found = applied(spark, flow(engine))
    assert found == applied(ours, flow(None))
    assert len(found[1]) == 1
    known = [Tombstones(Layout(str(one)), "d", "orders") for one in (spark, ours)]
    keys = pa.chunked_array([["2:idS1:a", "2:idS1:x"]])
    seen = [
        sorted(map(repr, one.for_keys(keys).select(KEYED_CHANGES_SCHEMA.names).to_pylist()))
        for one in known
    ]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("mode", ["merge", "append"])
def test_of_two_runs_at_once_one_loses_and_nothing_is_doubled(
    engine: SparkEngine, tmp_path: Path, mode: Literal["merge", "append"]
) -> None:
    """A run of our own engine commits in the last moment before Spark."""
    spark, ours = both(tmp_path, [(1, "a", ORDER), (2, "b", {})])
    interfere = partial(apply_transform, flow(None, mode=mode), Layout(str(spark)))
    with at_point(crash_points.AFTER_TOMBSTONES, interfere):
        apply_transform(flow(engine, mode=mode), Layout(str(spark)))
    assert rows(spark) == applied(ours, flow(None, mode=mode))


@pytest.mark.parametrize(
    "point", [crash_points.AFTER_TOMBSTONES, crash_points.AFTER_DATASET_COMMIT]
)
def test_a_run_that_dies_is_repeated(engine: SparkEngine, tmp_path: Path, point: str) -> None:
    spark, ours = both(tmp_path, [(1, "a", ORDER), (2, "b", ORDER), (3, "a", None)])
    with crash_at(point), pytest.raises(Crash):
        apply_transform(flow(engine), Layout(str(spark)))
    assert applied(spark, flow(engine)) == applied(ours, flow(None))


class IgnoresTransactions:
    """A server that speaks the same protocol and drops what a commit has to carry."""

    def __init__(self, server: spark_server.SparkServer) -> None:
        self._server = server

    def run(self, statement: str, settings: Any = None) -> pa.Table:
        kept = {name: value for name, value in (settings or {}).items() if "txn" not in name}
        return self._server.run(statement, kept)


def test_a_server_that_ignores_transactions_is_refused(engine: SparkEngine, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    server = IgnoresTransactions(spark_server.connected(engine))
    with pytest.raises(SparkError, match="landed 2 times"):
        probe_server.require_fit(server, engine, layout, lambda uri: uri)
    probe_server.require_fit(spark_server.connected(engine), engine, layout, lambda uri: uri)
    assert not list((tmp_path / "_spark_probe").glob("*"))


def test_sail_is_refused(tmp_path: Path) -> None:
    """Sail speaks Spark Connect and writes Delta tables, but not their transactions."""
    if importlib.util.find_spec("pysail") is None:
        pytest.skip("no Sail here: `make test-spark` installs it where there is a wheel")
    land(tmp_path, [(1, "a", ORDER)])
    with sail_server(tmp_path) as url, pytest.raises(SparkError) as refused:
        apply_transform(flow(SparkEngine(url)), Layout(str(tmp_path)))
    assert "Use Apache Spark 4 with Delta Lake 4" in str(refused.value)
    assert not (tmp_path / "d").exists()
