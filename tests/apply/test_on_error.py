"""A function that raises: the run fails, or the failing changes are quarantined."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once, quarantine_report, read_dataset
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders")


def by_python(orders: Frame) -> pa.Table:
    """Python code that raises on a total below 0."""
    rows = orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total").arrow()
    for total in rows["total"].to_pylist():
        if total is not None and int(total) < 0:
            raise ValueError(f"total {total}")
    return rows


def by_sql(orders: Frame) -> Frame:
    """SQL that runs only after the function has returned."""
    return orders.select(
        "dynamodb.Keys.id.S as id",
        "case when dynamodb.NewImage.total.N like '-%' then cast('x' || dynamodb.NewImage.total.N "
        "as bigint) else cast(dynamodb.NewImage.total.N as bigint) end as total",
    )


def build(
    function: Callable[..., Any], on_error: Any, mode: Any = "merge", limit: float = 0.1
) -> Transform:
    return transform(
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"out": Output(Dataset("out", mode=mode, quarantine_limit=limit))},
        on_error=on_error,
        name="totals",
    )(function)


def put(stream: ScriptedStream, key: str, total: int) -> None:
    stream.put({"id": {"S": key}, "total": {"N": str(total)}})


def land(stream: ScriptedStream, layout: Layout) -> None:
    while not drain_once(SOURCE, stream, layout).caught_up:
        pass


def rows(layout: Layout) -> list[tuple[str, int | None]]:
    table = read_dataset(layout, "out").sort_by("_dz_version")
    return [
        (row["id"], None if row["total"] is None else int(row["total"]))
        for row in table.to_pylist()
    ]


def waiting(layout: Layout) -> list[tuple[str, str]]:
    """Return total and reason of the quarantined changes, oldest first."""
    table = Quarantine(layout, "out").waiting().sort_by("version")
    return [
        (json.loads(row["new_image"])["total"]["N"], row["reason"]) for row in table.to_pylist()
    ]


@pytest.mark.parametrize("function", [by_python, by_sql])
def test_fail_names_the_chunk_and_keys_and_commits_nothing(
    function: Callable[..., Any], tmp_path: Path
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    put(stream, "a", 1)
    put(stream, "b", -2)
    land(stream, layout)
    with pytest.raises(TransformError) as caught:
        apply_transform(build(function, "fail"), layout)
    for words in (
        "batches 1 to 1",
        "2 changes",
        '{"id":{"S":"a"}}, {"id":{"S":"b"}}',
        "next run tries again",
    ):
        assert words in str(caught.value)
    assert DatasetTable(layout, "out", "orders", mode="merge").position() == 0
    assert not (tmp_path / "_quarantine").exists()
    fixed = build(
        lambda orders: orders.select(
            "dynamodb.Keys.id.S as id", "abs(cast(dynamodb.NewImage.total.N as bigint)) as total"
        ),
        "fail",
    )
    apply_transform(fixed, layout)
    assert rows(layout) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("function", [by_python, by_sql])
def test_failing_changes_are_quarantined_and_the_rest_is_applied(
    function: Callable[..., Any], tmp_path: Path
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for number in range(200):
        put(stream, f"k{number}", -number if number in (17, 18, 150) else number)
    land(stream, layout)
    report = apply_transform(build(function, "quarantine"), layout)["out"]
    assert report.quarantined == 3
    assert report.position == report.head == 1
    assert [total for total, _ in waiting(layout)] == ["-17", "-18", "-150"]
    assert all(reason.startswith("the function failed: ") for _, reason in waiting(layout))
    expected = [(f"k{n}", n) for n in range(200) if n not in (17, 18, 150)]
    assert rows(layout) == expected


def test_changes_that_fail_alike_have_one_reason(tmp_path: Path) -> None:
    """So `redrive --list` shows one line with a count, whatever the number of keys."""

    def no_number(orders: Frame) -> Frame:
        return orders.select(
            "dynamodb.Keys.id.S as id",
            "case when dynamodb.NewImage.total.N like '-%' then cast('x' as bigint) end as total",
        )

    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for number in range(200):
        put(stream, f"k{number}", -number if number in (17, 18, 150) else number)
    land(stream, layout)
    apply_transform(build(no_number, "quarantine"), layout)
    ((reason, records),) = quarantine_report(build(no_number, "fail"), "out", layout).reasons
    assert records == 3
    assert reason.endswith("Could not convert string 'x' to INT64.")


def test_in_merge_mode_the_newest_change_that_passes_counts(tmp_path: Path) -> None:
    """Each change carries the full item, so a later one loses nothing of the quarantined one."""
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for key, total in (("a", 1), ("a", -2), ("a", 3), ("b", 5), ("b", -6)):
        put(stream, key, total)
    land(stream, layout)
    apply_transform(build(by_python, "quarantine"), layout)
    assert rows(layout) == [("a", 3), ("b", 5)]
    put(stream, "b", 7)
    land(stream, layout)
    apply_transform(build(by_python, "quarantine"), layout)
    assert rows(layout) == [("a", 3), ("b", 7)]
    assert [total for total, _ in waiting(layout)] == ["-2", "-6"]


def test_in_append_mode_later_changes_of_the_key_wait_behind_it(tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    appended = build(by_python, "quarantine", mode="append")
    for key, total in (("a", 1), ("a", -2), ("a", 3), ("b", 5)):
        put(stream, key, total)
    land(stream, layout)
    apply_transform(appended, layout)
    assert rows(layout) == [("a", 1), ("b", 5)]
    put(stream, "a", 4)
    put(stream, "b", 6)
    land(stream, layout)
    apply_transform(appended, layout)
    assert rows(layout) == [("a", 1), ("b", 5), ("b", 6)]
    assert [total for total, _ in waiting(layout)] == ["-2", "3", "4"]
    assert [reason for _, reason in waiting(layout)][1:] == [
        "it waits behind an earlier change of its key"
    ] * 2


def test_a_chunk_of_failing_changes_only(tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    put(stream, "a", -1)
    land(stream, layout)
    report = apply_transform(build(by_python, "quarantine"), layout)["out"]
    assert (report.position, report.quarantined, report.row_count) == (1, 1, 0)
    put(stream, "b", 2)
    land(stream, layout)
    apply_transform(build(by_python, "quarantine"), layout)
    assert rows(layout) == [("b", 2)]


def test_broken_code_fails_the_run_instead_of_emptying_it_into_the_quarantine(
    tmp_path: Path,
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for number in range(100):
        put(stream, f"k{number}", number)
    land(stream, layout)
    misspelt = build(lambda orders: orders.select("dynamodb.NewImage.total.N + 'x'"), "quarantine")
    with pytest.raises(TransformError, match="every one of the first 16 keys"):
        apply_transform(misspelt, layout)
    lost = build(lambda orders: pa.table({"a": [1]}), "quarantine")
    with pytest.raises(TransformError, match="have lost"):
        apply_transform(lost, layout)
    assert not (tmp_path / "_quarantine").exists()
    assert DatasetTable(layout, "out", "orders", mode="merge").position() == 0


def test_many_bad_keys_do_not_stop_a_dataset(tmp_path: Path) -> None:
    """More than the number that is always quarantined, and fewer than the limit."""
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for number in range(200):
        put(stream, f"k{number}", -1 if number % 11 == 5 else number)
    land(stream, layout)
    report = apply_transform(build(by_python, "quarantine"), layout)["out"]
    assert (report.quarantined, report.row_count) == (18, 182)


def test_a_larger_share_than_the_limit_fails_the_run(tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for number in range(40):
        put(stream, f"k{number}", -1 if number % 2 else number)
    land(stream, layout)
    with pytest.raises(TransformError, match=r"16 or more of 40 keys.*limit=0\.1 allows"):
        apply_transform(build(by_python, "quarantine"), layout)
    assert not (tmp_path / "_quarantine").exists()
    report = apply_transform(build(by_python, "quarantine", limit=0.5), layout)["out"]
    assert (report.quarantined, report.row_count) == (20, 20)


def test_looking_for_failing_rows_leaves_no_trace_in_the_columns(tmp_path: Path) -> None:
    """Columns come from the accepted changes, in their order, not from the search."""

    def typed(orders: Frame) -> Frame:
        items = orders.items()
        if pc.any(pc.less(items.arrow()["total"], 0)).as_py():
            raise ValueError("below 0")
        return items

    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    stream.put({"id": {"S": "a"}, "total": {"N": "1"}, "first": {"S": "x"}})
    stream.put({"id": {"S": "b"}, "total": {"N": "-1"}, "only_bad": {"S": "x"}})
    stream.put({"id": {"S": "c"}, "total": {"N": "2"}, "second": {"S": "x"}})
    put(stream, "d", 3)  # c and d pass together, before a is tried alone
    land(stream, layout)
    apply_transform(build(typed, "quarantine"), layout)
    columns = [name for name in read_dataset(layout, "out").column_names if name[0] != "_"]
    assert columns == ["id", "total", "first", "second"]


def read_in_the_function(orders: Frame) -> pa.Table:
    return by_sql(orders).arrow()


@pytest.mark.parametrize("function", [by_sql, read_in_the_function])
def test_an_error_of_sql_names_the_key_with_the_bad_value(
    function: Callable[..., Any], tmp_path: Path
) -> None:
    stream, layout = ScriptedStream("orders"), Layout(str(tmp_path))
    for number in range(40):
        put(stream, f"k{number}", -1 if number == 27 else number)
    land(stream, layout)
    with pytest.raises(TransformError, match=r"fails alone has the key .*k27") as caught:
        apply_transform(build(function, "fail"), layout)
    assert "k28" not in str(caught.value)
