"""Requests of a sensor's ticks on an object store, with one commit in each table and with 2,000."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone

import pytest
from dagster import DagsterInstance, build_sensor_context

from datazone_dagster import Lakehouse, build_definitions
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.sensors.sensor_checks import lag_checks
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.delta import remote_files, store, table_state
from datazone_dagster.delta.intervals import CHECKPOINT_EVERY
from datazone_dagster.delta.log_files import entry_path
from datazone_dagster.delta.log_upkeep import make_checkpoint
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.testing import ScriptedStream
from tests.dagster_glue.conftest import SOURCE, ScriptedResource, orders_transform
from tests.store.proxy import Counts

Counted = Callable[[], AbstractContextManager[Counts]]

DATASETS = ("one", "two")
COMMITS = 2_000
SAVE = 3
"""Requests of a save of the checkpoint, once a minute: a look, a file, a log entry."""

CHECKPOINT = 4
"""Requests of a Delta checkpoint: the newest entry, the checkpoint before, a file, the hint."""

AFTER_CHECKPOINT = 2
"""Entries after the Delta checkpoint: a few more commits make none due."""


@dataclass
class Location:
    """A code location with a scripted stream, three datasets, and a lakehouse on S3."""

    layout: Layout
    stream: ScriptedStream
    instance: DagsterInstance

    def __post_init__(self) -> None:
        ScriptedResource.streams = {"orders": self.stream}
        self.transforms = [orders_transform(name) for name in DATASETS]
        self.defs = build_definitions(
            self.transforms,
            lakehouse=Lakehouse(
                uri=self.layout.uri, storage_options=dict(self.layout.storage_options)
            ),
            dynamodb=ScriptedResource(),
        )
        self.cursor: str | None = None

    def put(self, number: int) -> None:
        self.stream.put({"id": {"S": f"k{number}"}, "status": {"S": "new"}})

    def tick(self) -> int:
        """Evaluate the sensor; return the number of runs that it requests."""
        definition = self.defs.resolve_sensor_def("drain_orders")
        resources = self.defs.resources or {}
        with build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.defs,
            resources={key: resources[key] for key in definition.required_resource_keys},
        ) as context:
            found = definition.evaluate_tick(context)
        self.cursor = found.cursor
        return len(found.run_requests or ())

    def apply(self) -> None:
        for one in self.transforms:
            apply_transform(one, self.layout)

    def tables(self) -> list[KeptTable]:
        return [
            ChangeLog(self.layout, SOURCE.name).table,
            CheckpointTable(self.layout, SOURCE.name).table,
            *(dataset_state(self.layout, name) for name in DATASETS),
        ]


def add_commits(table: KeptTable, count: int, since: int = AFTER_CHECKPOINT) -> None:
    """Add entries to the log of a table, and a checkpoint some entries before its end.

    Each is a commit of all applications that have committed, as the entries of a real log are.
    """
    known = table.now()
    assert known is not None
    info = {"commitInfo": {"timestamp": 1, "operation": "WRITE", "operationParameters": {}}}
    actions = [
        info,
        *({"txn": {"appId": one, "version": at}} for one, at in known.transactions.items()),
    ]
    numbers = range(known.version + 1, known.version + 1 + count)
    with ThreadPoolExecutor(16) as pool:
        entry = "\n".join(map(json.dumps, actions)).encode()
        assert all(pool.map(lambda one: table.store.put_if_absent(entry_path(one), entry), numbers))
        before = known.after([actions] * (count - since))
    make_checkpoint(table, before)
    table.forget()


def new_process() -> None:
    """Forget what this process keeps of tables and of files."""
    table_state._tables.clear()
    store._CACHE = remote_files.FileCache()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(1, id="1 commit"),
        pytest.param(COMMITS, id=f"{COMMITS} commits", marks=pytest.mark.store),
    ],
)
def commits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def location(s3_lakehouse: Layout, commits: int) -> Iterator[Location]:
    with DagsterInstance.ephemeral() as instance:
        yield warmed_up(s3_lakehouse, instance, commits)


def warmed_up(layout: Layout, instance: DagsterInstance, commits: int) -> Location:
    """Return a location whose tables have that many commits, after some idle ticks."""
    found = Location(layout, ScriptedStream(shards=2), instance)
    found.put(0)
    found.tick()
    found.apply()
    if commits > 1:
        for table in found.tables():
            add_commits(table, commits)
    for _ in range(2 * len(DATASETS) + 2):
        found.tick()
    return found


def shown(counts: Counts) -> list[tuple[str, str]]:
    return [(one.method, one.path) for one in counts.requests]


def landed(location: Location, counted: Counted, number: int) -> Counts:
    """Put a record and tick until it lands: a shard that was silent is not read in every tick."""
    location.put(number)
    for _ in range(5):
        with counted() as found:
            requested = location.tick()
        if requested:
            assert requested == len(DATASETS)
            return found
    raise AssertionError("the record did not land")


def test_requests_of_ticks(location: Location, counted: Counted) -> None:
    for _ in range(2 * len(DATASETS) + 2):
        with counted() as idle:
            location.tick()
        assert len(idle) <= 2, shown(idle)

    with counted() as checks:
        now = datetime.now(timezone.utc)
        lags = lag_checks(
            location.transforms, AssetKeys(), location.layout, None, now=now, caught_up_at=now
        )
    assert [one.lag.pending_batches for one in lags.values() if one.lag] == [0] * len(DATASETS)
    assert shown(checks) == []

    new_process()
    with counted() as cold:
        location.tick()
    assert len(cold) <= 40, shown(cold)

    CheckpointTable(location.layout, SOURCE.name).open_or_create()
    first = landed(location, counted, 1)
    assert len(first) <= 6 + SAVE, shown(first)
    location.apply()
    location.tick()
    second = landed(location, counted, 2)
    assert len(second) <= 6, shown(second)
    assert second.by_method["PUT"] <= 2, shown(second)

    check_checkpoints(location, counted)
    for table in location.tables():
        add_commits(table, 2 * CHECKPOINT_EVERY, since=CHECKPOINT_EVERY - 1)
    new_process()
    with counted() as coldest:
        location.tick()
    assert len(coldest) <= 40, shown(coldest)


def has_checkpoint(counts: Counts) -> bool:
    return any(
        "_changelog" in one.path and one.kind == "last checkpoint" for one in counts.requests
    )


def check_checkpoints(location: Location, counted: Counted) -> None:
    """Land until the change log has three more Delta checkpoints, each at four requests."""
    ticks: list[Counts] = []
    while sum(map(has_checkpoint, ticks)) < 3:
        location.apply()
        ticks.append(landed(location, counted, 3 + len(ticks)))
        assert len(ticks) <= 4 * CHECKPOINT_EVERY
    for one in ticks:
        assert len(one) <= 6 + SAVE + 2 * CHECKPOINT, shown(one)
    assert sum(map(len, ticks)) <= (6 + 2) * len(ticks), [len(one) for one in ticks]
