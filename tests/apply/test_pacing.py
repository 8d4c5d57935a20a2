"""A run goes on with newly landed changes, in chunks that are worth their merge."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.apply import pacing
from datazone_dagster.apply.pacing import (
    LONGEST_WAIT_SECONDS,
    LOOK_EVERY_SECONDS,
    QUIET_SECONDS,
    REMOTE_LOOK_EVERY_SECONDS,
    REMOTE_MERGE_EVERY_SECONDS,
    ChunkCost,
    Following,
    Stay,
    Waiting,
    is_enough,
)
from datazone_dagster.apply.run import ApplyRun
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.report import ChunkReport
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    read_dataset,
    rebuild_dataset,
    utc_now,
)
from datazone_dagster.sources import DynamoDBSource

LOGGER = logging.getLogger(__name__)
MEBIBYTE = 1 << 20
COST = ChunkCost(stored_bytes=100 * MEBIBYTE, work_seconds=1.8, merge_seconds=0.2)
"""A chunk that was barely worth its merge."""

positive = st.floats(1e-3, 1e3)
COSTS = st.builds(ChunkCost, st.integers(1, 1 << 30), positive, positive, st.floats(0, 1))


@pytest.mark.parametrize(
    ("waiting", "enough"),
    [
        pytest.param(Waiting(20 * MEBIBYTE, 0.5, 0.25), False, id="much is coming"),
        pytest.param(Waiting(100 * MEBIBYTE, 2.0, 0.25), True, id="worth its merge"),
        pytest.param(Waiting(20 * MEBIBYTE, 6.0, 0.25), True, id="waited long enough"),
        pytest.param(Waiting(20 * MEBIBYTE, 2.0, 0.6), True, id="nothing comes any more"),
        pytest.param(Waiting(1 << 10, 0.5, 0.0), True, id="little traffic"),
    ],
)
def test_what_is_enough(waiting: Waiting, enough: bool) -> None:
    assert is_enough(waiting, COST) == enough


def test_chunks_are_larger_where_keys_repeat() -> None:
    """Each chunk parses the latest change of most keys again: fewer chunks save that, too."""
    once = ChunkCost(100 * MEBIBYTE, 1.9, 0.1)
    again = replace(once, superseded=0.5)
    worth = Waiting(100 * MEBIBYTE, 2.0, 0.25)
    assert is_enough(worth, once)
    assert not is_enough(worth, again)
    assert is_enough(replace(worth, age_seconds=LONGEST_WAIT_SECONDS), again)
    many, _ = simulated(45 * MEBIBYTE, replace(once, stored_bytes=90 * MEBIBYTE))
    few, longest = simulated(45 * MEBIBYTE, replace(again, stored_bytes=90 * MEBIBYTE))
    assert few < many
    assert longest <= LONGEST_WAIT_SECONDS + LOOK_EVERY_SECONDS


@given(cost=COSTS, stored_bytes=st.integers(1, 1 << 30), age=positive)
def test_nothing_waits_longer_than_the_bounds(
    cost: ChunkCost, stored_bytes: int, age: float
) -> None:
    assert is_enough(Waiting(stored_bytes, LONGEST_WAIT_SECONDS + age, 0.0), cost)
    assert is_enough(Waiting(stored_bytes, age, QUIET_SECONDS), cost)


@given(cost=COSTS, stored_bytes=st.integers(1, 1 << 30), more=st.integers(0, 1 << 30))
def test_more_is_enough_where_less_is_for_its_size(
    cost: ChunkCost, stored_bytes: int, more: int
) -> None:
    assert cost.merge_share(stored_bytes + more) <= cost.merge_share(stored_bytes)


def simulated(bytes_per_second: float, cost: ChunkCost) -> tuple[int, float]:
    """Return the chunks in 60 seconds of steady landing, and the longest wait of a change."""
    now, opened, chunks, longest = 0.0, 0.0, 0, 0.0
    while now < 60:
        since, opened = opened, now
        while True:
            waiting = Waiting(int(bytes_per_second * (now - since)), now - since, 0.0)
            if not waiting.stored_bytes or is_enough(waiting, cost):
                break
            now += LOOK_EVERY_SECONDS
            opened = now
        longest = max(longest, now - since)
        chunks += 1
        work_seconds = cost.work_seconds * waiting.stored_bytes / cost.stored_bytes
        now += work_seconds + cost.merge_seconds
    return chunks, longest


def test_a_full_stream_makes_few_merges_and_waits_little() -> None:
    # 80,000 changes a second are about 45 MiB in files; reading them takes half a second.
    chunks, longest = simulated(45 * MEBIBYTE, ChunkCost(45 * MEBIBYTE, 0.25, 0.35))
    assert chunks <= 60 / LONGEST_WAIT_SECONDS + 2
    assert longest <= LONGEST_WAIT_SECONDS + LOOK_EVERY_SECONDS


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.at: dict[float, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds
        for moment in sorted(self.at):
            if moment <= self.seconds:
                self.at.pop(moment)()


def change(number: int, size: int = 10) -> ChangeRecord:
    image = json.dumps({"id": {"S": f"k{number}"}, "note": {"S": "x" * size}}).encode()
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="MODIFY",
        sequence_number=10**22 + number,
        created_at=1_700_000_000,
        keys=json.dumps({"id": {"S": f"k{number}"}}).encode(),
        new_image=image,
        old_image=None,
        size_bytes=len(image),
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


class World:
    """A change log and its followers."""

    def __init__(self, path: Path) -> None:
        self.layout = Layout(str(path))
        self.clock = Clock()
        self.landed = 0

    @property
    def log(self) -> ChangeLog:
        return ChangeLog(self.layout, "orders")

    def land(self) -> None:
        self.landed += 1
        records = [change(100 * self.landed + number) for number in range(3)]
        self.log.open_or_create().append(1, [ShardRecords("arn", "s", None, records)])

    def following(self, linger_seconds: float = 60.0, stay: Stay | None = None) -> Following:
        return Following(
            self.log, linger_seconds, stay, monotonic=self.clock.monotonic, pause=self.clock.pause
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def cost(world: World, merges: float) -> ChunkCost:
    """The cost of a chunk of one batch: a second of work, and this many of merging."""
    log = world.log.open()
    assert log is not None
    return ChunkCost(log.stored_bytes(log.head - 1, log.head), 1.0, merges)


def after_waiting(
    following: Following, log: ChangeLogSnapshot, last: ChunkCost | None
) -> ChangeLogSnapshot | None:
    """Return the log with the next chunk, or None, after all pauses."""
    for _ in following.wait(log, last):
        pass
    return following.found


def test_a_run_does_not_wait_where_nothing_has_landed_meanwhile(world: World) -> None:
    world.land()
    following = world.following()
    log = following.first()
    assert log is not None
    assert after_waiting(following, log, cost(world, 0.5)) is None
    assert world.clock.seconds == 0


def with_one_batch_waiting(world: World) -> tuple[Following, ChangeLogSnapshot]:
    """A run at the first batch, a second later, when another batch has landed."""
    world.land()
    following = world.following()
    log = following.first()
    assert log is not None
    world.clock.pause(1.0)
    world.land()
    return following, log


def test_a_run_goes_on_when_enough_has_landed(world: World) -> None:
    following, first = with_one_batch_waiting(world)
    worth = cost(world, 0.4)
    for second in (1.5, 2.0, 2.5):
        world.clock.at[second] = world.land
    log = after_waiting(following, first, worth)
    assert log is not None
    # 0.4 seconds are a tenth of a chunk with 3.6 seconds of work: four batches of a second.
    assert log.head == 5
    assert world.clock.seconds == pytest.approx(2.5, abs=LOOK_EVERY_SECONDS)


def test_a_run_waits_no_longer_than_while_the_head_moves(world: World) -> None:
    following, first = with_one_batch_waiting(world)
    worth = cost(world, 1.5)
    world.clock.at[1.5] = world.land
    log = after_waiting(following, first, worth)
    assert log is not None
    assert log.head == 3
    waited = world.clock.seconds - 1.5
    assert QUIET_SECONDS <= waited <= QUIET_SECONDS + 2 * LOOK_EVERY_SECONDS


def test_a_run_ends_when_its_time_is_over(world: World) -> None:
    world.land()
    following = world.following(linger_seconds=2.0)
    log = following.first()
    assert log is not None
    world.clock.pause(2.0)
    world.land()
    assert after_waiting(following, log, cost(world, 0.5)) is None


def test_a_run_does_not_wait_after_a_shutdown_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.land()
    following = world.following()
    log = following.first()
    assert log is not None
    world.land()
    monkeypatch.setattr(pacing, "shutdown_requested", lambda: True)
    assert after_waiting(following, log, cost(world, 0.5)) is None
    assert world.clock.seconds == 0


def staying(
    world: World,
    *,
    idle: float = 60.0,
    longest: float = 3600.0,
    told: Callable[[], bool] | None = None,
) -> tuple[Following, ChangeLogSnapshot]:
    """A run that stays, at the head of the log."""
    world.land()
    following = world.following(stay=Stay(idle, longest, told or (lambda: False)))
    log = following.first()
    assert log is not None
    return following, log


@pytest.mark.parametrize("last", [None, ChunkCost(1 << 10, 0.1, 0.1)], ids=["first", "later"])
def test_a_run_that_stays_takes_what_lands_while_it_waits(
    world: World, last: ChunkCost | None
) -> None:
    following, log = staying(world)
    world.clock.at[40.0] = world.land
    found = after_waiting(following, log, last)
    assert found is not None
    assert found.head == 2
    assert world.clock.seconds <= 40.0 + QUIET_SECONDS + 2 * LOOK_EVERY_SECONDS


def test_a_run_in_an_object_store_looks_and_merges_less_often(world: World) -> None:
    world.land()
    following = Following(
        world.log,
        60.0,
        Stay(60.0, 3600.0, lambda: False),
        remote=True,
        monotonic=world.clock.monotonic,
        pause=world.clock.pause,
    )
    log = following.first()
    assert log is not None
    pauses = 0
    world.clock.at[5.0] = world.land
    for _ in following.wait(log, cost(world, 0.5)):
        pauses += 1
    assert following.found is not None
    merged_seconds = world.clock.seconds
    assert merged_seconds - 5.0 + 2 * REMOTE_LOOK_EVERY_SECONDS >= REMOTE_MERGE_EVERY_SECONDS
    assert merged_seconds >= REMOTE_MERGE_EVERY_SECONDS
    assert pauses <= merged_seconds / REMOTE_LOOK_EVERY_SECONDS


def test_what_is_worth_its_merge_does_not_wait_in_an_object_store() -> None:
    worth = Waiting(100 * MEBIBYTE, 2.0, 0.25)
    assert is_enough(worth, COST, wait_seconds=REMOTE_MERGE_EVERY_SECONDS)
    small = Waiting(1 << 10, 2.0, 0.25)
    assert not is_enough(small, COST, wait_seconds=REMOTE_MERGE_EVERY_SECONDS)


def test_a_run_that_stays_ends_after_its_time_without_changes(world: World) -> None:
    following, log = staying(world, idle=30.0)
    assert after_waiting(following, log, cost(world, 0.5)) is None
    assert world.clock.seconds == pytest.approx(30.0, abs=2 * LOOK_EVERY_SECONDS)


def test_a_run_that_stays_ends_after_its_longest_time(world: World) -> None:
    following, log = staying(world, longest=10.0)
    assert after_waiting(following, log, None) is None
    assert world.clock.seconds == pytest.approx(10.0, abs=2 * LOOK_EVERY_SECONDS)


def test_a_run_that_stays_ends_when_it_is_told_to(world: World) -> None:
    following, log = staying(world, told=lambda: world.clock.seconds >= 5.0)
    assert after_waiting(following, log, None) is None
    assert world.clock.seconds == pytest.approx(5.0, abs=2 * LOOK_EVERY_SECONDS)


@transform(
    input_mapping={"orders": Input(Stream(source=DynamoDBSource(table_name="orders")))},
    output_mapping={"copies": Output(Dataset(id="copies"))},
)
def copies(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id")


def test_a_run_applies_what_lands_while_it_works(world: World) -> None:
    world.land()

    def land_once(chunk: ChunkReport) -> None:
        if chunk.last_batch == 1:
            world.land()

    report = apply_transform(copies, world.layout, on_chunk=land_once)["copies"]
    assert (report.chunks, report.head, report.position, report.records) == (2, 2, 2, 6)
    assert len(read_dataset(world.layout, "copies")) == 6


def test_a_run_knows_the_share_of_changes_that_it_did_not_parse(world: World) -> None:
    records = [change(number)._replace(keys=change(0).keys) for number in range(4)]
    world.log.open_or_create().append(1, [ShardRecords("arn", "s", None, records)])
    settings = ApplySettings(linger_seconds=0)
    run = ApplyRun(copies, world.layout, settings, utc_now, None, LOGGER)
    run.run()
    assert run._last_cost is not None
    assert run._last_cost.superseded == 0.75


def test_without_lingering_a_run_ends_at_the_head_that_it_found(world: World) -> None:
    world.land()
    report = apply_transform(
        copies,
        world.layout,
        settings=ApplySettings(linger_seconds=0),
        on_chunk=lambda _: world.land(),
    )["copies"]
    assert (report.chunks, report.head, report.position) == (1, 1, 1)


def test_a_run_ends_when_its_dataset_was_rebuilt_meanwhile(world: World) -> None:
    world.land()

    def rebuild(chunk: ChunkReport) -> None:
        if chunk.last_batch == 1:
            rebuild_dataset(copies, "copies", world.layout)
            world.land()

    report = apply_transform(copies, world.layout, on_chunk=rebuild)["copies"]
    assert report.position == 1  # the rows of the next chunk are for another run
    after = apply_transform(copies, world.layout)["copies"]
    assert (after.chunks, after.position) == (1, 2)
    assert len(read_dataset(world.layout, "copies")) == 6


@transform(
    input_mapping={"orders": Input(Stream(source=DynamoDBSource(table_name="orders")))},
    output_mapping={"one": Output(Dataset(id="one")), "two": Output(Dataset(id="two"))},
)
def both(orders: Frame) -> dict[str, Frame]:
    rows = orders.select("dynamodb.Keys.id.S as id")
    return {"one": rows, "two": rows}


def test_datasets_at_different_positions_pass_batches_that_have_no_rows_any_more(
    world: World,
) -> None:
    world.land()
    apply_transform(both, world.layout)
    world.land()
    ahead = ApplyRun(both, world.layout, ApplySettings(), utc_now, None, LOGGER, only=["two"]).run()
    assert ahead["two"].position == 2
    log = world.log.open()
    assert log is not None
    remove_batch(world, 2)
    world.land()
    reports = apply_transform(both, world.layout)
    assert {name: one.position for name, one in reports.items()} == {"one": 3, "two": 3}


def remove_batch(world: World, batch: int) -> None:
    """Remove the rows of a batch from the change log, as an erasure of all of its keys does."""
    table = DeltaTable(world.log.uri)
    table.delete(f"batch = {batch}")
