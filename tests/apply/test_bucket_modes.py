"""Datasets with buckets in every mode: the rows are those of one run without buckets."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.companion_table import CompanionTable
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    backlog,
    open_erasure,
    read_dataset,
    rebuild_dataset,
    records_waiting,
    redrive_dataset,
)
from datazone_dagster.process import crash_points
from datazone_dagster.rows.bucket_files import tag_in
from datazone_dagster.rows.streamed_rows import StreamedRows
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.apply.test_buckets import (
    BATCH,
    LATER,
    MANY,
    SOURCE,
    Change,
    land,
    operations,
    slots_of_ids,
)
from tests.examples import LONG

SETTINGS: dict[str, dict[str, Any]] = {
    "append": {"mode": "append"},
    "history": {"mode": "history"},
    "marked history": {"mode": "history", "deletes": "soft"},
    "soft": {"deletes": "soft"},
}
KINDS = list(SETTINGS)
FEW = KINDS if LONG else ["history"]


def flow(dataset_id: str, buckets: int, kind: str, fails_on: str = "") -> Transform:
    """Return a transform; its function fails on items that have a value."""

    @transform(
        name=dataset_id,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"out": Output(Dataset(dataset_id, buckets=buckets, **SETTINGS[kind]))},
        on_error="quarantine",
    )
    def function(orders: Frame) -> Frame:
        rows = orders.select(
            "dynamodb.Keys.id.S as id",
            *(f"dynamodb.NewImage.a{at}.S as a{at}" for at in range(3)),
        )
        if fails_on and any(fails_on in one.values() for one in rows.arrow().to_pylist()):
            raise ValueError(fails_on)
        return rows

    return function


def rows_of(layout: Layout, dataset_id: str) -> list[list[tuple[str, object]]]:
    return sorted(([*row.items()] for row in read_dataset(layout, dataset_id).to_pylist()), key=str)


def apply_all(
    layout: Layout, of: int, kind: str, dataset_id: str = "d", fails_on: str = ""
) -> None:
    for bucket in key_buckets(of):
        apply_transform(flow(dataset_id, of, kind, fails_on), layout, bucket=bucket)


def same_as_one_run(layout: Layout, kind: str) -> bool:
    apply_all(layout, 1, kind, "whole")
    return rows_of(layout, "d") == rows_of(layout, "whole")


CHANGES = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["x", "y", None])), min_size=1)
POINTS = [
    crash_points.AFTER_TOMBSTONES,
    crash_points.BEFORE_LOG_ENTRY,
    crash_points.AFTER_DATASET_COMMIT,
]


@settings(
    max_examples=40 if LONG else 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    batches=st.lists(CHANGES, min_size=1, max_size=4),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_buckets_in_any_order_and_number_give_the_rows_of_one_run(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[Change]],
    kind: str,
    data: st.DataObject,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    for changes in batches:
        land(layout, changes)
        of = data.draw(st.sampled_from([1, 2, 4]), "number of buckets")
        for bucket in data.draw(st.lists(st.sampled_from(key_buckets(of)), max_size=2), "runs"):
            point = data.draw(st.sampled_from([None, *POINTS]), "death")
            nth = data.draw(st.integers(1, 2), "nth chunk")
            with suppress(Crash), crash_at(point or POINTS[0], nth if point else 99):
                apply_transform(flow("d", of, kind), layout, settings=BATCH, bucket=bucket)
    last = data.draw(st.sampled_from([1, 2, 4]), "last number of buckets")
    for bucket in key_buckets(last) * 2:
        apply_transform(flow("d", last, kind), layout, settings=BATCH, bucket=bucket)
    assert same_as_one_run(layout, kind)
    assert backlog("orders", "d", layout).records == 0


@pytest.mark.parametrize("kind", FEW)
def test_another_bucket_that_commits_meanwhile_does_not_make_a_run_fail(
    tmp_path: Path, kind: str
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2, kind)
    land(layout, LATER)
    land(layout, MANY[:30])
    first, second = key_buckets(2)
    before = operations(layout)

    def other() -> None:
        apply_transform(flow("d", 2, kind), layout, bucket=second)

    with at_point(crash_points.BEFORE_DATASET_COMMIT, other):
        apply_transform(flow("d", 2, kind), layout, bucket=first)
    assert same_as_one_run(layout, kind)
    table = DeltaTable(layout.dataset("d"))
    since = [one for one in operations(layout)[len(before) :] if one in ("WRITE", "MERGE")]
    assert len(since) == 2  # each has committed once
    state = dataset_state(layout, "d").now()
    assert state is not None
    assert {tag_in(file) for file in state.files} == {"0-127", "128-255"}
    assert [table.transaction_version(f"apply/orders/{one.name}") for one in (first, second)] == [
        3,
        3,
    ]


@pytest.mark.parametrize("kind", KINDS if LONG else ["append"])
@pytest.mark.parametrize(
    "others", [[WHOLE], *([[KeyBucket(1, 4), KeyBucket(2, 4)]] if LONG else [])]
)
@pytest.mark.parametrize(
    "point",
    [crash_points.BEFORE_LOG_ENTRY, *([crash_points.BEFORE_DATASET_COMMIT] if LONG else [])],
)
def test_a_run_that_was_frozen_gives_way_to_another_number_of_buckets(
    tmp_path: Path, kind: str, others: list[KeyBucket], point: str
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2, kind)
    land(layout, LATER)

    def other() -> None:
        for one in others:
            apply_transform(flow("d", one.of, kind), layout, bucket=one)

    with at_point(point, other):
        apply_transform(flow("d", 2, kind), layout, bucket=KeyBucket(1, 2))
    apply_all(layout, 2, kind)
    assert same_as_one_run(layout, kind)


def test_an_event_is_appended_once_where_a_former_bucket_commits_after_the_run_began(
    tmp_path: Path,
) -> None:
    """A run of all keys has read what a late run of the former number commits before it."""
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2, "append")
    land(layout, LATER)

    def late() -> None:
        apply_transform(flow("d", 2, "append"), layout, bucket=KeyBucket(1, 2))

    with at_point(crash_points.AFTER_QUARANTINE, late):
        apply_transform(flow("d", 1, "append"), layout)
    apply_all(layout, 1, "append")
    assert same_as_one_run(layout, "append")


def test_events_wait_behind_those_of_their_key_in_another_number_of_buckets(
    tmp_path: Path,
) -> None:
    layout = Layout(str(tmp_path))
    first, second = key_buckets(2)
    (slot,) = slots_of_ids(["k3"])
    ours = first if first.has_some_of(slot, slot) else second
    land(layout, MANY, [(3, "bad")], [(3, "z"), (4, "z")])
    apply_transform(flow("d", 2, "append", "bad"), layout, bucket=ours)
    assert records_waiting("orders", "d", layout) == 2
    land(layout, [(3, "last")])
    # The function is fixed, but what waits comes before what is new.
    apply_transform(flow("d", 1, "append"), layout)
    assert records_waiting("orders", "d", layout) == 3
    redrive_dataset(flow("d", 1, "append"), "d", layout)
    assert records_waiting("orders", "d", layout) == 0
    assert same_as_one_run(layout, "append")


def test_buckets_quarantine_records_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run that comes second adds its records to those of the first, and evaluates nothing."""
    caplog.set_level(logging.INFO)
    layout = Layout(str(tmp_path))
    land(layout, MANY, [(key, "bad") for key in range(0, 60, 7)])
    first, second = key_buckets(2)
    original, begun = StreamedRows.replace, list[str]()

    def replace(self: StreamedRows, *given: Any, **named: Any) -> None:
        if not begun:
            begun.append(second.name)
            apply_transform(flow("d", 2, "soft", "bad"), layout, bucket=second)
        original(self, *given, **named)

    monkeypatch.setattr(StreamedRows, "replace", replace)
    apply_transform(flow("d", 2, "soft", "bad"), layout, bucket=first)
    assert "lost the commit race" not in caplog.text
    assert records_waiting("orders", "d", layout) == len(range(0, 60, 7))
    redrive_dataset(flow("d", 2, "soft"), "d", layout)
    assert same_as_one_run(layout, "soft")


