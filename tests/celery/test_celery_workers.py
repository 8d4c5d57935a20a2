"""A dataset with buckets on Celery's workers: one is killed in a step, one is frozen and woken.

Once with runs as tasks, by the run launcher of dagster-celery, and once with steps as tasks, by its
executor. Dagster's daemon, its code server, Postgres,
Redis and the workers are real processes. With SQLite a frozen process holds the lock of a database,
and every tick waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from benchmarks.instance_storage import UnavailableError, storage_of
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import backlog, bucket_positions
from tests.celery.celery_processes import Workers, redis_server
from tests.celery.names import AT_WORK, BUCKETS
from tests.faults.dagster_process import Daemon, DagsterHome, wait_for
from tests.faults.orders import SOURCE, current_rows, order
from tests.faults.world import OrdersTable, assert_exactly_once

pytestmark = [pytest.mark.celery, pytest.mark.timeout(900)]

WORKERS = {"runs": (1, 2, 3, 4), "steps": (1, 2, 3)}
"""As many as there are buckets, and one more than that for the executor, as the docs say."""

RECOVERED_SECONDS = 60.0
"""Time in which the bucket of a killed worker goes on, as promised."""

FAULT = "A Celery worker is killed in a bucket's run, another one is frozen and woken"

FROZEN_SECONDS = 90.0
"""Longer than the silence of a run, than a step may wait for a worker, and than a run may start."""


_logger = logging.getLogger(__name__)


class Traffic(threading.Thread):
    """Changes of many keys, some each quarter of a second, until the block ends."""

    def __init__(self, table: OrdersTable) -> None:
        super().__init__(daemon=True)
        self._table, self._ended, self._dice = table, threading.Event(), random.Random(11)
        self.written = 0

    def run(self) -> None:
        while not self._ended.wait(0.25):
            for _ in range(12):
                number, total = self._dice.randrange(500), self.written
                key = {"id": {"S": f"k{number}"}}
                if self._dice.random() < 0.15:
                    self._table.wire.delete_item(TableName=SOURCE.table_name, Key=key)
                else:
                    item = order(number, "placed", total)
                    self._table.wire.put_item(TableName=SOURCE.table_name, Item=item)
                self.written += 1

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


class World:
    """All processes of a deployment, and what they have done so far."""

    def __init__(self, root: Path, server: LocalDynamoDB, stack: ExitStack, way: str) -> None:
        self.way = way
        self.layout = Layout(str(root / "lakehouse"))
        self.table = OrdersTable(server.endpoint_url, seed=5)
        self.table.create()
        broker = stack.enter_context(redis_server(root))
        home = DagsterHome(root / "home", server.endpoint_url, self.layout.uri)
        storage = stack.enter_context(storage_of("postgres", root / "home"))
        config = {"broker": broker, "backend": broker}
        settings = yaml.safe_load((root / "home" / "dagster.yaml").read_text())
        settings["storage"] = yaml.safe_load(storage.yaml)["storage"]
        settings["run_monitoring"]["start_timeout_seconds"] = 60
        launcher = {"module": "dagster_celery.launcher", "class": "CeleryRunLauncher"}
        if way == "runs":
            settings["run_launcher"] = {**launcher, "config": config}
        else:
            home.environment["DATAZONE_TEST_STEPS"] = broker
            queue = settings["run_coordinator"]["config"]
            queue |= {"dequeue_use_threads": True, "dequeue_num_workers": 4}
        (root / "home" / "dagster.yaml").write_text(yaml.safe_dump(settings))
        (root / "celery.yaml").write_text(yaml.safe_dump({"execution": {"config": config}}))
        self.home = home
        self.at_work = root / "home" / AT_WORK
        self.at_work.mkdir()
        # Makes the databases: workers that do so at once are in each other's way.
        self.instance = stack.enter_context(DagsterInstance.from_config(str(root / "home")))
        self.workers = stack.enter_context(Workers(root, home.environment))
        self.workers.start(*WORKERS[way])

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        with self.home.daemon(module="tests.celery.celery_project") as daemon:
            yield daemon

    def worker_at_work(self) -> int:
        """Return the number of a worker as soon as it applies changes."""
        found: list[int] = []

        def look() -> bool:
            found.extend(self.workers.at_work(self.at_work))
            return bool(found)

        wait_for(look, "a worker at work", every_seconds=0.05)
        return found[0]

    def silent_runs(self) -> int:
        """Return how many runs were given up as they had stopped to send heartbeats.

        That of the frozen worker may have ended by itself since.
        """
        logs = [self.instance.all_logs(run.run_id) for run in self.instance.get_runs()]
        return sum(any("sent no heartbeat" in one.message for one in log) for log in logs)

    def all_pass(self, batch: int) -> bool:
        """Return whether every bucket has applied more than this batch."""
        positions = bucket_positions(SOURCE.name, "current", self.layout, BUCKETS[self.way])
        return min(positions.values()) > batch

    def waiting_records(self) -> int:
        return backlog(SOURCE.name, "current", self.layout).records

    def head(self) -> int:
        return backlog(SOURCE.name, "current", self.layout).head_batch

    def wait_until(self, state: Callable[[], bool], what: str, within: float) -> None:
        wait_for(state, what, deadline_seconds=within, every_seconds=0.25)

    def active_runs(self) -> list[str]:
        statuses = [
            DagsterRunStatus.QUEUED,
            DagsterRunStatus.STARTING,
            DagsterRunStatus.STARTED,
            DagsterRunStatus.CANCELING,
        ]
        return [one.run_id for one in self.instance.get_runs(RunsFilter(statuses=statuses))]


@pytest.fixture(params=["runs", "steps"])
def world(request: pytest.FixtureRequest, tmp_path: Path, server: LocalDynamoDB) -> Iterator[World]:
    with ExitStack() as stack:
        try:
            world = World(tmp_path, server, stack, request.param)
        except UnavailableError as reason:
            pytest.skip(f"{reason}; make test-celery installs it")
        yield world


def positions_in_commits(layout: Layout) -> dict[str, list[int]]:
    """Return the positions that each bucket has committed, in the order of the table's log."""
    found = defaultdict(list)
    for path in sorted((Path(layout.dataset("current")) / "_delta_log").glob("*[0-9].json")):
        for line in path.read_text().splitlines():
            committed = json.loads(line).get("txn", {"appId": ""})
            if committed["appId"].startswith("apply/"):
                found[committed["appId"]].append(committed["version"])
    return found


