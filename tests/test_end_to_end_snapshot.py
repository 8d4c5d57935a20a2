"""A table older than its stream, under the real Dagster daemon: its snapshot starts itself.

The default run has the same in one process, tests/dagster_glue/test_snapshots.py, and the daemon
with the published example, test_end_to_end.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.traffic import (
    OrderTraffic,
    create_orders_table,
    enable_stream,
    run_traffic,
)
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from tests.test_end_to_end import RUNS, Running, dagster_on, project_with, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(420)]

ITEMS = 2_000
DEADLINE_SECONDS = 300.0

CHECK = """
{ assetNodes(assetKeys: [{path: ["processed_orders"]}]) { assetChecksOrError {
    ... on AssetChecks { checks { name executionForLatestMaterialization {
        evaluation { success severity description } } } } }
    assetMaterializations(limit: 1) { metadataEntries { label } } } }
"""


class Evaluation:
    """The check `complete` as Dagster shows it last, and the labels of the newest metadata."""

    def __init__(self, running: Running) -> None:
        (node,) = running.graphql(CHECK)["assetNodes"]
        checks = (node["assetChecksOrError"] or {}).get("checks", ())
        found = next((one for one in checks if one["name"] == "complete"), None)
        execution: Any = (found or {}).get("executionForLatestMaterialization") or {}
        evaluation = execution.get("evaluation") or {}
        self.success: bool | None = evaluation.get("success")
        self.severity: str = evaluation.get("severity", "")
        self.text: str = evaluation.get("description") or ""
        newest = node["assetMaterializations"]
        self.labels = {entry["label"] for one in newest for entry in one["metadataEntries"]}


def write_old_orders(client: WireClient) -> None:
    for start in range(0, ITEMS, 25):
        puts = [
            {"PutRequest": {"Item": {"orderId": {"S": f"old-{n:05d}"}, "status": {"S": "paid"}}}}
            for n in range(start, start + 25)
        ]
        client.call("BatchWriteItem", RequestItems={"orders": puts})


def write_and_delete(client: WireClient, stop: threading.Event) -> None:
    """Live traffic: new orders that come and go, and old ones that are deleted or shipped."""
    traffic = iter(OrderTraffic(seed=5))
    for number in range(0, ITEMS, 7):
        run_traffic(client, traffic, changes=5)  # type: ignore[arg-type] # goes on
        key = {"orderId": {"S": f"old-{number:05d}"}}
        client.delete_item(TableName="orders", Key=key)
        shipped = {"orderId": {"S": f"old-{number + 1:05d}"}, "status": {"S": "shipped"}}
        client.put_item(TableName="orders", Item=shipped)
        if stop.wait(0.4):
            return


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    project = project_with('start="snapshot"', tmp_path / "project")
    layout = Layout(str(tmp_path / "lakehouse"))
    with LocalDynamoDB(shards=2) as server:
        client = WireClient(server.endpoint_url)
        create_orders_table(client, with_stream=False)
        write_old_orders(client)
        enable_stream(client)
        home = tmp_path / "dagster"
        with dagster_on(server, layout, home, port=3800, project=project) as running:
            yield running


IN_PROGRESS = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED"}


def test_the_snapshot_starts_by_itself_and_ends_with_the_table(running: Running) -> None:
    stop = threading.Event()
    writer = threading.Thread(target=write_and_delete, args=(running.client, stop))
    writer.start()
    try:
        wait_for(lambda: Evaluation(running).success is False, DEADLINE_SECONDS)
        before = Evaluation(running)
        assert before.severity == "WARN", before.text
        assert "snapshot" in before.text
        wait_for(lambda: Evaluation(running).success, DEADLINE_SECONDS)
    finally:
        stop.set()
        writer.join()
    assert "Consistent with the table since" in Evaluation(running).text
    running.wait_until_equal()
    assert sum(key.startswith("old-") for key in running.items()) > ITEMS / 2
    wait_for(lambda: "consistent_since" in Evaluation(running).labels, DEADLINE_SECONDS)
    # The run that hands over audits a sample before it ends.
    wait_for(lambda: not statuses(running, "snapshot_orders") & IN_PROGRESS, DEADLINE_SECONDS)
    assert statuses(running, "snapshot_orders") == {"SUCCESS"}
    assert "FAILURE" not in statuses(running)


def statuses(running: Running, job: str | None = None) -> set[str]:
    runs = running.graphql(RUNS)["runsOrError"]["results"]
    return {run["status"] for run in runs if job is None or run["jobName"] == job}
