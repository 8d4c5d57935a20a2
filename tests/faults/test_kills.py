"""Processes killed with SIGKILL, at every named point and at random moments: nothing is lost."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from tests.faults.child import Role, start
from tests.faults.dagster_child import CURSOR
from tests.faults.object_store import BUCKET, FaultyStore, Trouble, faulty_store
from tests.faults.orders import landed_event_ids
from tests.faults.world import (
    DEADLINE_SECONDS,
    OrdersTable,
    assert_exactly_once,
    catch_up,
    overload,
    table_with_an_ended_shard,
    write_until_killed,
)

FLOW_POINTS = [
    point
    for point in crash_points.POINTS
    # The first one is in the sensor, the second one needs a result with a new column.
    if point not in (crash_points.BEFORE_CURSOR, crash_points.AFTER_WIDENING)
]

_logger = logging.getLogger(__name__)


@pytest.mark.parametrize("nth", [1, pytest.param(3, marks=pytest.mark.faults)])
@pytest.mark.parametrize("point", FLOW_POINTS)
def test_killed_at_a_named_point(
    server: LocalDynamoDB, layout: Layout, point: str, nth: int
) -> None:
    table = table_with_an_ended_shard(server, nth)
    worker = start(server.endpoint_url, layout, crash_at=f"{point}#{nth}")
    write_until_killed(table, worker)
    catch_up(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL {point}")


def test_killed_between_a_widened_column_and_its_first_rows(
    server: LocalDynamoDB, layout: Layout
) -> None:
    table = OrdersTable(server.endpoint_url, seed=5)
    table.create()
    table.write(20)
    catch_up(server.endpoint_url, layout)
    table.write(20)
    point = crash_points.AFTER_WIDENING
    worker = start(server.endpoint_url, layout, crash_at=point, wider=True)
    worker.join(DEADLINE_SECONDS * overload())
    assert worker.exitcode == -signal.SIGKILL

    catch_up(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL {point}")


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


KILLED = [("current/", "killed before"), ("current/", "killed after")]
KILLED_ELSEWHERE = [
    (table_path, trouble)
    for table_path in ("_changelog/", "_checkpoints/", "_tombstones/", "events/")
    for trouble in ("killed before", "killed after")
]


@pytest.mark.parametrize(
    ("table_path", "trouble"),
    [*KILLED, *(pytest.param(*one, marks=pytest.mark.faults) for one in KILLED_ELSEWHERE)],
)
def test_killed_in_the_middle_of_a_commit(
    server: LocalDynamoDB, store: FaultyStore, table_path: str, trouble: Trouble
) -> None:
    """Data files are in the store; the process dies just before or after the log entry."""
    layout = Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", store.options)
    table = OrdersTable(server.endpoint_url, seed=9)
    table.create()
    table.write(60)
    catch_up(server.endpoint_url, layout)  # so that the next merge replaces rows
    worker = start(server.endpoint_url, layout)
    store.script(table_path, trouble, every=1, victim=worker.pid)
    deadline = time.monotonic() + DEADLINE_SECONDS * overload()
    try:
        # Positions alone are saved now and then: one batch does not make a commit of each table.
        while worker.is_alive() and time.monotonic() < deadline:
            table.write(5)
            worker.join(0.1)
    finally:
        struck = store.heal()
    assert worker.exitcode == -signal.SIGKILL
    assert struck

    catch_up(server.endpoint_url, layout)
    where = table_path.strip("/")
    assert_exactly_once(table, layout, fault=f"SIGKILL in a commit to {where}: {trouble}")


def test_killed_before_the_cursor_is_saved(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path
) -> None:
    """The batch is in the change log, but was not reported to Dagster."""
    table = OrdersTable(server.endpoint_url, seed=6)
    table.create()
    table.write(40)
    point = crash_points.BEFORE_CURSOR
    sensor = start(
        server.endpoint_url, layout, role="sensor", home=str(tmp_path / "home"), crash_at=point
    )
    sensor.join(DEADLINE_SECONDS * overload())
    assert sensor.exitcode == -signal.SIGKILL
    assert not (tmp_path / "home" / CURSOR).exists()
    assert landed_event_ids(layout) == table.event_ids()

    table.write(10)
    catch_up(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL {point}")


@pytest.mark.faults  # the default run has dagster_glue/test_listening.py, in one process
@pytest.mark.parametrize("point", [crash_points.AFTER_READ, crash_points.AFTER_CHANGE_LOG_COMMIT])
def test_killed_while_a_tick_listens(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path, point: str
) -> None:
    table = OrdersTable(server.endpoint_url, seed=8)
    table.create()
    # Ticks that listen make the most of these batches: the first two ticks make one each.
    sensor = start(
        server.endpoint_url,
        layout,
        role="listening sensor",
        home=str(tmp_path / "home"),
        crash_at=f"{point}#6",
    )
    deadline = time.monotonic() + DEADLINE_SECONDS * overload()
    while sensor.is_alive() and time.monotonic() < deadline:
        table.write(5)
        sensor.join(0.3)
    assert sensor.exitcode == -signal.SIGKILL

    table.write(20)
    catch_up(server.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"SIGKILL while a tick listens, {point}")


class Killer:
    """Kills processes of all roles at moments that the seed decides, under traffic."""

    def __init__(self, server: LocalDynamoDB, layout: Layout, home: Path, seed: int) -> None:
        _logger.warning("DATAZONE_KILL_SEED=%d repeats these moments", seed)
        self.table = OrdersTable(server.endpoint_url, seed)
        self.killed: Counter[Role] = Counter()
        self._server = server
        self._layout = layout
        self._home = home
        self._dice = random.Random(seed)
        self._cursors = ["?" * 50]
        self.table.create()

    def kill(self, role: Role) -> None:
        dice = self._dice
        self.table.write(dice.randrange(5, 30))
        if dice.random() < 0.2:
            self.table.end_a_shard()
        self._disturb_the_cursor()
        process = start(self._server.endpoint_url, self._layout, role=role, home=str(self._home))
        # The random moment itself, not a wait for a state.
        time.sleep(dice.uniform(0.05, 0.6 if role == "worker" else 1.5))
        process.kill()
        process.join(DEADLINE_SECONDS * overload())
        assert process.exitcode == -signal.SIGKILL, "the process ended by itself"
        self.killed[role] += 1

    def _disturb_the_cursor(self) -> None:
        """Sometimes delete the cursor, or replace it with garbage or an older one."""
        cursor = self._home / CURSOR
        if not cursor.exists():
            return
        self._cursors.append(cursor.read_text())
        if self._dice.random() < 0.3:
            cursor.unlink()
        elif self._dice.random() < 0.3:
            cursor.write_text(self._dice.choice(self._cursors))

    def assert_exactly_once(self) -> None:
        catch_up(self._server.endpoint_url, self._layout)
        for role, kills in self.killed.items():
            fault = f"SIGKILL at a random moment: {ROLES[role]}"
            assert_exactly_once(self.table, self._layout, fault=fault, injected=kills)


ROLES = {"worker": "drain and apply", "sensor": "sensor's process", "run": "run"}


def test_killed_at_random_moments(server: LocalDynamoDB, layout: Layout, tmp_path: Path) -> None:
    seed = int(os.environ.get("DATAZONE_KILL_SEED", "0")) or random.SystemRandom().getrandbits(32)
    killer = Killer(server, layout, tmp_path / "home", seed)
    for role, kills in (("worker", 6), ("sensor", 2), ("run", 2)):
        for _ in range(kills):
            killer.kill(role)  # type: ignore[arg-type]  # a Role
    killer.assert_exactly_once()


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 9))
def test_killed_at_random_moments_many_times(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path, seed: int
) -> None:
    killer = Killer(server, layout, tmp_path / "home", seed)
    dice = random.Random(seed)
    for _ in range(30):
        killer.kill(dice.choice(["worker", "sensor", "run"]))
    killer.assert_exactly_once()


def test_a_process_takes_its_crash_point_from_the_environment() -> None:
    script = (
        "from datazone_dagster.process import crash_points as points\n"
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
