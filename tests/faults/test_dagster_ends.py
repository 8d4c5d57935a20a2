"""Dagster's real processes end in the middle, asked to or not: nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.errors import StorageError
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import backlog, drain_once
from tests.faults.dagster_child import JOB
from tests.faults.dagster_process import PROJECT, DagsterHome, has_ended, wait_for
from tests.faults.orders import SOURCE, current_rows, event_ids, landed
from tests.faults.world import (
    OrdersTable,
    assert_exactly_once,
    grace_seconds,
    settle,
    stream_client,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

COMMAND = [sys.executable, "-m", "dagster"]
SLOW_SECONDS = 3.0


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


def test_a_code_server_told_to_end_commits_what_it_read(
    table: OrdersTable, layout: Layout, tmp_path: Path
) -> None:
    # It would also wait for runs that it has started: here they stay in the queue.
    home = DagsterHome(tmp_path / "home", table.endpoint_url, layout.uri, max_concurrent_runs=0)
    with home.daemon() as daemon:
        table.write(30)
        wait_for(lambda: len(landed(layout)) == table.event_ids().total(), "the first tick")
        before = len(landed(layout))
        # A drain that would take all of its 20 seconds.
        table.admin.set_faults(
            [Fault("GetRecords", FaultKind.SLOW, times=None, delay_seconds=SLOW_SECONDS)]
        )
        written = table.write_many_pages(pages=10)
        table.admin.counters(reset=True)
        wait_for(lambda: table.admin.counters()["records"] >= 9, "a drain in the middle")
        seconds = seconds_to_end(daemon.code_server())
        found = len(landed(layout)) - before
        assert seconds < grace_seconds()
        assert 0 < found < written
        daemon.kill()
    table.admin.clear_faults()
    settle(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="SIGTERM to the code server in a drain")


def test_a_run_told_to_end_leaves_whole_chunks(
    table: OrdersTable, layout: Layout, home: DagsterHome
) -> None:
    client = stream_client(table.endpoint_url)
    for _ in range(25):
        table.write(3)
        drain_once(SOURCE, client, layout)
    run = subprocess.Popen(
        [*COMMAND, "job", "execute", "-m", "tests.faults.dagster_project", "-j", JOB],
        cwd=PROJECT,
        env=home.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: position(layout) > 2, "the first chunks")
    seconds = seconds_to_end(run.pid)
    assert run.wait(5) != 0
    head = backlog(SOURCE.name, "current", layout).head_batch
    assert seconds < grace_seconds()
    assert position(layout) < head

    settle(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="SIGTERM to a run")


def position(layout: Layout) -> int:
    return backlog(SOURCE.name, "current", layout).position


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 4))
def test_the_daemon_is_killed_with_all_its_processes(
    table: OrdersTable, layout: Layout, home: DagsterHome, seed: int
) -> None:
    """SIGKILL to daemon, code server and runs, or to a part of them, at random moments."""
    dice = random.Random(seed)
    kills = 0
    for _ in range(3):
        with home.daemon() as daemon:
            table.write(40)
            table.admin.counters(reset=True)
            wait_for(lambda: "GetRecords" in table.admin.counters()["calls"], "the first tick")
            table.write(20)
            table.end_a_shard()
            # The random moment itself: a tick comes every 5 seconds, a run takes some more.
            time.sleep(dice.uniform(0.5, 8))
            victims = daemon.processes()
            if dice.random() < 0.5:
                os.kill(dice.choice(victims), signal.SIGKILL)
                time.sleep(dice.uniform(0.5, 5))
            daemon.kill()
            kills += len(victims)
    with home.daemon():
        wait_for(lambda: rows_equal(table, layout), "all rows")
    assert_exactly_once(
        table, layout, fault="SIGKILL to a daemon with its processes", injected=kills
    )
