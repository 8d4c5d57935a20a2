"""Chunks with every change that are merged together: the dataset is as if they came one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.errors import ResultError, TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.pipeline import apply_transform, read_dataset
from tests.apply.test_latest_parts import BATCH, CHANGES, SOURCE, Item, contents, land, record
from tests.apply.test_row_wise_functions import statuses
from tests.examples import examples

FREE = ApplySettings()
"""Chunks of any size; with `batch_by_batch`, the function still gets one batch at a time."""


@pytest.fixture
def batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChunkSizes, "full_bytes", 1)


def applied(
    layout: Layout, function: Any, bounds: ApplySettings = FREE, name: str = "rows", **dataset: Any
) -> ApplyReport:
    flow = transform(
        name=name,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={name: Output(Dataset(id=name, **dataset))},
    )(function)
    return apply_transform(flow, layout, settings=bounds)[name]


def of(key: str, status: str) -> tuple[str, Item]:
    return key, {"status": {"S": status}}


@settings(max_examples=examples(10), deadline=None)
@given(
    batches=st.lists(st.lists(CHANGES, min_size=1, max_size=6), min_size=2, max_size=5),
    late=st.lists(CHANGES, max_size=3),
)
def test_datasets_are_as_from_one_merge_a_chunk(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, Item | None]]],
    late: list[tuple[str, Item | None]],
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    land(layout, batches)
    older = [record(at, *change) for at, change in enumerate(late, -100)]
    if older:  # versions below those of the batches before
        log = ChangeLog(layout, "orders").open_or_create()
        log.append(1, [ShardRecords("arn", "s", None, older)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkSizes, "full_bytes", 1)
        together = applied(layout, statuses, FREE, "together")
    apart = applied(layout, statuses, BATCH, "apart")
    assert contents(layout, "together") == contents(layout, "apart")
    assert (together.position, together.records) == (apart.position, apart.records)
    assert together.record_bytes == apart.record_bytes
    assert (together.event_time_min, together.event_time_max) == (
        apart.event_time_min,
        apart.event_time_max,
    )
    assert together.chunks == 1
    assert apart.chunks == len(batches) + bool(older)


@pytest.mark.usefixtures("batch_by_batch")
def test_the_function_gets_each_chunk_once(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", str(at)), of("b", str(at))] for at in range(5)])
    given_: list[int] = []

    def watched(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        given_.append(len(rows))
        return rows

    report = applied(layout, watched)
    assert (report.chunks, report.row_count, given_) == (1, 2, [2] * 5)


@pytest.mark.usefixtures("batch_by_batch")
def test_chunks_of_other_columns_are_merged_apart_and_computed_once(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", "1")], [of("b", "2")], [of("c", "wide")], [of("a", "3")]])
    calls: list[str] = []

    def widening(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        calls.append(rows["status"][0].as_py())
        if "wide" in calls:
            rows = rows.append_column("more", pa.array([1] * len(rows)))
        return rows

    report = applied(layout, widening)
    assert (report.chunks, calls) == (2, ["1", "2", "wide", "3"])
    assert {row["id"]: row.get("more") for row in contents(layout, "rows")} == {
        "a": 1,
        "b": None,
        "c": 1,
    }


@pytest.mark.usefixtures("batch_by_batch")
def test_what_comes_before_a_failure_is_applied(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", "1")], [of("b", "2")], [of("c", "bad")]])

    def picky(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        if "bad" in rows["status"].to_pylist():
            raise ValueError("bad")
        return rows

    with pytest.raises(TransformError, match="bad"):
        applied(layout, picky)
    assert {row["id"] for row in contents(layout, "rows")} == {"a", "b"}


@pytest.mark.usefixtures("batch_by_batch")
def test_a_chunk_with_a_bad_record_is_merged_alone(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", "1")], [of("b", "2")]])
    bad = record(9000, "a", {})._replace(new_image=b'{"cut')
    ChangeLog(layout, "orders").open_or_create().append(1, [ShardRecords("arn", "s", None, [bad])])
    report = applied(layout, lambda orders: orders.items().arrow())
    assert (report.chunks, report.quarantined, report.row_count) == (2, 1, 2)


@pytest.mark.usefixtures("batch_by_batch")
def test_a_row_of_no_change_is_refused(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", "1")], [of("a", "2")]])

    def foreign(orders: Frame) -> pa.Table:
        rows = statuses(orders)
        keys = pa.array(["1:idS1:z"] * len(rows))
        return rows.set_column(rows.column_names.index("_dz_key"), "_dz_key", keys)

    with pytest.raises(ResultError, match="not a change of this chunk"):
        applied(layout, foreign)


@pytest.mark.usefixtures("batch_by_batch")
@pytest.mark.parametrize(
    "dataset", [{"mode": "append"}, {"mode": "history"}, {"deletes": "soft"}], ids=str
)
def test_where_every_change_counts_chunks_are_not_joined(
    tmp_path: Path, dataset: dict[str, Any]
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", "1")], [of("a", "2")], [of("a", "3")]])
    assert applied(layout, statuses, **dataset).chunks == 3
    expected = {"append": 3, "history": 3}.get(dataset.get("mode", ""), 1)
    assert len(read_dataset(layout, "rows")) == expected


def test_a_fixed_chunk_size_is_one_merge_a_chunk(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[of("a", "1")], [of("a", "2")]])
    assert applied(layout, statuses, BATCH).chunks == 2


@pytest.mark.usefixtures("batch_by_batch")
def test_reports_of_joined_chunks_are_sums(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    number = {"total": {"N": "1"}}
    land(layout, [[("a", number), ("b", {"total": {"S": "x"}})], [("c", {"total": {"S": "y"}})]])

    def totals(orders: Frame) -> pa.Table:
        return orders.select("dynamodb.NewImage.total.N as total").arrow()

    report = applied(layout, totals)
    assert report.chunks == 1
    assert [(one.attribute, one.changes) for one in report.mismatches] == [("total", 2)]
    assert json.dumps(contents(layout, "rows"), default=str).count('"total"') == 1
