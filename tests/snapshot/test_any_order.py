"""Any order of writes, drains, pages, kills, runs and new streams ends with the table's items.

The rule that the field uses (eventually consistent pages, no wait) runs the same steps and fails.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.model import snapshot_state
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot import snapshot_run
from datazone_dagster.testing import Crash, crash_at
from tests.examples import examples
from tests.snapshot.flow import World, item, key, rows_of, small_flow
from tests.snapshot.flow import flow as every_mode

KEYS = 6
LAG = timedelta(seconds=30)
"""Lag of an eventually consistent page: less than the wait of 60 seconds."""

Step = tuple[str, int, int]

_KEY, _VALUE = st.integers(0, KEYS - 1), st.integers(1, 99)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEY, _VALUE),
        st.tuples(st.just("delete"), _KEY, st.just(0)),
        st.tuples(st.just("drain"), st.just(0), st.just(0)),
        st.tuples(st.just("apply"), st.just(0), st.just(0)),
        st.tuples(st.just("snapshot"), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 3), st.integers(1, 2)),
        st.tuples(st.just("wait"), st.sampled_from([1, 20, 61]), st.just(0)),
        st.tuples(st.sampled_from(["split", "replace", "lose"]), st.just(0), st.just(0)),
    ),
    min_size=3,
    max_size=25,
)


class Steps:
    """A world that takes steps, and checks what must hold at a quiet moment."""

    def __init__(self, root: Path, flow: object = small_flow) -> None:
        self.world = World(Layout(str(root)), flow)
        self.world.table.lag = LAG
        for number in range(0, KEYS, 2):
            self.world.table.put_unseen(item(number))
        self.world.table.remember()
        self.world.clock.advance(timedelta(hours=1))
        self.world.drain()

    def take(self, step: Step) -> None:
        world, (name, number, value) = self.world, step
        if name == "put":
            world.stream.put(item(number, value))
        elif name == "delete":
            world.stream.delete(key(number))
        elif name == "drain":
            world.drain()
        elif name == "apply":
            world.apply()
        elif name == "snapshot":
            most = world.table.calls["Scan"] + number
            world.snapshot(stop=lambda: world.table.calls["Scan"] >= most)
        elif name == "kill":
            try:
                with crash_at(crash_points.SNAPSHOT_POINTS[number], value):
                    world.snapshot()
            except Crash:
                pass
        elif name == "wait":
            world.clock.advance(timedelta(seconds=number))
        elif name == "split":
            world.stream.split()
        elif name == "replace":
            world.drain()
            world.stream.replace()
        else:
            world.stream.trim()
            world.clock.advance(timedelta(hours=25))
        world.table.remember()

    def end(self) -> None:
        """Let everything settle, then compare the datasets with the table."""
        world = self.world
        for _ in range(6):
            world.drain()
        report = world.hand_over()
        world.drain()
        world.apply()
        assert report.consistent_since is not None
        for dataset in world.flow.outputs.values():
            if dataset.mode != "append":
                assert rows_of(world.layout, dataset.id) == world.items(), dataset.id
        scans = {(row, count) for row, count in world.events().items() if row[0] == "SNAPSHOT"}
        assert all(count <= report.epoch for _, count in scans)


@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_any_order_ends_with_the_items_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    world = Steps(tmp_path_factory.mktemp("lakehouse"))
    for step in steps:
        world.take(step)
    world.end()


@settings(max_examples=examples(4), deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_every_mode_ends_with_the_items_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    world = Steps(tmp_path_factory.mktemp("lakehouse"), every_mode)
    for step in steps:
        world.take(step)
    world.end()


OVERTAKEN: list[list[Step]] = [
    # Drained before the announcement, and still missing in a page that lags.
    [("put", 0, 7), ("drain", 0, 0), ("apply", 0, 0)],
    # Deleted before the announcement: the page brings the item back.
    [("delete", 2, 0), ("drain", 0, 0), ("apply", 0, 0)],
]


@pytest.mark.parametrize("steps", OVERTAKEN)
@pytest.mark.parametrize(
    ("consistent", "waits", "holds"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_the_old_rule_loses_what_ours_keeps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[Step],
    consistent: bool,
    waits: bool,
    holds: bool,
) -> None:
    monkeypatch.setattr(snapshot_run, "CONSISTENT_READS", consistent)
    world = Steps(tmp_path)
    world.take(("put", 1, 1))
    world.take(("drain", 0, 0))
    world.take(("wait", 61, 0))
    for step in steps:
        world.take(step)
    if not waits:
        monkeypatch.setattr(snapshot_state, "SETTLE", timedelta(seconds=-1))
        world.world.drain()
        world.world.snapshot()
        world.take(("wait", 1, 0))
        world.world.drain()
        world.world.snapshot()
    if holds:
        world.end()
    else:
        with pytest.raises(AssertionError):
            world.end()
