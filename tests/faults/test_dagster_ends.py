"""Dagster's real processes are stopped or killed in the middle: nothing is lost or doubled."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.errors import StorageError
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import backlog, drain_once
from tests.faults.dagster_process import Daemon, DagsterHome, has_ended, wait_for
from tests.faults.orders import SOURCE, current_rows, event_ids, landed
from tests.faults.world import (
    OrdersTable,
    assert_exactly_once,
    catch_up,
    grace_seconds,
    stream_client,
)

# `wait_for` gives up by itself; on a machine that is busy, it waits for longer.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

SLOW_SECONDS = 1.5

_logger = logging.getLogger(__name__)


@pytest.fixture
def table(server: LocalDynamoDB) -> Iterator[OrdersTable]:
    table = OrdersTable(server.endpoint_url, seed=23)
    table.create()
    yield table
    table.admin.clear_faults()


@pytest.fixture
def home(tmp_path: Path, server: LocalDynamoDB, layout: Layout) -> DagsterHome:
    return DagsterHome(tmp_path / "home", server.endpoint_url, layout.uri)


def rows_equal(table: OrdersTable, layout: Layout) -> bool:
    try:
        return current_rows(layout) == table.rows() and event_ids(layout) == table.event_ids()
    except StorageError:
        return False  # no table yet


def seconds_to_end(pid: int) -> float:
    started = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: has_ended(pid), f"the end of process {pid}")
    return time.monotonic() - started


@pytest.mark.faults  # the default run has test_graceful_end.py, and all processes below
def test_a_code_server_commits_what_it_read_before_a_shutdown(
    table: OrdersTable, layout: Layout, tmp_path: Path
) -> None:
    # The code server would also wait for its runs; this setting leaves them in the queue.
    home = DagsterHome(tmp_path / "home", table.endpoint_url, layout.uri, max_concurrent_runs=0)
    with home.daemon() as daemon:
        table.write(30)
        wait_for(lambda: len(landed(layout)) == table.event_ids().total(), "the first tick")
        before = len(landed(layout))
        # Make a drain that would use all of its 20 seconds.
        table.admin.set_faults(
            [Fault("GetRecords", FaultKind.SLOW, times=None, delay_seconds=SLOW_SECONDS)]
        )
        written = table.write_many_pages(pages=24)
        table.admin.counters(reset=True)
        wait_for(lambda: table.admin.counters()["records"] >= 9, "a drain in the middle")
        seconds = seconds_to_end(daemon.code_server())
        found = len(landed(layout)) - before
        assert seconds < grace_seconds()
        assert 0 < found < written
        daemon.kill()
    table.admin.clear_faults()
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="SIGTERM to the code server in a drain")


def test_all_processes_shut_down_with_a_run_in_flight(
    table: OrdersTable, layout: Layout, home: DagsterHome
) -> None:
    """SIGTERM to the daemon, the code server and the run, as on a reclaimed spot instance."""
    client = stream_client(table.endpoint_url)
    for _ in range(25):
        table.write(2)
        drain_once(SOURCE, client, layout)
    with home.daemon() as daemon:
        wait_for(lambda: position(layout) > 2, "the first chunks")
        assert daemon.runs()
        processes = daemon.processes()
        started = time.monotonic()
        daemon.signal(signal.SIGTERM)
        wait_for(lambda: all(map(has_ended, processes)), "the end of all")
        seconds = time.monotonic() - started
    assert seconds < grace_seconds()
    assert position(layout) < backlog(SOURCE.name, "current", layout).head_batch

    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="SIGTERM to all of Dagster in a run", injected=1)


def position(layout: Layout) -> int:
    return backlog(SOURCE.name, "current", layout).position


class MachineFailures:
    """Kills a daemon with all its processes, under traffic, at moments that the seed decides."""

    def __init__(self, table: OrdersTable, home: DagsterHome, seed: int) -> None:
        _logger.warning("DATAZONE_KILL_SEED=%d repeats these moments", seed)
        self.kills = 0
        self._table = table
        self._home = home
        self._dice = random.Random(seed)

    def run(self, kills: int) -> None:
        while self.kills < kills:
            with self._home.daemon() as daemon:
                self._under_traffic(daemon)

    def _under_traffic(self, daemon: Daemon) -> None:
        table, dice = self._table, self._dice
        table.write(20)
        table.admin.counters(reset=True)
        wait_for(lambda: "GetRecords" in table.admin.counters()["calls"], "the first tick")
        table.write(20)
        table.end_a_shard()
        # The random moment itself: a tick starts every 5 seconds, and a run takes longer.
        time.sleep(dice.uniform(0, 6))
        if dice.random() < 0.4:
            # Kill only one of the daemon, its code server and its runs first.
            os.kill(dice.choice(daemon.processes()), signal.SIGKILL)
            self.kills += 1
            time.sleep(dice.uniform(0, 4))
        daemon.kill()
        self.kills += 1


@pytest.mark.faults  # the default run kills drain, sensor and run alone: test_kills.py
def test_the_machine_fails_once(table: OrdersTable, layout: Layout, home: DagsterHome) -> None:
    seed = int(os.environ.get("DATAZONE_KILL_SEED", "0")) or random.SystemRandom().getrandbits(32)
    failures = MachineFailures(table, home, seed)
    failures.run(kills=1)
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=KILLED, injected=failures.kills)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_machine_fails_many_times(
    table: OrdersTable, layout: Layout, home: DagsterHome, seed: int
) -> None:
    """Dagster recovers by itself, also from runs that were left as started."""
    failures = MachineFailures(table, home, seed)
    failures.run(kills=10)
    table.write(20)
    with home.daemon():
        wait_for(
            lambda: rows_equal(table, layout), "all rows", deadline_seconds=180, every_seconds=1
        )
    assert_exactly_once(table, layout, fault=KILLED, injected=failures.kills)


KILLED = "SIGKILL at a random moment: daemon with its processes"
