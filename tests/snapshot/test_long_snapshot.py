"""A snapshot of 30 hours on a fake clock: the drain goes on, and nothing is trimmed unread."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.pipeline import SnapshotSettings, open_gaps, read_dataset, snapshot_status
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.snapshot.flow import World, item, key, rows_of, small_flow

PAGE_ITEMS, PAGES, WORKERS = 2, 40, 2
PAGE_SECONDS = 52 * 60.0
HOURS = 30
LAST = 10**40
"""Above every sequence number."""


class Slow:
    """A table that serves a page in 52 minutes, a stream with records of the last 24 hours."""

    def __init__(self, root: Path) -> None:
        self.world = World(Layout(str(root)), small_flow, page_items=PAGE_ITEMS)
        table = self.world.table
        for number in range(PAGES * PAGE_ITEMS):
            table.put_unseen(item(number))
        table.units_per_second = 2.0  # half of it is the scan's
        table.units_per_item = PAGE_SECONDS / PAGE_ITEMS
        self.changes = 0
        self.trimmed = 0
        self._closed: list[tuple[datetime, str]] = []
        self._rolled_at = self.world.clock()
        self.longest_wait = timedelta(0)
        self._drained_at = self.world.clock()

    def pause(self, seconds: float) -> None:
        """Let time pass: changes are written, and the sensor drains them every half an hour."""
        end = self.world.clock() + timedelta(seconds=seconds)
        while self.world.clock() < end:
            self.world.clock.advance(min(timedelta(minutes=5), end - self.world.clock()))
            if self.world.clock() - self._drained_at >= timedelta(minutes=30):
                self._live()

    def _live(self) -> None:
        world = self.world
        self.changes += 1
        number = self.changes * 7 % (PAGES * PAGE_ITEMS)
        if self.changes % 3:
            world.stream.put(item(number, self.changes))
        else:
            world.stream.delete(key(number))
        world.drain()
        self.longest_wait = max(self.longest_wait, world.clock() - self._drained_at)
        self._drained_at = world.clock()
        if world.clock() - self._rolled_at >= timedelta(hours=4):
            self._closed.append((world.clock(), world.stream.shard_ids()[-1]))
            world.stream.roll()
            self._rolled_at = world.clock()
        while self._closed and world.clock() - self._closed[0][0] >= timedelta(hours=24):
            world.stream.trim_through(self._closed.pop(0)[1], LAST)
            self.trimmed += 1

    def take(self) -> None:
        self.world.snapshot(
            pause=self.pause, settings=SnapshotSettings(workers=WORKERS, sweep_limit=1.0)
        )


@pytest.mark.faults
def test_a_snapshot_of_thirty_hours(tmp_path: Path) -> None:
    slow = Slow(tmp_path)
    world = slow.world
    world.drain()
    slow.take()
    world.wait()
    began, kills = world.clock(), 0
    for _ in range(9):
        if scanned(world):
            break
        try:
            with crash_at(crash_points.AFTER_PAGES_READ, 12):
                slow.take()
        except Crash:
            kills += 1
        world.apply()
    lasted = world.clock() - began
    assert timedelta(hours=HOURS) < lasted < timedelta(hours=HOURS + 5)
    assert (kills, slow.trimmed) == (3, 1), lasted
    assert slow.longest_wait <= timedelta(minutes=35), "the drain has waited for the scan"
    assert open_gaps("orders", world.layout) == ()

    again = {page: count for page, count in world.table.pages.items() if count > 1}
    assert max(again.values()) == 2
    assert len(again) <= kills * 2 * WORKERS, "at most a page of each open segment"

    world.hand_over()
    world.drain()
    world.apply()
    assert rows_of(world.layout, "current") == world.items()
    seconds = [row["_dz_event_time"] for row in scanned_rows(world)]
    assert max(seconds) - min(seconds) > timedelta(hours=24), "longer than the stream keeps records"


def scanned(world: World) -> bool:
    report = snapshot_status("orders", world.layout)
    assert report is not None
    return report.phase in (Phase.SCANNED, Phase.DONE)


def scanned_rows(world: World) -> list[dict[str, datetime]]:
    events = read_dataset(world.layout, "events").to_pylist()
    return [row for row in events if row["eventName"] == "SNAPSHOT"]
