"""Processes killed by SIGKILL, at every named point and at random moments: nothing is lost."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from datazone_dagster import crash_points
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from tests.faults.child import start_worker
from tests.faults.world import OrdersTable, assert_exactly_once, settle

FLOW_POINTS = [
    point
    for point in crash_points.POINTS
    # One lies in the sensor, the other one is only reached when the result has a new column.
    if point not in (crash_points.BEFORE_CURSOR, crash_points.AFTER_NEW_COLUMNS)
]
DEADLINE_SECONDS = 30
RANDOM = "SIGKILL at a random moment"

_logger = logging.getLogger(__name__)


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", FLOW_POINTS)
def test_killed_at_a_named_point(
    server: LocalDynamoDB, layout: Layout, point: str, nth: int
) -> None:
    table = OrdersTable(server.endpoint_url, seed=nth)
    table.create()
    table.write(60)
    table.end_a_shard()
    table.write(60)
    worker = start_worker(server.endpoint_url, layout.uri, crash_at=f"{point}#{nth}")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while worker.is_alive() and time.monotonic() < deadline:
        table.write(5)
        worker.join(0.01)
    assert worker.exitcode == -signal.SIGKILL

    table.write(20)
    settle(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL {point}")


def test_killed_between_a_new_column_and_its_first_rows(
    server: LocalDynamoDB, layout: Layout
) -> None:
    table = OrdersTable(server.endpoint_url, seed=5)
    table.create()
    table.write(20)
    settle(server.endpoint_url, layout)
    table.write(20)
    point = crash_points.AFTER_NEW_COLUMNS
    worker = start_worker(server.endpoint_url, layout.uri, crash_at=point, wider=True)
    worker.join(DEADLINE_SECONDS)
    assert worker.exitcode == -signal.SIGKILL

    settle(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL {point}")


def kill_at_random_moments(
    server: LocalDynamoDB, layout: Layout, *, seed: int, kills: int
) -> OrdersTable:
    _logger.warning("DATAZONE_KILL_SEED=%d repeats these moments", seed)
    dice = random.Random(seed)
    table = OrdersTable(server.endpoint_url, seed)
    table.create()
    for _ in range(kills):
        table.write(dice.randrange(5, 30))
        if dice.random() < 0.2:
            table.end_a_shard()
        worker = start_worker(server.endpoint_url, layout.uri)
        time.sleep(dice.uniform(0.05, 0.6))  # the random moment itself, not a wait for a state
        worker.kill()
        worker.join(DEADLINE_SECONDS)
        assert worker.exitcode == -signal.SIGKILL, "the worker ended by itself"
    settle(server.endpoint_url, layout)
    return table


def test_killed_at_random_moments(server: LocalDynamoDB, layout: Layout) -> None:
    seed = int(os.environ.get("DATAZONE_KILL_SEED", "0")) or random.SystemRandom().getrandbits(32)
    table = kill_at_random_moments(server, layout, seed=seed, kills=20)
    assert_exactly_once(table, layout, fault=RANDOM, injected=20)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 9))
def test_killed_at_random_moments_many_times(
    server: LocalDynamoDB, layout: Layout, seed: int
) -> None:
    table = kill_at_random_moments(server, layout, seed=seed, kills=30)
    assert_exactly_once(table, layout, fault=RANDOM, injected=30)


def test_a_process_takes_its_crash_point_from_the_environment() -> None:
    script = (
        "from datazone_dagster import crash_points as points\n"
        "points.reach(points.AFTER_READ)\n"
        "print('still here', flush=True)\n"
        "points.reach(points.AFTER_READ)\n"
    )
    environment = {**os.environ, "DATAZONE_CRASH_AT": "after read#2"}
    died = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert died.stdout == b"still here\n"