def test_one_worker_is_killed_and_one_frozen_and_woken(world: World) -> None:
    with world.daemon() as daemon, Traffic(world.table) as traffic:
        world.wait_until(lambda: world.all_pass(3), "the first chunks of all buckets", 240)

        killed = world.worker_at_work()
        world.workers.kill(killed)
        at_kill, killed_at = world.head(), time.monotonic()
        world.workers.start(killed)
        world.wait_until(lambda: world.all_pass(at_kill), "the killed bucket", 180)
        recovered_seconds = time.monotonic() - killed_at
        load = os.getloadavg()[0]
        text = "The bucket of the killed worker went on after %.0f s, at a load of %.0f"
        _logger.warning(text, recovered_seconds, load)

        frozen = world.worker_at_work()
        world.workers.freeze(frozen)
        frozen_at, at_freeze = time.monotonic(), world.head()
        world.wait_until(lambda: world.all_pass(at_freeze + 1), "the frozen bucket", 180)
        left = frozen_at + FROZEN_SECONDS - time.monotonic()
        threading.Event().wait(max(0.0, left))  # the time itself is what the test is about
        world.workers.wake(frozen)
        at_wake = world.head()
        world.wait_until(lambda: world.all_pass(at_wake + 1), "all buckets", 180)
        assert traffic.written > 0
        assert traffic.is_alive()

        # The traffic ends; what waits is applied, and every run ends.
        traffic.__exit__()
        rows = world.table.rows()
        world.wait_until(lambda: current_rows(world.layout) == rows, "every change", 120)
        world.wait_until(lambda: not world.waiting_records(), "all positions", 60)
        wait_for(lambda: not world.active_runs(), "the end of all runs", deadline_seconds=120)
        # With steps as tasks, those that wait for the answers of the two workers end as well.
        wait_for(lambda: not daemon.runs(), "the end of their processes", deadline_seconds=60)
        assert world.silent_runs() >= 2, "no worker was killed, or frozen, with a run"

    fault = f"{FAULT}: {world.way} as tasks"
    assert_exactly_once(world.table, world.layout, fault=fault, injected=2)
    committed = positions_in_commits(world.layout)
    assert len(committed) == BUCKETS[world.way]
    for bucket, positions in committed.items():
        assert positions == sorted(positions), f"{bucket} went back"
    # Processes start as much slower as there are more of them than cores.
    assert recovered_seconds < RECOVERED_SECONDS * max(1.0, load / (os.cpu_count() or 1))
