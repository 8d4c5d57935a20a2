"""Processes that take a snapshot, killed with SIGKILL under traffic: each item lands once."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.frame.frame import Frame
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model import snapshot_state
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.pipeline import (
    ConnectionSettings,
    SnapshotSettings,
    apply_transform,
    connect_table,
    drain_once,
    read_dataset,
    snapshot_source,
)
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from tests.faults.world import OrdersTable, stream_client

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1", start="snapshot")
ITEMS = 40
DEADLINE_SECONDS = 60


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        "current": Output(Dataset(id="current")),
        "events": Output(Dataset(id="events", mode="append")),
    },
)
def flow(orders: Frame) -> dict[str, Frame]:
    rows = orders.select(
        "eventID", "eventName", "dynamodb.Keys.id.S as id", "dynamodb.NewImage.status.S as status"
    )
    return {"current": rows.select("id", "status"), "events": rows}


def take(endpoint_url: str, layout: Layout) -> SnapshotReport:
    """Take the snapshot as far as it goes now, without the wait of a minute."""
    snapshot_state.SETTLE = timedelta(0)
    client = connect_table(
        SOURCE.table_name,
        ConnectionSettings(
            region="eu-west-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
        ),
    )
    return snapshot_source(
        SOURCE,
        layout,
        client,
        dataset_ids=["current", "events"],
        settings=SnapshotSettings(workers=2, sweep_limit=1.0),
    )


def _take_until_killed(endpoint_url: str, layout: Layout, crash_at: str) -> None:
    logging.disable(logging.WARNING)
    crash_points.hook = crash_points.killer(crash_at)
    client = stream_client(endpoint_url)
    while not take(endpoint_url, layout).is_over:
        drain_once(SOURCE, client, layout)
        apply_transform(flow, layout)


def start(endpoint_url: str, layout: Layout, crash_at: str) -> ForkServerProcess:
    process = get_context("forkserver").Process(
        target=_take_until_killed, args=(endpoint_url, layout, crash_at), daemon=True
    )
    process.start()
    return process


@pytest.mark.parametrize(
    "point",
    [
        f"{crash_points.AFTER_SNAPSHOT_STATE}#1",
        f"{crash_points.AFTER_PAGES_READ}#2",
        f"{crash_points.AFTER_SCAN_COMMIT}#1",
        f"{crash_points.AFTER_SNAPSHOT_STATE}#3",
    ],
)
def test_a_killed_snapshot_is_continued_by_another_process(
    server: LocalDynamoDB, layout: Layout, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr(snapshot_state, "SETTLE", snapshot_state.SETTLE)
    table = OrdersTable(server.endpoint_url, seed=11)
    table.create()
    table.write(ITEMS)
    table.set_stream(enabled=False)
    table.set_stream(enabled=True)  # the items are older than what the stream shows
    client = stream_client(server.endpoint_url)
    drain_once(SOURCE, client, layout)
    killed = start(server.endpoint_url, layout, point)
    table.write(10)
    killed.join(DEADLINE_SECONDS)
    assert killed.exitcode == -signal.SIGKILL

    table.write(10)
    for _ in range(DEADLINE_SECONDS):
        drain_once(SOURCE, client, layout)
        apply_transform(flow, layout)
        if take(server.endpoint_url, layout).is_over:
            break
    drain_once(SOURCE, client, layout)
    apply_transform(flow, layout)
    found = {row["id"]: row["status"] for row in read_dataset(layout, "current").to_pylist()}
    page = table.wire.call("Scan", TableName=SOURCE.table_name)
    assert found == {item["id"]["S"]: item["status"]["S"] for item in page["Items"]}
    events = Counter(read_dataset(layout, "events")["eventID"].to_pylist())
    assert max(events.values()) == 1
