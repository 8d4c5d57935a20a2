"""The rate of a scan over the wire, with items of 10 KB: within 5 % of its limit, never above."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model import snapshot_state
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.model.table_scan import ScanPage, TableClient, TableDescription
from datazone_dagster.pipeline import (
    ConnectionSettings,
    SnapshotSettings,
    connect_table,
    drain_once,
    snapshot_source,
    snapshot_status,
)
from datazone_dagster.sources import DynamoDBSource
from tests.faults.world import stream_client

TABLE = "orders"
ITEM_BYTES, ITEMS = 10_000, 6_000
_logger = logging.getLogger(__name__)

LIMIT = 400.0
TOLERANCE = 0.05
WINDOW_SECONDS = 10.0

SOURCE = DynamoDBSource(TABLE, region="eu-west-1", start="snapshot", snapshot_rcu=LIMIT)


class FakeTime:
    """Seconds that pass only while the scan waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds


class Metered:
    """The client, with the units that the server says each page has consumed."""

    def __init__(self, client: TableClient, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._lock = threading.Lock()
        self.pages: list[tuple[float, float]] = []

    def describe_table(self) -> TableDescription:
        return self._client.describe_table()

    def get_items(self, keys: Any) -> dict[str, str]:
        return self._client.get_items(keys)

    def scan_page(self, *place: Any, consistent: bool) -> ScanPage:
        page = self._client.scan_page(*place, consistent=consistent)
        with self._lock:
            self.pages.append((self._now(), page.read_units))
        return page


def filled(server: LocalDynamoDB) -> None:
    server.admin.reset()
    wire = WireClient(server.endpoint_url, region="eu-west-1")
    wire.call(
        "CreateTable",
        TableName=TABLE,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )
    for start in range(0, ITEMS, 25):
        puts = [
            {"PutRequest": {"Item": {"id": {"S": f"{number}"}, "note": {"S": "x" * ITEM_BYTES}}}}
            for number in range(start, start + 25)
        ]
        wire.call("BatchWriteItem", RequestItems={TABLE: puts})
    specification: dict[str, Any] = {"StreamEnabled": False}
    wire.call("UpdateTable", TableName=TABLE, StreamSpecification=specification)
    specification = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    wire.call("UpdateTable", TableName=TABLE, StreamSpecification=specification)


@pytest.mark.faults
@pytest.mark.parametrize("clock", ["fake", "real"])
def test_a_scan_keeps_to_its_rate(
    server: LocalDynamoDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """On a fake clock the whole table, in real time for twelve seconds."""
    filled(server)
    monkeypatch.setattr(snapshot_state, "SETTLE", timedelta(0))
    layout = Layout(str(tmp_path / "lakehouse"))
    settings = ConnectionSettings(
        region="eu-west-1",
        endpoint_url=server.endpoint_url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    fake = FakeTime()
    is_fake = clock == "fake"
    now, pause = (fake.now, fake.pause) if is_fake else (time.monotonic, time.sleep)
    metered = Metered(connect_table(TABLE, settings), now)
    stream = stream_client(server.endpoint_url)
    for _ in range(20):
        drain_once(SOURCE, stream, layout)
        snapshot_source(
            SOURCE,
            layout,
            metered,
            settings=SnapshotSettings(sweep_limit=1.0),
            deadline_seconds=None if is_fake else 12.0,
            monotonic=now,
            pause=pause,
        )
        report = snapshot_status(TABLE, layout)
        assert report is not None
        if report.phase is Phase.DONE or (not is_fake and report.rows):
            break
    assert report is not None
    assert not is_fake or report.rows == ITEMS
    assert report.read_units == sum(units for _, units in metered.pages)
    assert report.read_units >= report.rows * ITEM_BYTES / 4096

    (first, first_units), *_, (last, _) = pages = sorted(metered.pages)
    rate = (report.read_units - first_units) / (last - first)
    _logger.warning(
        "%s: %.1f units a second, %.1f s, %d pages", clock, rate, last - first, len(pages)
    )
    assert rate <= LIMIT * (1 + TOLERANCE)
    # In real time a busy machine makes pages late, and a late page is not caught up with.
    assert rate >= LIMIT * (1 - (TOLERANCE if is_fake else 4 * TOLERANCE))
    page_units = max(units for _, units in pages)
    for start, _ in pages:
        used = sum(units for at, units in pages if start <= at < start + WINDOW_SECONDS)
        assert used <= LIMIT * WINDOW_SECONDS * (1 + TOLERANCE) + page_units
