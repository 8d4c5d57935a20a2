"""Drain workers as real processes: killed at every point, frozen and woken, two numbers at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.drain_part import StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard_set import ShardSet, shard_sets
from datazone_dagster.pipeline import drain_tick
from datazone_dagster.process import crash_points
from tests.faults.orders import SOURCE, landed_event_ids
from tests.faults.world import OrdersTable, assert_exactly_once, catch_up, stream_client

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]

WORKER = """
import sys, time
from datazone_dagster.model.drain_part import SetPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard_set import shard_set_named
from datazone_dagster.pipeline import DrainSettings, drain_tick
from tests.faults.orders import SOURCE
from tests.faults.world import stream_client
endpoint_url, uri, name = sys.argv[1:]
client, settings = stream_client(endpoint_url), DrainSettings(budget_bytes=4096, max_workers=4)
part = SetPart(shard_set_named(name), is_first=True)
while True:
    drain_tick(SOURCE, client, Layout(uri), settings=settings, part=part)
    time.sleep(0.02)
"""


@contextmanager
def worker(
    table: OrdersTable, layout: Layout, shards: ShardSet, *, crash_at: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that drains a set until it is killed."""
    crash = {"DATAZONE_CRASH_AT": crash_at} if crash_at else {}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, table.endpoint_url, layout.uri, shards.name],
        env={**os.environ, **crash},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def table(server: LocalDynamoDB) -> OrdersTable:
    """Two open shards, their parents, and changes in all of them."""
    found = OrdersTable(server.endpoint_url, seed=7)
    found.create()
    found.write(60)
    found.admin.split(SOURCE.table_name)
    found.write(60)
    return found


class Sensor:
    """Lists the shards, as the ticks of the sensor do."""

    def __init__(self, table: OrdersTable, layout: Layout) -> None:
        self._client, self._layout = stream_client(table.endpoint_url), layout

    def tick(self, sets: int) -> None:
        drain_tick(SOURCE, self._client, self._layout, part=StreamPart(sets))


def drained(table: OrdersTable, layout: Layout, sensor: Sensor, sets: int) -> None:
    """Tick until the workers have landed every change."""
    until = time.monotonic() + 120
    written = table.event_ids()
    while landed_event_ids(layout) != written:
        assert time.monotonic() < until, f"{len(written - landed_event_ids(layout))} are missing"
        assert not landed_event_ids(layout) - written, "a change landed twice"
        sensor.tick(sets)
        time.sleep(0.1)


def proven(table: OrdersTable, layout: Layout, fault: str) -> None:
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=fault)


@pytest.mark.parametrize(
    "point",
    [
        crash_points.AFTER_READ,
        crash_points.AFTER_CHANGE_LOG_COMMIT,
        crash_points.AFTER_CHECKPOINT_COMMIT,
    ],
)
def test_a_worker_killed_at_a_point_is_replaced(
    table: OrdersTable, layout: Layout, point: str
) -> None:
    sensor = Sensor(table, layout)
    sensor.tick(2)
    first, second = shard_sets(2)
    with ExitStack() as stack:
        dying = [
            stack.enter_context(worker(table, layout, one, crash_at=f"{point}#2"))
            for one in (first, second)
        ]
        until = time.monotonic() + 60
        while all(one.poll() is None for one in dying) and time.monotonic() < until:
            table.write(5)
            sensor.tick(2)
        assert -signal.SIGKILL in [one.poll() for one in dying]
        for one in (first, second):
            stack.enter_context(worker(table, layout, one))
        table.end_a_shard()
        table.write(40)
        drained(table, layout, sensor, 2)
    proven(table, layout, f"SIGKILL of a drain worker {point}")


def test_a_frozen_worker_wakes_up_after_its_set_was_taken_over(
    table: OrdersTable, layout: Layout
) -> None:
    sensor = Sensor(table, layout)
    sensor.tick(2)
    first, second = shard_sets(2)
    with worker(table, layout, second), worker(table, layout, first) as frozen:
        for _ in range(3):
            frozen.send_signal(signal.SIGSTOP)
            with worker(table, layout, first):
                table.write(30)
                drained(table, layout, sensor, 2)
                frozen.send_signal(signal.SIGCONT)
                table.write(30)
                drained(table, layout, sensor, 2)
        assert frozen.poll() is None
    proven(table, layout, "a frozen drain worker")


def test_two_numbers_of_workers_and_ticks_at_once(table: OrdersTable, layout: Layout) -> None:
    sensor = Sensor(table, layout)
    sensor.tick(2)
    with ExitStack() as stack:
        for one in (*shard_sets(2), *shard_sets(3)):
            stack.enter_context(worker(table, layout, one))
        for _ in range(4):
            table.write(40)
            table.end_a_shard()
            sensor.tick(3)
            drain_tick(SOURCE, stream_client(table.endpoint_url), layout)
        drained(table, layout, sensor, 3)
    proven(table, layout, "two numbers of drain workers")