def test_a_bucket_that_is_behind_does_not_keep_the_records_of_others(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    first, second = key_buckets(2)
    land(layout, MANY, [(key, "bad") for key in range(0, 60, 7)])
    apply_transform(flow("d", 2, "soft", "bad"), layout, bucket=first)
    waiting = records_waiting("orders", "d", layout)
    assert waiting > 2
    # The run of the second bucket dies between its quarantine and its rows.
    with suppress(Crash), crash_at(crash_points.AFTER_QUARANTINE):
        apply_transform(flow("d", 2, "soft", "bad"), layout, bucket=second)
    behind = records_waiting("orders", "d", layout) - waiting
    assert behind > 2
    report = redrive_dataset(flow("d", 2, "soft"), "d", layout)
    assert (report.redriven, report.waiting) == (waiting, behind)
    apply_all(layout, 2, "soft")
    redrive_dataset(flow("d", 2, "soft"), "d", layout)
    assert records_waiting("orders", "d", layout) == 0
    assert same_as_one_run(layout, "soft")


def test_buckets_store_absorbed_changes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes that no row shows are stored by another bucket just before a run stores its own."""
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2, "history")
    land(layout, MANY, LATER)
    first, second = key_buckets(2)
    original, begun = CompanionTable.append, list[str]()
    planned: list[str] = []

    def append(self: CompanionTable, *given: Any, **named: Any) -> None:
        planned.append(self.uri)
        if not begun:
            begun.append(second.name)
            apply_transform(flow("d", 2, "history"), layout, bucket=second)
        original(self, *given, **named)

    monkeypatch.setattr(CompanionTable, "append", append)
    apply_transform(flow("d", 2, "history"), layout, bucket=first)
    assert len(planned) == 2  # neither bucket has planned again
    monkeypatch.undo()
    assert same_as_one_run(layout, "history")
    land(layout, MANY)
    apply_all(layout, 1, "history")  # its changes are stored after those of both
    puts = DeltaTable(layout.absorbed_changes("d"))
    assert puts.transaction_version("unseen") == 2


def erase(layout: Layout, keys: Iterable[int]) -> None:
    assert open_erasure(SOURCE, [f"id=k{key}" for key in keys], layout).run().done


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_repairs_of_a_dataset_with_buckets(tmp_path: Path, kind: str) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY, [(key, "bad") for key in range(0, 60, 7)], LATER)
    apply_all(layout, 2, kind, fails_on="bad")
    assert records_waiting("orders", "d", layout) > 3
    # Buckets go on while records are redriven.
    land(layout, [(key, "later") for key in range(0, 60, 5)])
    bucket = KeyBucket(2, 2)

    def other() -> None:
        apply_transform(flow("d", 2, kind), layout, bucket=bucket)

    with at_point(crash_points.BEFORE_DATASET_COMMIT, other):
        redrive_dataset(flow("d", 2, kind), "d", layout)
    apply_all(layout, 2, kind)
    redrive_dataset(flow("d", 2, kind), "d", layout)
    assert records_waiting("orders", "d", layout) == 0
    assert same_as_one_run(layout, kind)
    # A run that has read a key before its erasure does not write it again.
    land(layout, [(key, "last") for key in range(0, 60, 4)])
    with at_point(crash_points.BEFORE_DATASET_COMMIT, lambda: erase(layout, [0, 8])):
        apply_all(layout, 2, kind)
    apply_all(layout, 2, kind)
    assert same_as_one_run(layout, kind)
    assert not {"k0", "k8"} & {str(dict(row)["id"]) for row in rows_of(layout, "d")}
    rebuild_dataset(flow("d", 2, kind), "d", layout)
    assert same_as_one_run(layout, kind)
    land(layout, LATER)
    apply_all(layout, 2, kind)
    assert same_as_one_run(layout, kind)
