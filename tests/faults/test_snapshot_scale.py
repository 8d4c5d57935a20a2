"""100,000 items, 500 changes a second, splits, lagging reads, and processes that are killed.

Drain, apply and snapshot are processes of their own and die with SIGKILL in the scan, in the sweep
and in the handover. At quiet points the dataset equals the table, item by item.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.errors import DatazoneError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.local import AdminClient, LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.pipeline import (
    ConnectionSettings,
    SnapshotSettings,
    apply_transform,
    connect_table,
    drain_once,
    read_dataset,
    snapshot_source,
    snapshot_status,
    want_snapshot,
)
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from tests.faults.dagster_process import wait_for
from tests.faults.world import stream_client

ITEMS = 100_000
FIRST_EARLY, EARLY = ITEMS + 4_500, 1_500
"""Items that the datasets have before changes are lost; most of them are deleted meanwhile. The
traffic writes a third of them again."""
CHANGES_PER_SECOND = 500
BATCH = 25
SCAN_RCU = 150
SEED = 13
TABLE = "orders"
DEADLINE_SECONDS = 600.0

SOURCE = DynamoDBSource(TABLE, region="eu-west-1", start="snapshot", snapshot_rcu=SCAN_RCU)

_logger = logging.getLogger(__name__)


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        "current": Output(Dataset(id="current")),
        "events": Output(Dataset(id="events", mode="append")),
    },
)
def flow(orders: Frame) -> dict[str, Frame]:
    rows = orders.select(
        "eventID",
        "eventName",
        "dynamodb.Keys.id.S as id",
        "cast(dynamodb.NewImage.total.N as bigint) as total",
    )
    return {"current": rows.select("id", "total"), "events": rows.select("eventID", "eventName")}


def item(number: int, total: int) -> dict[str, Any]:
    return {"id": {"S": f"k{number}"}, "total": {"N": str(total)}, "note": {"S": "x" * 100}}


def drain_for_ever(endpoint_url: str, layout: Layout, crash_at: str) -> None:
    _begin(crash_at)
    client = stream_client(endpoint_url)
    while True:
        drain_once(SOURCE, client, layout)
        time.sleep(0.2)


def apply_for_ever(endpoint_url: str, layout: Layout, crash_at: str) -> None:
    _begin(crash_at)
    while True:
        apply_transform(flow, layout)
        time.sleep(0.2)


def snapshot_to_the_end(endpoint_url: str, layout: Layout, crash_at: str) -> None:
    _begin(crash_at)
    settings = ConnectionSettings(
        region="eu-west-1",
        endpoint_url=endpoint_url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    while not take(connect_table(TABLE, settings), layout).is_over:
        time.sleep(0.2)


def take(client: Any, layout: Layout) -> SnapshotReport:
    return snapshot_source(
        SOURCE,
        layout,
        client,
        dataset_ids=["current", "events"],
        settings=SnapshotSettings(workers=2, sweep_limit=1.0),
    )


def _begin(crash_at: str) -> None:
    logging.disable(logging.WARNING)
    if crash_at:
        crash_points.hook = crash_points.killer(crash_at)


class Traffic:
    """Puts and deletes at a steady rate, in a thread."""

    def __init__(self, endpoint_url: str) -> None:
        self.written = 0
        self.seconds = 0.0
        self._wire = WireClient(endpoint_url, region="eu-west-1")
        self._dice = random.Random(SEED)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        began, count = time.monotonic(), 0
        while not stop.is_set():
            self.batch()
            count += BATCH
            stop.wait(max(0.0, began + count / CHANGES_PER_SECOND - time.monotonic()))
        self.written += count
        self.seconds += time.monotonic() - began

    def batch(self) -> None:
        dice = self._dice
        numbers = dice.sample(range(ITEMS + 5_000), BATCH)
        requests: list[dict[str, Any]] = [
            {"DeleteRequest": {"Key": {"id": {"S": f"k{number}"}}}}
            if dice.random() < 0.3
            else {"PutRequest": {"Item": item(number, dice.randrange(10**6))}}
            for number in numbers
        ]
        self._wire.call("BatchWriteItem", RequestItems={TABLE: requests})


class World:
    def __init__(self, server: LocalDynamoDB, layout: Layout) -> None:
        self.endpoint_url = server.endpoint_url
        self.layout = layout
        self.admin = AdminClient(server.endpoint_url)
        self.wire = WireClient(server.endpoint_url, region="eu-west-1")
        self.traffic = Traffic(server.endpoint_url)
        self.kills: Counter[str] = Counter()
        self.dice = random.Random(SEED)

    def prepare(self) -> None:
        """Items older than the stream, some that it shows, and deletes that nobody reads."""
        self.admin.reset()
        self.wire.call(
            "CreateTable",
            TableName=TABLE,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.put(range(ITEMS))
        self.set_stream(enabled=True)
        self.put(range(FIRST_EARLY, FIRST_EARLY + EARLY))
        client = stream_client(self.endpoint_url)
        while not drain_once(SOURCE, client, self.layout).caught_up:
            pass
        apply_transform(flow, self.layout)
        assert read_dataset(self.layout, "current").num_rows == EARLY
        self.set_stream(enabled=False)
        for start in range(FIRST_EARLY, FIRST_EARLY + EARLY - 100, BATCH):
            self.delete(range(start, start + BATCH))
        self.set_stream(enabled=True)

    def put(self, numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, BATCH):
            puts = [
                {"PutRequest": {"Item": item(number, number)}}
                for number in range(start, min(numbers.stop, start + BATCH))
            ]
            self.wire.call("BatchWriteItem", RequestItems={TABLE: puts})

    def delete(self, numbers: range) -> None:
        deletes = [{"DeleteRequest": {"Key": {"id": {"S": f"k{number}"}}}} for number in numbers]
        self.wire.call("BatchWriteItem", RequestItems={TABLE: deletes})

    def set_stream(self, *, enabled: bool) -> None:
        specification: dict[str, Any] = {"StreamEnabled": enabled}
        if enabled:
            specification["StreamViewType"] = "NEW_AND_OLD_IMAGES"
        self.wire.call("UpdateTable", TableName=TABLE, StreamSpecification=specification)

    def start(self, target: Callable[..., None], crash_at: str = "") -> ForkServerProcess:
        process = get_context("forkserver").Process(
            target=target, args=(self.endpoint_url, self.layout, crash_at), daemon=True
        )
        process.start()
        return process

    def kill(self, process: ForkServerProcess, what: str) -> None:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.kills[what] += 1

    def phase(self) -> Phase | None:
        report = snapshot_status(TABLE, self.layout)
        return None if report is None else report.phase

    def items(self) -> dict[str, int]:
        found: dict[str, int] = {}
        start: dict[str, Any] = {}
        while True:
            page = self.wire.call("Scan", TableName=TABLE, ConsistentRead=True, **start)
            found.update({one["id"]["S"]: int(one["total"]["N"]) for one in page["Items"]})
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def rows(self) -> dict[str, int]:
        table = read_dataset(self.layout, "current")
        found = dict(zip(table["id"].to_pylist(), table["total"].to_pylist(), strict=True))
        assert len(found) == table.num_rows, "a key has two rows"
        return found

    def quiet(self) -> None:
        """Let everything be drained and applied, then compare."""
        client = stream_client(self.endpoint_url)
        while not drain_once(SOURCE, client, self.layout).caught_up:
            pass
        apply_transform(flow, self.layout)
        items, rows = self.items(), self.rows()
        assert len(rows) == len(items)
        assert rows == items
        events = Counter(read_dataset(self.layout, "events")["eventID"].to_pylist())
        assert max(events.values()) == 1, "an event is there twice"


class Followers:
    """Drain and apply, started again whenever they are killed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._targets = {"drain": drain_for_ever, "apply": apply_for_ever}
        self.running = {name: world.start(target) for name, target in self._targets.items()}

    def kill_one(self) -> None:
        name = self._world.dice.choice(sorted(self.running))
        self._world.kill(self.running[name], f"{name}, any moment")
        self.running[name] = self._world.start(self._targets[name])

    def end(self) -> None:
        for process in self.running.values():
            assert process.is_alive(), "it failed by itself"
            process.kill()
            process.join()


