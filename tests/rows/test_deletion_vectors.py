"""The setting `deletion_vectors`: it changes how rows are removed, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.delta import create_table, open_table, transaction
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.rows import removal_policy
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.engines import AutoEngine
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream
from tests.rows.engine_conformance import SCHEMA, KeyedChange, batch_of
from tests.tables import table_at

ROWS = 400
"""Enough rows that maintenance leaves files with a few hidden rows alone."""

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")


def flow_with(deletion_vectors: Literal["auto"] | bool) -> Transform:
    @transform(
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={
            "current": Output(Dataset(id="current", deletion_vectors=deletion_vectors))
        },
    )
    def flow(orders: Frame) -> Any:
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")

    return flow


def put(stream: ScriptedStream, numbers: range, total: int) -> None:
    for number in numbers:
        stream.put({"id": {"S": f"k{number}"}, "total": {"N": str(total)}})


def run(flow: Transform, layout: Layout, stream: ScriptedStream) -> Any:
    drain_once(SOURCE, stream, layout)
    return apply_transform(flow, layout)["current"]


@pytest.mark.parametrize("setting", ["auto", True, False])
def test_rows_are_the_same_whatever_the_setting(
    tmp_path: Path, setting: Literal["auto"] | bool
) -> None:
    stream, layout, flow = ScriptedStream(shards=1), Layout(str(tmp_path)), flow_with(setting)
    put(stream, range(ROWS), 1)
    run(flow, layout, stream)
    put(stream, range(0, ROWS, 40), 2)
    stream.delete({"id": {"S": "k1"}})
    report = run(flow, layout, stream)
    assert report.deletion_vectors is (setting is True)
    assert (report.row_count, report.rows_hidden) == (ROWS - 1, 11 if setting is True else 0)
    table = DeltaTable(layout.dataset("current"))
    rows = {row["id"]: row["total"] for row in pa.table(table.scan()).to_pylist()}
    expected = {f"k{n}": "2" if n % 40 == 0 else "1" for n in range(ROWS) if n != 1}
    assert rows == expected
    if setting is not True:
        assert table.to_pyarrow_table().num_rows == ROWS - 1, "readers without vectors open it"


def test_a_table_switches_once_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = str(tmp_path / "t")
    create_table(uri, {}, KIND, SCHEMA)

    def merge(keyed_changes: list[KeyedChange], rewrite_bytes: int) -> None:
        table = open_table(uri, {}, KIND)
        assert table is not None
        number = (table.transaction_version("t") or 0) + 1
        target = MergeTarget("t", table_at(table), SCHEMA)
        AutoEngine(rewrite_bytes).merge(target, batch_of(keyed_changes), transaction("t", number))

    keys = [f"k{n}" for n in range(50)]
    merge([(key, 1, (1,)) for key in keys], rewrite_bytes=1000)
    merge([(keys[0], 2, (2,))], rewrite_bytes=10**6)
    assert not snapshot(uri).writes_vectors
    with caplog.at_level(logging.WARNING):
        merge([(keys[1], 2, (2,))], rewrite_bytes=1000)
    assert snapshot(uri).writes_vectors
    assert "has deletion vectors from now on" in caplog.text
    caplog.clear()
    merge([(keys[2], 2, (2,))], rewrite_bytes=10**9)
    assert snapshot(uri).deleted_rows == 2, "no way back, however little there is to rewrite"
    assert not caplog.records
    assert [entry["operation"] for entry in DeltaTable(uri).history()].count(
        "SET TBLPROPERTIES"
    ) == 1


def snapshot(uri: str) -> Any:
    return read_snapshot(DeltaTable(uri), {})


def test_setting_it_to_false_stops_new_vectors_and_preserves_the_rows(tmp_path: Path) -> None:
    stream, layout = ScriptedStream(shards=1), Layout(str(tmp_path))
    put(stream, range(ROWS), 1)
    run(flow_with(True), layout, stream)
    put(stream, range(5), 2)
    assert run(flow_with(True), layout, stream).rows_hidden == 5
    put(stream, range(3, 8), 3)
    report = run(flow_with(False), layout, stream)
    assert (report.row_count, report.rows_hidden) == (ROWS, 0)


def test_files_whose_rows_are_all_gone_leave(tmp_path: Path) -> None:
    stream, layout, flow = ScriptedStream(shards=1), Layout(str(tmp_path)), flow_with(True)
    put(stream, range(10), 1)
    run(flow, layout, stream)
    for total in (2, 3):
        put(stream, range(0, 10, 2), total)
        run(flow, layout, stream)
    put(stream, range(1, 10, 2), 4)
    run(flow, layout, stream)
    state = snapshot(layout.dataset("current"))
    assert len(state.files) == 2, "the first file and the second lost all their rows"
    assert (state.live_rows, state.deleted_rows) == (10, 0)


def test_statistics_of_a_hidden_row_stay_true_bounds(tmp_path: Path) -> None:
    stream, layout, flow = ScriptedStream(shards=1), Layout(str(tmp_path)), flow_with(True)
    put(stream, range(ROWS), 1)
    run(flow, layout, stream)
    put(stream, range(1), 2)
    run(flow, layout, stream)
    hidden = next(f for f in snapshot(layout.dataset("current")).files if f.vector)
    assert '"tightBounds":false' in hidden.add["stats"]
    assert hidden.num_records == ROWS
    assert hidden.minimum["id"] == "k0"


def test_a_backlog_that_rewrites_a_small_table_again_and_again_gives_it_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Six batches on the same rows, a merge each: together they would rewrite what is too much."""
    monkeypatch.setattr(removal_policy, "BACKLOG_REWRITE_BYTES", 20_000)
    batch = ApplySettings(chunk_bytes=1)

    def after(name: str, batches: int) -> Any:
        stream, layout = ScriptedStream(shards=1), Layout(str(tmp_path / name))
        put(stream, range(ROWS), 1)
        run(flow_with("auto"), layout, stream)
        for total in range(2, 2 + batches):
            put(stream, range(0, ROWS, 40), total)
            drain_once(SOURCE, stream, layout)
        return apply_transform(flow_with("auto"), layout, settings=batch)["current"]

    assert after("two", 2).deletion_vectors is False
    long = after("many", 12)
    assert (long.chunks, long.deletion_vectors, long.row_count) == (12, True, ROWS)
    assert "the backlog brings about 11 more" in caplog.text
