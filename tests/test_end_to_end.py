"""The published example under the real Dagster daemon, on the local DynamoDB."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.dagster_glue.instance_config import dagster_yaml
from datazone_dagster.demo.servers import DagsterDev, free_port
from datazone_dagster.errors import StorageError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.traffic import OrderTraffic, create_orders_table, run_traffic
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import read_dataset

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

PROJECT = Path(__file__).parent.parent
DEADLINE_SECONDS = 180.0

CHECK = """
{ assetNodes(assetKeys: [{path: ["processed_orders"]}]) { assetChecksOrError {
    ... on AssetChecks { checks { name executionForLatestMaterialization {
        status evaluation { success } } } } } } }
"""
RUNS = "{ runsOrError { ... on Runs { results { jobName status } } } }"
RESET = """
mutation($selector: SensorSelector!) { setSensorCursor(sensorSelector: $selector, cursor: "?") {
    __typename } }
"""
SELECTOR = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "definitions.py",
    "sensorName": "drain_orders",
}


class Running:
    """The local DynamoDB and Dagster, with what the test asks of them."""

    def __init__(self, server: LocalDynamoDB, dagster: DagsterDev, layout: Layout) -> None:
        self.server = server
        self.client = WireClient(server.endpoint_url)
        self._dagster = dagster
        self._layout = layout

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._dagster.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            reply: dict[str, Any] = json.load(answer)
        assert "errors" not in reply, reply
        data: dict[str, Any] = reply["data"]
        return data

    def items(self) -> dict[str, str]:
        items: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        while True:
            page = self.client.call("Scan", TableName="orders", **start)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return {item["orderId"]["S"]: item["status"]["S"] for item in items}
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def rows(self) -> dict[str, str]:
        try:
            rows = read_dataset(self._layout, "processed_orders").to_pylist()
        except StorageError:
            return {}
        found = {row["order_id"]: row["status"] for row in rows}
        assert len(found) == len(rows), "an order has two rows"
        return found

    def wait_until_equal(self) -> None:
        wanted = self.items()
        wait_for(lambda: self.rows() == wanted)

    def lag_passed(self) -> bool | None:
        """What the lag check last said; None while a run evaluates it."""
        (node,) = self.graphql(CHECK)["assetNodes"]
        (lag,) = [one for one in node["assetChecksOrError"]["checks"] if one["name"] == "lag"]
        execution = lag["executionForLatestMaterialization"]
        if not execution or not execution["evaluation"]:
            return None
        success: bool = execution["evaluation"]["success"]
        return success


def wait_for(state: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not state():
        assert time.monotonic() < deadline, "it did not come to this state in time"
        pause.wait(1)


@contextmanager
def dagster_on(
    server: LocalDynamoDB, layout: Layout, home: Path, *, port: int, project: Path = PROJECT
) -> Iterator[Running]:
    """Run Dagster on a project, a local DynamoDB and a lakehouse until the block ends."""
    home.mkdir()
    (home / "dagster.yaml").write_text(dagster_yaml())
    environment = {
        "AWS_ENDPOINT_URL_DYNAMODB": server.endpoint_url,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": server.endpoint_url,
        "DATAZONE_LAKEHOUSE_URI": layout.uri,
    }
    dagster = DagsterDev(project, home, free_port(port), environment)
    try:
        dagster.wait_until_ready()
        yield Running(server, dagster, layout)
    finally:
        dagster.stop()


def project_with(arguments: str, folder: Path) -> Path:
    """Return a copy of the project whose source has these arguments."""
    folder.mkdir()
    code = (PROJECT / "definitions.py").read_text("utf-8")
    changed = code.replace("stream_enabled=True", arguments)
    assert changed != code
    (folder / "definitions.py").write_text(changed, "utf-8")
    shutil.copy(PROJECT / "workspace.yaml", folder / "workspace.yaml")
    return folder


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    layout = Layout(str(tmp_path / "lakehouse"))
    with LocalDynamoDB(shards=2) as server:
        create_orders_table(WireClient(server.endpoint_url))
        with dagster_on(server, layout, tmp_path / "dagster", port=3700) as running:
            yield running


def test_the_dataset_equals_the_table_through_splits_and_a_cursor_reset(running: Running) -> None:
    traffic = iter(OrderTraffic(seed=7, coupon_after=700))
    for step in range(4):
        run_traffic(running.client, traffic, changes=500)  # type: ignore[arg-type] # goes on
        if step < 3:
            running.server.admin.split("orders", step)
        if step == 1:
            running.wait_until_equal()
            running.graphql(RESET, selector=SELECTOR)
    running.wait_until_equal()

    wait_for(running.lag_passed)
    states = {run["status"] for run in running.graphql(RUNS)["runsOrError"]["results"]}
    assert states & {"STARTED", "SUCCESS"}  # a run stays for half a minute after the last change
    assert "FAILURE" not in states