KILLS = [
    (Phase.ANNOUNCED, f"{crash_points.AFTER_SNAPSHOT_STATE}#1"),
    (Phase.SCANNING, f"{crash_points.AFTER_PAGES_READ}#2"),
    (Phase.SCANNING, f"{crash_points.AFTER_SCAN_COMMIT}#2"),
    (Phase.SCANNING, f"{crash_points.AFTER_PAGES_READ}#4"),
    (Phase.SCANNED, f"{crash_points.AFTER_SNAPSHOT_STATE}#1"),  # marked as caught up
    (Phase.SCANNED, f"{crash_points.AFTER_PAGES_READ}#1"),  # sweep: keys asked for, not landed
    (Phase.SCANNED, f"{crash_points.AFTER_SCAN_COMMIT}#1"),  # sweep: some deletes landed
    (Phase.SCANNED, f"{crash_points.AFTER_SNAPSHOT_STATE}#1"),  # handed over, not reported
]


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_a_large_table_under_traffic_and_kills(server: LocalDynamoDB, layout: Layout) -> None:
    world = World(server, layout)
    began = time.monotonic()
    world.prepare()
    _logger.warning("prepared in %.0f s", time.monotonic() - began)
    client = stream_client(world.endpoint_url)
    drain_once(SOURCE, client, layout)  # the new stream: a gap, and a new epoch
    want_snapshot(TABLE, layout, "start")

    began = time.monotonic()
    with world.traffic.running():
        followers = Followers(world)
        for number, (phase, point) in enumerate(KILLS):
            world.admin.set_lag(TABLE, writes=5_000 if number % 2 else None)
            process = world.start(snapshot_to_the_end, point)
            deadline = time.monotonic() + DEADLINE_SECONDS
            while process.is_alive() and time.monotonic() < deadline:
                process.join(2.0)
                world.admin.split(TABLE) if world.dice.random() < 0.2 else world.admin.roll(TABLE)
                if world.dice.random() < 0.2:
                    followers.kill_one()
            assert process.exitcode == -signal.SIGKILL, (phase, point, world.phase())
            world.kills[f"snapshot, {phase.value}, {point}"] += 1
            _logger.warning("%s: killed at %s, %s", _seconds(began), point, _status(layout))
        last = world.start(snapshot_to_the_end)
        wait_for(
            lambda: world.phase() is Phase.DONE, "the handover", deadline_seconds=DEADLINE_SECONDS
        )
        last.join(60)
        followers.end()
    world.quiet()
    report = snapshot_status(TABLE, layout)
    assert report is not None
    assert report.sweep.deleted > EARLY / 2, "keys that the traffic did not write again"
    _logger.warning(
        "%s: handed over, %s; %.0f changes a second over %.0f s; kills: %s",
        _seconds(began),
        _status(layout),
        world.traffic.written / world.traffic.seconds,
        world.traffic.seconds,
        json.dumps(world.kills),
    )

    with world.traffic.running():
        followers = Followers(world)
        for _ in range(4):
            time.sleep(3)
            followers.kill_one()
        followers.end()
    world.quiet()


def _seconds(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"


def _status(layout: Layout) -> str:
    try:
        report = snapshot_status(TABLE, layout)
    except DatazoneError as error:
        return str(error)
    return "no snapshot" if report is None else f"{report.phase.value}, {report.rows:,} rows"
