"""A rebuild that runs are faster than, again and again: they make way for its swap."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster.apply import rebuild
from datazone_dagster.dataset.swap_fence import PROPERTY, fenced_until, raise_fence
from datazone_dagster.errors import StorageError
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, bucket_positions, rebuild_dataset
from datazone_dagster.process import crash_points
from tests.apply.test_buckets import (
    MANY,
    apply_all,
    land,
    path_flow,
    same_as_one_run,
)
from tests.apply.test_idle_buckets import table_of

FIRST, SECOND = key_buckets(2)


class BusyStream:
    """Runs of a bucket, with new changes, whenever a rebuild is about to swap."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.swaps = 0

    def __call__(self, point: str) -> None:
        if point != crash_points.BEFORE_SWAP:
            return
        self.swaps += 1
        crash_points.hook = None
        land(self.layout, [(key, f"z{self.swaps}") for key in range(6)])
        for bucket in (FIRST, SECOND):
            apply_transform(path_flow("d", 2), self.layout, bucket=bucket)
        crash_points.hook = self


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    return layout


def test_runs_make_way_after_some_attempts_in_vain(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy = BusyStream(layout)
    monkeypatch.setattr(crash_points, "hook", busy)
    report = rebuild_dataset(path_flow("d", 2), "d", layout)
    monkeypatch.setattr(crash_points, "hook", None)
    assert report.attempts == busy.swaps == rebuild.UNFENCED + 1
    assert "runs were faster 3 times. They wait now" in caplog.text
    # The last changes landed while the runs waited; now these go on.
    assert set(bucket_positions("orders", "d", layout, 2).values()) == {rebuild.UNFENCED + 1}
    apply_all(layout, 2)
    assert set(bucket_positions("orders", "d", layout, 2).values()) == {rebuild.UNFENCED + 2}
    assert same_as_one_run(layout)


def test_a_fence_ends_by_itself(layout: Layout) -> None:
    now = datetime.now(timezone.utc)
    raise_fence(table_of(layout), "orders", now + timedelta(minutes=10))
    land(layout, [(key, "y") for key in range(30)])
    apply_transform(path_flow("d", 2), layout, bucket=FIRST)
    assert bucket_positions("orders", "d", layout, 2)[FIRST] == 1
    later = now + timedelta(minutes=11)
    assert fenced_until(table_of(layout).at, "orders", later) is None
    for bucket in (FIRST, SECOND):
        apply_transform(path_flow("d", 2), layout, bucket=bucket, clock=lambda: later)
    assert same_as_one_run(layout)


def test_a_rebuild_that_fails_lets_runs_go_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_fence(table_of(layout), "orders", datetime.now(timezone.utc) + timedelta(minutes=10))

    def fails(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(rebuild, "swap_in", fails)
    with pytest.raises(StorageError, match="The disk is full"):
        rebuild_dataset(path_flow("d", 2), "d", layout)
    assert table_of(layout).properties[PROPERTY] == ""
    land(layout, [(key, "y") for key in range(30)])
    apply_transform(path_flow("d", 2), layout, bucket=KeyBucket(1, 2))
    assert bucket_positions("orders", "d", layout, 2)[FIRST] == 2
