"""The flow as one state machine: whatever happens, the datasets equal the model.

The machine writes, splits, rolls, replaces and trims the stream, drains and applies it, and
between and within those steps processes die, overlap, meet failing calls and a failing store,
lose the checkpoint table and see the clock jump; the function gets another column and loses
it again. After each script the stream is drained to its end, and then:

- `current` (merge mode) holds exactly the rows that the changes make,
- `events` (append mode) holds every change exactly once,
- records that are no stream records are in both quarantines exactly once,
- what was trimmed before it could be read is missing, and a gap says so.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datazone_dagster.apply import ApplySettings
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.errors import StorageError
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, apply_transform, drain_once, drain_tick
from datazone_dagster.process import crash_points
from datazone_dagster.testing import (
    Crash,
    Fault,
    FaultKind,
    FaultPlan,
    FixedClock,
    ScriptedStream,
    at_point,
    crash_at,
    storage_fails_at,
)
from tests.faults.orders import (
    HIDDEN_STATUS,
    SOURCE,
    current_rows,
    event_ids,
    expected_rows,
    flow,
    ids,
    landed_event_ids,
    order,
    quarantined_raw,
    wider_flow,
)
from tests.new_process import NewProcess

LONG = os.environ.get("DATAZONE_TEST_PROFILE") == "long"

PUTS = st.tuples(
    st.just("put"),
    st.integers(0, 5),
    st.sampled_from(["placed", "paid", HIDDEN_STATUS]),
    st.integers(0, 3),
)
DELETES = st.tuples(st.sampled_from(["delete", "ttl"]), st.integers(0, 5), st.just(""), st.just(0))

DRAIN_POINTS = (
    crash_points.AFTER_READ,
    crash_points.AFTER_CHANGE_LOG_COMMIT,
    crash_points.AFTER_CHECKPOINT_COMMIT,
)
APPLY_POINTS = tuple(
    point
    for point in crash_points.POINTS
    if point not in (*DRAIN_POINTS, crash_points.BEFORE_CURSOR)
)


FAULTS = st.builds(
    Fault,
    st.sampled_from(["GetRecords", "GetShardIterator"]),
    st.sampled_from(
        [
            FaultKind.THROTTLING,
            FaultKind.INTERNAL_ERROR,
            FaultKind.ANSWER_LOST,
            FaultKind.EXPIRED_ITERATOR,
        ]
    ),
    shard=st.none() | st.integers(0, 3),
    first=st.integers(1, 3),
    times=st.integers(1, 3) | st.none(),
    every=st.integers(1, 2),
)
"""Faults that lose nothing at the service."""


class WholeFlow(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="flow-"))
        self.layout = Layout(str(self.root))
        self.clock = FixedClock()
        self.stream = ScriptedStream(shards=2, page_records=3, clock=self.clock)
        self.client = NewProcess(self.stream)
        self.transform = flow
        self.malformed: list[str] = []
        self.empty_pages = 0
        self.lost: set[str] = set()
        self.loss_must_show = False
        self.loss_may_show = False

    def teardown(self) -> None:
        self.settle()
        shutil.rmtree(self.root)

    # -- the table and its stream

    @rule(writes=st.lists(PUTS | DELETES, min_size=1, max_size=6))
    def write(self, writes: list[tuple[str, int, str, int]]) -> None:
        for kind, key, status, total in writes:
            if kind == "put":
                self.stream.put(order(key, status, total))
            else:
                self.stream.delete({"id": {"S": f"k{key}"}}, ttl=kind == "ttl")

    @rule(index=st.integers(0, 1), halves=st.booleans())
    def end_a_shard(self, index: int, halves: bool) -> None:
        self.stream.split(index) if halves else self.stream.roll(index)

    @rule(index=st.integers(0, 1), malformed=st.booleans())
    def put_an_oddity_into_a_shard(self, index: int, malformed: bool) -> None:
        if malformed:
            self.malformed.append(f'{{"no": {len(self.malformed)}}}')
            self.stream.malformed(self.malformed[-1].encode(), index)
        elif self.empty_pages < 6:  # after 8 of them a shard counts as read to its tip
            self.empty_pages += 1
            self.stream.empty_page(index)

    @rule()
    @precondition(lambda self: self.checkpoint().shards)
    def replace_the_stream(self) -> None:
        self.stream.replace()
        self.loss_may_show = True

    @rule(early=st.booleans())
    @precondition(lambda self: self.checkpoint().shards and not self.malformed)
    def trim(self, early: bool) -> None:
        lost = set(ids(self.stream.changes) - landed_event_ids(self.layout)) - self.lost
        if not early:
            self.clock.advance(timedelta(hours=48))
        # Where the records of a shard began that were trimmed within a day, as the service does
        # not, only its position tells.
        nothing_tells = early and any(
            not row.is_done and row.sequence_number is None
            for row in self.checkpoint().shards.values()
        )
        self.stream.trim()
        self.lost |= lost
        self.loss_must_show = self.loss_must_show or bool(lost and not nothing_tells)
        self.loss_may_show = True

    # -- drains

    @rule(small=st.booleans(), new_process=st.booleans())
    def drain(self, small: bool = False, new_process: bool = False) -> None:
        if new_process:
            self.forget_iterators()
        bounds = DrainSettings(budget_bytes=200 if small else 1 << 20, max_workers=2)
        drain_once(SOURCE, self.client, self.layout, settings=bounds, clock=self.clock)

    @rule(shard=st.integers(0, 5))
    def drain_by_an_inconsistent_listing(self, shard: int) -> None:
        shard_ids = self.stream.shard_ids()
        self.stream.hide(shard_ids[shard % len(shard_ids)])
        self.drain()
        self.stream.show_all()
        self.drain()

    @rule(fault=FAULTS)
    def drain_with_failing_calls(self, fault: Fault) -> None:
        self.stream.faults = FaultPlan([fault])
        self.drain()
        self.stream.faults = None

    @rule()
    def drain_tick_after_tick(self) -> None:
        bounds = DrainSettings(budget_bytes=200, budget_seconds=10, max_workers=2)
        drain_tick(SOURCE, self.client, self.layout, settings=bounds, clock=self.clock)

    @rule(point=st.sampled_from(DRAIN_POINTS))
    def die_in_a_drain(self, point: str) -> None:
        try:
            with crash_at(point):
                self.drain()
        except Crash:
            self.forget_iterators()

    @rule(point=st.sampled_from(DRAIN_POINTS[:2]))
    def two_drains_overlap(self, point: str) -> None:
        with at_point(point, self.drain):
            self.drain()

    @rule(point=st.sampled_from(DRAIN_POINTS))
    def the_store_fails_in_a_drain(self, point: str) -> None:
        with suppress(StorageError), storage_fails_at(point):
            self.drain()

    # -- runs

    @rule(small=st.booleans())
    def apply(self, small: bool = True) -> None:
        chunk = ApplySettings(1 if small else 1 << 20)
        apply_transform(self.transform, self.layout, settings=chunk, clock=self.clock)

    @rule()
    def the_function_returns_other_columns(self) -> None:
        self.transform = flow if self.transform is wider_flow else wider_flow

    @rule(point=st.sampled_from(APPLY_POINTS), nth=st.integers(1, 2))
    def the_store_fails_in_a_run(self, point: str, nth: int) -> None:
        with suppress(StorageError), storage_fails_at(point, nth):
            self.apply()

    @rule(point=st.sampled_from(APPLY_POINTS), nth=st.integers(1, 2))
    def die_in_a_run(self, point: str, nth: int) -> None:
        try:
            with crash_at(point, nth):
                self.apply()
        except Crash:
            pass

    @rule(point=st.sampled_from(APPLY_POINTS), nth=st.integers(1, 2))
    def two_runs_overlap(self, point: str, nth: int) -> None:
        with at_point(point, self.apply, nth):
            self.apply()

    # -- around them

    @rule(minutes=st.sampled_from([-30, 1, 16]))
    def the_clock_jumps(self, minutes: int) -> None:
        self.clock.advance(timedelta(minutes=minutes))

    @rule()
    @precondition(lambda self: (self.root / "_checkpoints").exists())
    def lose_the_checkpoint_table(self) -> None:
        # With the table goes what only it knew: which losses were seen, and shards that were
        # listed but never landed from. So this comes after a drain that read everything.
        self.drain_to_the_end()
        shutil.rmtree(self.root / "_checkpoints")
        self.loss_must_show = False

    @invariant()
    def nothing_is_noted_as_lost_without_reason(self) -> None:
        assert self.loss_may_show or self.checkpoint().open_gaps() == ()

    # -- the end of a script

    def settle(self) -> None:
        self.drain_to_the_end()
        self.apply()
        kept = [change for change in self.stream.changes if change.event_id not in self.lost]
        assert landed_event_ids(self.layout) == ids(kept)
        if self.loss_must_show:
            assert self.checkpoint().open_gaps(), "changes were lost in silence"
        if not kept and not self.malformed:
            return
        assert current_rows(self.layout) == expected_rows(kept)
        assert event_ids(self.layout) == ids(kept)
        for dataset_id in ("current", "events"):
            assert quarantined_raw(self.layout, dataset_id) == Counter(self.malformed)

    def drain_to_the_end(self) -> None:
        # With a kept iterator each drain passes one empty page, and calls it the tip.
        caught_up = 0
        for _ in range(100):
            report = drain_once(SOURCE, self.client, self.layout, clock=self.clock)
            if report.caught_up and report.stream_arn == self.stream.stream_arn:
                caught_up += 1
                if caught_up > self.empty_pages:
                    return
                continue
            # A parent that no listing shows is given up only after a time of grace.
            self.clock.advance(timedelta(minutes=1))
        raise AssertionError("the drain never caught up")

    def checkpoint(self) -> Checkpoint:
        found = CheckpointTable(self.layout, SOURCE.name).open()
        return Checkpoint() if found is None else found.checkpoint

    def forget_iterators(self) -> None:
        self.client = NewProcess(self.stream)


TestWholeFlow = WholeFlow.TestCase
TestWholeFlow.settings = settings(
    max_examples=400 if LONG else 12,
    stateful_step_count=40 if LONG else 25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestWholeFlow = pytest.mark.timeout(3600 if LONG else 300)(TestWholeFlow)
