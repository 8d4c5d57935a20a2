"""A rebuild that runs are faster than, again and again: they make way for its swap."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.apply import rebuild, rebuild_fence
from datazone_dagster.dataset.swap_fence import (
    LONGEST,
    PROPERTY,
    SHORTEST,
    fenced_until,
    lower_fence,
    raise_fence,
)
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    bucket_positions,
    rebuild_dataset,
    stop_waiting_for,
    waits_for_rebuild,
)
from datazone_dagster.process import crash_points
from datazone_dagster.process.current_run import working_for
from datazone_dagster.testing import FixedClock
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


@contextmanager
def crash_points_seen(seen: list[str]) -> Iterator[None]:
    crash_points.hook = seen.append
    try:
        yield
    finally:
        crash_points.hook = None


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
    assert report.attempts == busy.swaps == rebuild_fence.UNFENCED + 1
    assert "runs were faster 3 times. They wait now" in caplog.text
    # The last changes landed while the runs waited; now these go on.
    assert set(bucket_positions("orders", "d", layout, 2).values()) == {rebuild_fence.UNFENCED + 1}
    apply_all(layout, 2)
    assert set(bucket_positions("orders", "d", layout, 2).values()) == {rebuild_fence.UNFENCED + 2}
    assert same_as_one_run(layout)


def raised(layout: Layout, by: str, until: datetime, now: datetime) -> None:
    raise_fence(table_of(layout), "orders", by, until, now)


def fence_of(layout: Layout, now: datetime) -> datetime | None:
    return fenced_until(table_of(layout).at, "orders", now)


def test_a_fence_ends_by_itself_and_runs_read_nothing_before(layout: Layout) -> None:
    now = datetime.now(timezone.utc)
    raised(layout, "a", now + timedelta(minutes=10), now)
    land(layout, [(key, "y") for key in range(30)])
    seen: list[str] = []
    with crash_points_seen(seen):
        apply_transform(path_flow("d", 2), layout, bucket=FIRST)
    assert crash_points.AFTER_QUARANTINE not in seen
    assert bucket_positions("orders", "d", layout, 2)[FIRST] == 1
    later = now + timedelta(minutes=11)
    assert fence_of(layout, later) is None
    for bucket in (FIRST, SECOND):
        apply_transform(path_flow("d", 2), layout, bucket=bucket, clock=lambda: later)
    assert same_as_one_run(layout)


def test_a_rebuild_lowers_its_own_fence_only(layout: Layout) -> None:
    now = datetime.now(timezone.utc)
    sooner, later = now + timedelta(minutes=1), now + timedelta(minutes=2)
    raised(layout, "a", later, now)
    raised(layout, "b", sooner, now)
    assert fence_of(layout, now) == later
    lower_fence(table_of(layout), "orders", "b")
    assert fence_of(layout, now) == later
    lower_fence(table_of(layout), "orders", "a")
    assert fence_of(layout, now) is None
    assert table_of(layout).properties[PROPERTY] == ""


def test_the_fence_of_a_run_that_is_over_is_left_to_the_run_that_has_raised_it_again(
    layout: Layout,
) -> None:
    """The runs of a bucket use one name, and the sensor may look between two of them."""
    now = datetime.now(timezone.utc)
    until = now + timedelta(minutes=2)
    with working_for("failed"):
        raised(layout, "columns/a", until, now)
    found = waits_for_rebuild("orders", ["d"], layout, now)
    assert found is not None
    with working_for("next"):
        raised(layout, "columns/a", until, now)
    stop_waiting_for("orders", "d", layout, found[1])
    assert fence_of(layout, now) == until
    found = waits_for_rebuild("orders", ["d"], layout, now)
    assert found is not None
    assert found[1].run_id == "next"
    stop_waiting_for("orders", "d", layout, found[1])
    assert fence_of(layout, now) is None


def test_a_long_first_attempt_makes_no_long_fence_and_a_long_rebuild_renews_its_own(
    layout: Layout,
) -> None:
    clock = FixedClock()
    fence = rebuild_fence.RebuildFence(
        layout, "d", "orders", clock, logging.getLogger("test_swap_fence")
    )
    fence.begin_attempt()
    clock.advance(timedelta(hours=3))
    for _ in range(2):
        fence.begin_attempt()
        fence.renew()
        clock.advance(timedelta(seconds=5))
    assert fence_of(layout, clock()) is None
    fence.begin_attempt()
    first = fence_of(layout, clock())
    assert first == clock() + SHORTEST
    clock.advance(timedelta(seconds=20))
    fence.renew()
    assert fence_of(layout, clock()) == first
    clock.advance(timedelta(hours=1))
    fence.renew()
    assert fence_of(layout, clock()) == clock() + SHORTEST
    fence.begin_attempt()
    assert fence_of(layout, clock()) == clock() + LONGEST
    fence.lower()
    assert fence_of(layout, clock()) is None


def test_a_fence_that_could_not_be_raised_is_raised_at_the_next_attempt(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = BusyStream(layout)
    failed: list[str] = []

    def fails_once(*facts: Any) -> None:
        if not failed:
            failed.append("once")
            raise ConcurrentWriterError("Others were faster.")
        raise_fence(*facts)

    monkeypatch.setattr(rebuild_fence, "raise_fence", fails_once)
    monkeypatch.setattr(crash_points, "hook", busy)
    report = rebuild_dataset(path_flow("d", 2), "d", layout)
    monkeypatch.setattr(crash_points, "hook", None)
    assert report.attempts == rebuild_fence.UNFENCED + 2


def test_a_rebuild_that_fails_lets_runs_go_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        assert fence_of(layout, datetime.now(timezone.utc)) is not None
        raise StorageError("The disk is full.")

    monkeypatch.setattr(rebuild_fence, "UNFENCED", 0)
    monkeypatch.setattr(rebuild, "swap_in", fails)
    with pytest.raises(StorageError, match="The disk is full"):
        rebuild_dataset(path_flow("d", 2), "d", layout)
    assert table_of(layout).properties[PROPERTY] == ""
    land(layout, [(key, "y") for key in range(30)])
    apply_transform(path_flow("d", 2), layout, bucket=KeyBucket(1, 2))
    assert bucket_positions("orders", "d", layout, 2)[FIRST] == 2
