"""Audits over the wire, by the command too, while others write, drain and apply."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from datazone_dagster.commands.project import Project, load_project
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.audit_report import AuditReport
from datazone_dagster.pipeline import (
    ApplySettings,
    AuditSettings,
    apply_transform,
    audit_source,
    drain_once,
    read_dataset,
)
from tests.audit.worlds import name
from tests.commands.running import run_command

DEFINITIONS = """
from datazone_dagster import *
from datazone_dagster.sources import DynamoDBSource

ORDERS = DynamoDBSource("orders", endpoint_url="{endpoint}", start="trim_horizon")

@transform(
    input_mapping={{"orders": Input(Stream(source=ORDERS))}},
    output_mapping={{"current": Output(Dataset("current"))}},
)
def current(orders):
    return orders.items()

defs = build_definitions([current], lakehouse=Lakehouse(uri="lake"))
"""
BATCH = 25
FIRST_ORDINARY = 10
"""Items below it are left alone by the traffic: differences are planted there."""


def before_a_run_commits(change: Callable[[], object]) -> None:
    """Change a table by delta-rs, again while the runs of the live traffic commit first."""
    for _ in range(50):
        with suppress(CommitFailedError):
            change()
            return
    raise AssertionError("a run committed first, fifty times")


class Live:
    """A project folder on a local DynamoDB, with a drain and runs that never stop."""

    def __init__(self, endpoint_url: str, folder: Path) -> None:
        self.folder = folder
        self.wire = WireClient(endpoint_url)
        (folder / "definitions.py").write_text(DEFINITIONS.format(endpoint=endpoint_url), "utf-8")
        self.project: Project = load_project(
            str(folder / "definitions.py"), None, str(folder / "lake")
        )
        (self.source,) = self.project.sources.values()
        self.stream = self.project.stream_client(self.source)
        self.ended = threading.Event()
        self.changes = 0
        self.wire.call(
            "CreateTable",
            TableName="orders",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def fill(self, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(count, start + BATCH))
            puts = [{"PutRequest": {"Item": item(number, number)}} for number in numbers]
            self.wire.call("BatchWriteItem", RequestItems={"orders": puts})
        while not drain_once(self.source, self.stream, self.project.layout).caught_up:
            pass
        self.apply()

    def apply(self) -> None:
        for one in self.project.transforms:
            apply_transform(one, self.project.layout, settings=ApplySettings(linger_seconds=0))

    def plant_seven(self) -> None:
        """Plant two missing rows, three stale ones and two extra ones."""
        uri = self.project.layout.dataset("current")
        before_a_run_commits(lambda: DeltaTable(uri).delete("id in ('k1', 'k2')"))
        stale = "id in ('k3', 'k4', 'k5')"
        before_a_run_commits(
            lambda: DeltaTable(uri).update({"total": "total + 1"}, predicate=stale)
        )
        row = read_dataset(self.project.layout, "current").slice(0, 1)
        at = row.column_names.index("_dz_key")
        extra = [
            row.set_column(at, "_dz_key", pa.array([name(number)], pa.string()))
            for number in (-1, -2)
        ]
        rows = pa.concat_tables(extra)
        before_a_run_commits(lambda: write_deltalake(uri, rows, mode="append"))

    def audit(self, **settings: Any) -> AuditReport:
        return audit_source(
            self.source,
            self.project.transforms,
            self.project.layout,
            self.project.table_client(self.source),
            settings=AuditSettings(settle_seconds=1, **settings),
        )

    @contextmanager
    def going_on(self, items: int, per_second: float) -> Iterator[None]:
        """Write at a rate, drain and apply, in threads of their own, until the end."""
        failures: list[BaseException] = []

        def run(body: Any) -> None:
            try:
                while not self.ended.is_set():
                    body()
            except BaseException as error:
                failures.append(error)
                raise

        threads = [
            threading.Thread(target=run, args=(body,))
            for body in (self._write_second(items, per_second), self._follow)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()
        assert not failures

    def _follow(self) -> None:
        drain_once(self.source, self.stream, self.project.layout)
        self.apply()
        self.ended.wait(0.2)

    def _write_second(self, items: int, per_second: float) -> Any:
        rng = random.Random(5)
        due = time.monotonic()

        def body() -> None:
            nonlocal due
            number = rng.randrange(FIRST_ORDINARY, items + items // 50)
            if rng.random() < 0.2:
                self.wire.call("DeleteItem", TableName="orders", Key={"id": {"S": f"k{number}"}})
            else:
                self.wire.call(
                    "PutItem", TableName="orders", Item=item(number, rng.randrange(10**6))
                )
            self.changes += 1
            due += 1 / per_second
            self.ended.wait(max(0.0, due - time.monotonic()))

        return body


def item(number: int, total: int) -> dict[str, Any]:
    return {"id": {"S": f"k{number}"}, "total": {"N": str(total)}, "note": {"S": "x" * 40}}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with LocalDynamoDB(shards=2) as server:
        yield Live(server.endpoint_url, tmp_path)


def check_seven(report: AuditReport) -> None:
    (one,) = report.datasets
    assert dict(one.differences) == {"missing": 2, "stale": 3, "extra": 2}
    assert set(one.examples["missing"]) == {name(1), name(2)}
    assert set(one.examples["stale"]) == {name(3), name(4), name(5)}
    assert set(one.examples["extra"]) == {name(-1), name(-2)}


def test_the_command_finds_what_was_planted_under_live_traffic(live: Live) -> None:
    live.fill(100)
    with live.going_on(100, per_second=40):
        live.plant_seven()
        told = run_command("audit", "orders", "--json", cwd=live.folder)
    assert told.returncode == 1, told.stderr
    result = json.loads(told.stdout)
    assert result["datasets"][0]["differences"] == {"missing": 2, "extra": 2, "stale": 3}


def test_the_exit_codes_of_the_command(live: Live) -> None:
    live.fill(30)
    done = run_command("audit", "orders", cwd=live.folder)
    assert done.returncode == 0, done.stderr
    assert "30 items as the service last counted" in done.stdout
    assert "current: 30 items and 30 rows compared: 0 missing, 0 extra, 0 stale." in done.stdout
    assert "Clean" in done.stdout
    live.plant_seven()
    done = run_command("audit", "orders", "--wait-seconds", "1", cwd=live.folder)
    assert done.returncode == 2, "nobody drains"
    assert "7 undecided: the drain has not passed the look in time" in done.stdout
    for wrong in (("nobody",), ("orders", "--dataset", "nobody"), ("orders", "--sample", "2")):
        assert run_command("audit", *wrong, cwd=live.folder).returncode == 2


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_large_table_under_200_changes_a_second(live: Live) -> None:
    """No alarm; then seven planted differences: seven."""
    live.fill(100_000)
    with live.going_on(100_000, per_second=200):
        started, before = time.monotonic(), live.changes
        clean = live.audit()
        seconds = time.monotonic() - started
        meanwhile = live.changes - before
        sys.stdout.write(f"{clean.to_json()} {seconds:.1f} s, {meanwhile} changes meanwhile\n")
        assert not clean.has_differences
        live.plant_seven()
        found = live.audit()
        sys.stdout.write(f"{found.to_json()}\n")
        check_seven(found)
