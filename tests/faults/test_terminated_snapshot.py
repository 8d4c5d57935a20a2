"""A snapshot that somebody terminates in the UI: it ends soon, and a later run goes on there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.errors import StorageError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.traffic import create_orders_table, enable_stream
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.pipeline import snapshot_status
from tests.faults.world import grace_seconds
from tests.test_end_to_end import SELECTOR, Running, dagster_on, project_with, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

ITEMS, NOTE_BYTES = 2_000, 1_500
SNAPSHOT_RCU = 15
"""So few that the scan takes about a minute, a page some seconds."""
JOB = "snapshot_orders"
DEADLINE_SECONDS = 400.0

RUNS = "{ runsOrError { ... on Runs { results { runId jobName status } } } }"
TERMINATE = """
mutation($id: String!) { terminateRun(runId: $id) {
    __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }
"""
LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on PythonError { message } } }
"""

_logger = logging.getLogger(__name__)


def write_items(client: WireClient) -> None:
    for start in range(0, ITEMS, 25):
        puts: list[dict[str, Any]] = [
            {
                "PutRequest": {
                    "Item": {
                        "orderId": {"S": f"old-{number:05d}"},
                        "status": {"S": "paid"},
                        "note": {"S": "x" * NOTE_BYTES},
                    }
                }
            }
            for number in range(start, start + 25)
        ]
        client.call("BatchWriteItem", RequestItems={"orders": puts})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lakehouse"))


@pytest.fixture
def running(tmp_path: Path, layout: Layout) -> Iterator[Running]:
    project = project_with(f'start="snapshot", snapshot_rcu={SNAPSHOT_RCU}', tmp_path / "project")
    with LocalDynamoDB(shards=2) as server:
        client = WireClient(server.endpoint_url)
        create_orders_table(client, with_stream=False)
        write_items(client)
        enable_stream(client)
        home = tmp_path / "dagster"
        with dagster_on(server, layout, home, port=3900, project=project) as running:
            yield running


def runs(running: Running) -> list[tuple[str, str]]:
    """Return id and status of the runs of the snapshot's job, the newest first."""
    found = running.graphql(RUNS)["runsOrError"]["results"]
    return [(one["runId"], one["status"]) for one in found if one["jobName"] == JOB]


def snapshot(layout: Layout) -> SnapshotReport | None:
    try:
        return snapshot_status("orders", layout)
    except StorageError:
        return None


def landed_rows(layout: Layout) -> int:
    report = snapshot(layout)
    return 0 if report is None else report.rows


def test_a_terminated_snapshot_goes_on_where_it_was(running: Running, layout: Layout) -> None:
    wait_for(lambda: landed_rows(layout) > 0, DEADLINE_SECONDS)
    ((run_id, status),) = runs(running)
    assert status == "STARTED"
    began = time.monotonic()
    answer = running.graphql(TERMINATE, id=run_id)["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess", answer
    wait_for(lambda: runs(running) == [(run_id, "CANCELED")], DEADLINE_SECONDS)
    took = time.monotonic() - began
    before = snapshot(layout)
    assert before is not None
    assert before.phase is Phase.SCANNING
    assert 0 < before.rows < ITEMS
    _logger.warning("terminated in %.1f s, %d rows landed", took, before.rows)
    assert took < 2 * grace_seconds()

    drained = running.server.admin.counters(reset=True)
    assert drained["calls"]["GetRecords"]
    wait_for(lambda: running.server.admin.counters()["calls"].get("GetRecords", 0) > 6)
    assert runs(running) == [(run_id, "CANCELED")], "the sensor starts none against somebody's will"
    assert landed_rows(layout) == before.rows

    selector = {key: value for key, value in SELECTOR.items() if key != "sensorName"}
    params = {"selector": {**selector, "pipelineName": JOB}, "mode": "default"}
    launched = running.graphql(LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    wait_for(lambda: landed_rows(layout) > before.rows, DEADLINE_SECONDS)

    def is_done() -> bool:
        report = snapshot(layout)
        return report is not None and report.phase is Phase.DONE

    wait_for(is_done, DEADLINE_SECONDS)
    after = snapshot(layout)
    assert after is not None
    assert (after.id, after.epoch, after.announced_at) == (
        before.id,
        before.epoch,
        before.announced_at,
    ), "it began again"
    assert after.rows == ITEMS, "an item is landed twice, or missing"
    running.wait_until_equal()
    wait_for(lambda: runs(running)[0][1] == "SUCCESS", DEADLINE_SECONDS)
