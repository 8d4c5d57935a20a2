"""Quarantined records are redriven: once, in order, despite crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import Transform
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.quarantine_rows import RECORD_ID
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    quarantine_report,
    read_dataset,
    redrive_dataset,
)
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, FixedClock, ScriptedStream, at_point, crash_at
from tests.apply.test_on_error import build, by_python, land, put, rows, waiting
from tests.examples import examples

POINTS = (
    crash_points.AFTER_REDRIVE_PIN,
    crash_points.BEFORE_DATASET_COMMIT,
    crash_points.AFTER_DATASET_COMMIT,
)


def fixed(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")


def flow(function: Callable[..., Any], mode: str = "merge") -> Transform:
    return build(function, "quarantine", mode=mode)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path))


def quarantined(layout: Layout, stream: ScriptedStream, mode: str = "merge") -> None:
    """Apply a: 1, -2, 3; b: 5, -6; c: -7. The function fails below 0."""
    for key, total in (("a", 1), ("a", -2), ("a", 3), ("b", 5), ("b", -6), ("c", -7)):
        put(stream, key, total)
    land(stream, layout)
    apply_transform(flow(by_python, mode), layout)


def test_records_come_back_and_newer_rows_stay(layout: Layout) -> None:
    quarantined(layout, ScriptedStream())
    assert rows(layout) == [("a", 3), ("b", 5)]
    report = redrive_dataset(flow(fixed), "out", layout)
    assert rows(layout) == [("a", 3), ("b", -6), ("c", -7)]
    assert (report.redriven, report.waiting) == (3, 0)
    assert (report.counts.inserted, report.counts.updated) == (1, 1)
    assert redrive_dataset(flow(fixed), "out", layout).redriven == 0


def test_append_mode_gets_every_event_once_and_each_key_in_order(layout: Layout) -> None:
    stream = ScriptedStream()
    quarantined(layout, stream, "append")
    assert rows(layout) == [("a", 1), ("b", 5)]
    before = read_dataset(layout, "out")
    report = redrive_dataset(flow(fixed, "append"), "out", layout)
    assert (report.redriven, report.waiting) == (4, 0)
    assert rows(layout) == [("a", 1), ("a", -2), ("a", 3), ("b", 5), ("b", -6), ("c", -7)]
    after = read_dataset(layout, "out")
    assert len(after) == len(before) + 4
    put(stream, "a", 8)
    land(stream, layout)
    apply_transform(flow(by_python, "append"), layout)
    assert rows(layout)[-1] == ("a", 8)


def test_still_failing_records_go_on_waiting_with_those_behind_them(layout: Layout) -> None:
    def half_fixed(orders: Frame) -> Frame:
        if any(row["total"] == "-2" for row in fixed(orders).arrow().to_pylist()):
            raise ValueError("still -2")
        return fixed(orders)

    quarantined(layout, ScriptedStream(), "append")
    small = ApplySettings(chunk_bytes=1)  # portions of one record: keys are remembered
    report = redrive_dataset(flow(half_fixed, "append"), "out", layout, settings=small)
    assert (report.redriven, report.waiting) == (2, 2)
    assert rows(layout) == [("a", 1), ("b", 5), ("b", -6), ("c", -7)]
    assert waiting(layout) == [
        ("-2", "the function failed: ValueError: still -2"),
        ("3", "it waits behind an earlier change of its key"),
    ]
    assert set(report.reasons) == {(reason, 1) for _, reason in waiting(layout)}


def test_with_on_error_fail_a_redrive_that_raises_changes_nothing(layout: Layout) -> None:
    quarantined(layout, ScriptedStream())
    with pytest.raises(TransformError, match="3 quarantined records, 3 changes"):
        redrive_dataset(build(by_python, "fail"), "out", layout)
    assert rows(layout) == [("a", 3), ("b", 5)]
    assert quarantine_report(flow(fixed), "out", layout).waiting == 3


@pytest.mark.parametrize("mode", ["merge", "append"])
@pytest.mark.parametrize("point", POINTS)
def test_a_redrive_that_dies_neither_loses_nor_doubles(
    layout: Layout, mode: str, point: str
) -> None:
    quarantined(layout, ScriptedStream(), mode)
    with pytest.raises(Crash), crash_at(point):
        redrive_dataset(flow(fixed, mode), "out", layout)
    redrive_dataset(flow(fixed, mode), "out", layout)
    expected = {
        "merge": [("a", 3), ("b", -6), ("c", -7)],
        "append": [("a", 1), ("a", -2), ("a", 3), ("b", 5), ("b", -6), ("c", -7)],
    }
    assert rows(layout) == expected[mode]
    assert quarantine_report(flow(fixed, mode), "out", layout).waiting == 0
    redriven = Quarantine(layout, "out").start_redrive()
    assert redriven is not None
    assert not len(redriven.records(0))


@pytest.mark.parametrize("mode", ["merge", "append"])
@pytest.mark.parametrize(
    "point", [crash_points.AFTER_REDRIVE_PIN, crash_points.BEFORE_DATASET_COMMIT]
)
def test_a_run_at_the_worst_moment_of_a_redrive(layout: Layout, mode: str, point: str) -> None:
    stream = ScriptedStream()
    quarantined(layout, stream, mode)
    put(stream, "d", 4)
    put(stream, "c", -8)
    land(stream, layout)
    with at_point(point, lambda: apply_transform(flow(by_python, mode), layout)):
        redrive_dataset(flow(fixed, mode), "out", layout)
    redrive_dataset(flow(fixed, mode), "out", layout)
    assert sorted(rows(layout))[-1] == ("d", 4)
    found = rows(layout)
    assert ("c", -8) in found
    assert found.count(("c", -7)) == (1 if mode == "append" else 0)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "point", [crash_points.BEFORE_DATASET_COMMIT, crash_points.BEFORE_LOG_ENTRY]
)
def test_a_key_that_a_run_deletes_during_a_redrive_does_not_come_back(
    layout: Layout, point: str
) -> None:
    stream = ScriptedStream()
    quarantined(layout, stream)
    stream.delete({"id": {"S": "c"}})
    land(stream, layout)
    with at_point(point, lambda: apply_transform(flow(by_python), layout)):
        redrive_dataset(flow(fixed), "out", layout)
    redrive_dataset(flow(fixed), "out", layout)
    assert rows(layout) == [("a", 3), ("b", -6)]
    assert quarantine_report(flow(fixed), "out", layout).waiting == 0


def test_two_redrives_at_once(layout: Layout) -> None:
    quarantined(layout, ScriptedStream(), "append")
    other = lambda: redrive_dataset(flow(fixed, "append"), "out", layout)  # noqa: E731
    for point in POINTS[:2]:
        with at_point(point, other):
            redrive_dataset(flow(fixed, "append"), "out", layout)
    assert rows(layout) == [("a", 1), ("a", -2), ("a", 3), ("b", 5), ("b", -6), ("c", -7)]


def test_a_record_of_a_chunk_that_is_not_committed_is_left_to_the_run(layout: Layout) -> None:
    """The run died between quarantine and dataset: its chunk is applied again, with the record."""
    stream = ScriptedStream()
    put(stream, "a", -1)
    put(stream, "b", 2)
    land(stream, layout)
    with pytest.raises(Crash), crash_at(crash_points.AFTER_QUARANTINE):
        apply_transform(flow(by_python, "append"), layout)
    assert redrive_dataset(flow(fixed, "append"), "out", layout).redriven == 0
    apply_transform(flow(fixed, "append"), layout)  # fixed meanwhile: takes the record itself
    assert rows(layout) == [("a", -1), ("b", 2)]
    redrive_dataset(flow(fixed, "append"), "out", layout)
    assert rows(layout) == [("a", -1), ("b", 2)]
    assert quarantine_report(flow(fixed, "append"), "out", layout).waiting == 0


def test_a_key_deleted_since_does_not_come_back_however_late_the_redrive(layout: Layout) -> None:
    clock, stream = FixedClock(), ScriptedStream()
    put(stream, "a", -1)
    land(stream, layout)
    apply_transform(flow(by_python), layout, clock=clock)
    stream.delete({"id": {"S": "a"}})
    land(stream, layout)
    apply_transform(flow(by_python), layout, clock=clock)
    clock.advance(timedelta(days=30))
    put(stream, "b", 1)
    stream.delete({"id": {"S": "b"}})
    land(stream, layout)
    apply_transform(flow(by_python), layout, clock=clock)  # drops expired tombstones
    redrive_dataset(flow(fixed), "out", layout, clock=clock)
    assert rows(layout) == []


def test_records_that_are_no_stream_records_stay(layout: Layout) -> None:
    stream = ScriptedStream()
    stream.malformed(b'{"eventName": "INSERT"}')
    stream.malformed(b"not even JSON \xff")
    put(stream, "a", 1)
    land(stream, layout)
    apply_transform(flow(by_python), layout)
    report = redrive_dataset(flow(fixed), "out", layout)
    assert (report.redriven, report.waiting) == (0, 2)
    assert report.reasons == (("not a stream record", 2),)


def test_a_record_that_the_parser_has_learnt_to_read_comes_back(layout: Layout) -> None:
    """An older version refused the record; now it parses, and is applied in its original order."""
    stream = ScriptedStream()
    put(stream, "a", 1)
    change = stream.changes[-1]
    record = {
        "eventID": "e1",
        "eventName": "MODIFY",
        "dynamodb": {
            "ApproximateCreationDateTime": change.created_at,
            "Keys": {"id": {"S": "a"}},
            "NewImage": {"id": {"S": "a"}, "total": {"N": "2"}},
            "SequenceNumber": str(change.sequence_number + 1),
        },
    }
    stream.malformed(json.dumps(record).encode())
    put(stream, "b", 3)
    land(stream, layout)
    apply_transform(flow(by_python), layout)
    assert rows(layout) == [("a", 1), ("b", 3)]
    assert redrive_dataset(flow(fixed), "out", layout).redriven == 1
    assert ("a", 2) in rows(layout)
    assert quarantine_report(flow(fixed), "out", layout).waiting == 0


@settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-3, 3)), min_size=1, max_size=12
    ),
    mode=st.sampled_from(["merge", "append"]),
    points=st.lists(st.sampled_from(POINTS), max_size=3),
    batches=st.integers(1, 3),
)
def test_after_a_redrive_it_is_as_if_the_function_had_never_failed(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, int]],
    mode: str,
    points: list[str],
    batches: int,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    stream = ScriptedStream()
    for start in range(0, len(changes), -(-len(changes) // batches)):
        for key, total in changes[start : start + -(-len(changes) // batches)]:
            put(stream, key, total)
        land(stream, layout)
        apply_transform(flow(by_python, mode), layout)
    for point in points:
        try:
            with crash_at(point):
                redrive_dataset(flow(fixed, mode), "out", layout)
        except Crash:
            continue
    redrive_dataset(flow(fixed, mode), "out", layout)
    made = [
        (json.loads(c.keys)["id"]["S"], json.loads(c.new_image or b"")["total"]["N"])
        for c in stream.changes
    ]
    expected = [(key, int(total)) for key, total in made]
    if mode == "merge":
        expected = list(dict(expected).items())
    assert sorted(rows(layout)) == sorted(expected)
    left = Quarantine(layout, "out").waiting()
    assert len(left) == len(set(left[RECORD_ID].to_pylist())) == 0
