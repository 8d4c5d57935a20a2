"""Shards that are listed long after they were opened: their first changes are as old as that."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from datazone_dagster.drain import drain_tick
from datazone_dagster.errors import SourceError
from datazone_dagster.model.drain_part import SetPart, StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport, Gap
from datazone_dagster.model.shard import IteratorStart
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.observe.health import headroom_seconds
from datazone_dagster.pipeline import drain_once, open_gaps
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.new_process import NewProcess

SOURCE = DynamoDBSource("orders", start="trim_horizon")
BY_RUNS = replace(SOURCE, drain="runs", drain_workers=1)
HOUR = timedelta(hours=1)
NOT_READ = "the shard was not read for 24 hours"


class World:
    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", page_records=1, clock=self.clock)
        self.keys = 0

    def drain(self) -> DrainReport:
        """Drain in a new process: children of what it reads to the end come with the next one."""
        return drain_once(SOURCE, NewProcess(self.stream), self.layout, clock=self.clock)

    def put(self) -> None:
        self.keys += 1
        self.stream.put({"id": {"S": str(self.keys)}})

    def gaps(self) -> list[Gap]:
        return list(open_gaps("orders", self.layout))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_child_that_a_second_outage_leaves_unread_is_a_gap(world: World) -> None:
    """It was listed less than a day ago, and opened more than a day ago."""
    world.put()
    world.drain()
    world.clock.advance(HOUR)
    world.put()
    closed_at = world.clock.now
    world.stream.roll()
    world.put()
    world.clock.advance(20 * HOUR)
    assert world.drain().records == 1
    world.clock.advance(6 * HOUR)
    world.stream.trim()
    world.put()
    world.drain()
    [gap] = world.gaps()
    assert (gap.reason, gap.since) == (NOT_READ, closed_at)


def test_a_child_that_is_found_after_its_parents_end_is_as_old_as_that(world: World) -> None:
    """In a listing of many pages, children are asked for once their parent is read to its end."""
    world.stream.shards_per_page = 1
    client = NewProcess(world.stream)

    def drain() -> DrainReport:
        return drain_once(SOURCE, client, world.layout, clock=world.clock)

    def refused(stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        raise SourceError("not now")

    world.stream.roll()
    world.put()
    while drain().records:
        pass
    world.clock.advance(HOUR)
    drain()
    closed_at = world.clock.now
    world.stream.roll()
    world.put()
    world.clock.advance(20 * HOUR)
    drain()
    client.shard_iterator = refused
    assert len(drain().shard_errors) == 1
    client.shard_iterator = world.stream.shard_iterator
    world.clock.advance(6 * HOUR)
    world.stream.trim()
    world.put()
    drain()
    [gap] = world.gaps()
    assert (gap.reason, gap.since) == (NOT_READ, closed_at)


def test_an_outage_of_a_day_is_a_gap_of_the_shard_that_was_open_then(world: World) -> None:
    """The shards that followed it are judged once it is read, by its last change."""
    world.put()
    world.drain()
    (first,) = world.stream.shard_ids()
    world.clock.advance(HOUR)
    world.put()
    for _ in range(6):
        world.clock.advance(4.5 * HOUR)
        world.put()
        world.stream.roll()
    world.stream.trim_through(first, world.stream.changes[1].sequence_number)
    for _ in range(8):
        world.drain()
    assert [gap.shard_id for gap in world.gaps()] == [first]


@pytest.mark.parametrize("gone", [1, 3])
def test_shards_that_vanish_in_an_outage_are_no_new_stream(world: World, gone: int) -> None:
    """The open shard follows them by lineage, or by its numbers where those between are gone."""
    world.put()
    world.drain()
    for _ in range(4):
        world.clock.advance(6 * HOUR)
        world.put()
        world.stream.roll()
    world.clock.advance(6 * HOUR)
    for shard in world.stream._all_shards()[:gone]:
        shard.trim()
    for _ in range(6):
        world.drain()
    assert not [gap for gap in world.gaps() if "made again" in gap.reason]
    assert "vanished" in world.gaps()[0].reason


def test_a_run_that_reads_such_a_child_first_hides_no_gap(world: World) -> None:
    (one,) = shard_sets(1)

    def work(part: StreamPart | SetPart, refused: str = "") -> int:
        client = NewProcess(world.stream)

        def iterator(stream_arn: str, shard_id: str, start: IteratorStart) -> str:
            if shard_id == refused:
                raise SourceError("not now")
            return world.stream.shard_iterator(stream_arn, shard_id, start)

        client.shard_iterator = iterator
        return drain_tick(BY_RUNS, client, world.layout, clock=world.clock, part=part).records

    world.put()
    work(StreamPart(1))
    work(SetPart(one))
    world.clock.advance(HOUR)
    world.put()
    world.stream.roll()
    world.put()
    world.clock.advance(20 * HOUR)
    work(StreamPart(1))
    assert work(SetPart(one), refused=world.stream.shard_ids()[-1]) == 1
    assert world.gaps() == []
    world.clock.advance(6 * HOUR)
    world.stream.trim()
    world.put()
    work(SetPart(one))
    work(StreamPart(1))
    assert [gap.reason for gap in world.gaps()] == [NOT_READ]


def test_shards_that_are_read_within_a_day_are_no_gap_however_late_the_first_was(
    world: World,
) -> None:
    """Four hours of changes a shard, read an hour and a half apart after an outage of 20 hours."""
    world.drain()
    for _ in range(5):
        world.put()
        world.clock.advance(4 * HOUR)
        world.put()
        world.stream.roll()
    for _ in range(6):
        world.drain()
        world.clock.advance(1.5 * HOUR)
    assert world.clock.now - FixedClock().now == 29 * HOUR
    assert world.drain().records == 0
    assert world.gaps() == []


@pytest.mark.parametrize("children", [1, 2])
def test_the_children_of_an_idle_shard_are_no_gap(world: World, children: int) -> None:
    world.put()
    for _ in range(30):
        world.drain()
        world.clock.advance(HOUR)
    world.stream.trim()
    (world.stream.roll if children == 1 else world.stream.split)()
    world.drain()
    world.clock.advance(22 * HOUR)
    world.put()
    assert sum(world.drain().records for _ in range(2)) == 1
    assert world.gaps() == []


def test_the_time_that_is_left_counts_from_the_parents_last_change(world: World) -> None:
    world.drain()
    world.put()
    world.stream.roll()
    world.put()
    world.clock.advance(20 * HOUR)
    report = world.drain()
    assert report.records == 1
    assert headroom_seconds(report, world.clock.now) == 4 * 3600
