"""A table `orders` on a local DynamoDB: written to, read from, and used as the oracle."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from functools import lru_cache
from multiprocessing.process import BaseProcess
from typing import Any

from datazone_dagster.local import AdminClient, LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard import TRIM_HORIZON
from datazone_dagster.pipeline import DrainSettings, apply_transform, drain_once
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.session import Clients, build_clients
from tests.faults.ledger import record
from tests.faults.orders import (
    HIDDEN_STATUS,
    SOURCE,
    Row,
    current_rows,
    event_ids,
    flow,
    order,
    rows_of_items,
)

DEADLINE_SECONDS = 60
"""Time until a process reaches the point at which it is killed."""

GRACE_SECONDS = 10.0
"""Time that a process gets to shut down."""


def overload() -> float:
    """Return how many processes are runnable for each core; at least 1.0."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def grace_seconds() -> float:
    """Return `GRACE_SECONDS`, scaled up if more processes are runnable than there are cores."""
    return GRACE_SECONDS * overload()


STATUSES = ("placed", "paid", "shipped", HIDDEN_STATUS)


@lru_cache(maxsize=16)
def _clients(endpoint_url: str, read_timeout_seconds: float, max_attempts: int) -> Clients:
    return build_clients(
        ConnectionSettings(
            region="eu-west-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
            read_timeout_seconds=read_timeout_seconds,
            max_attempts=max_attempts,
        )
    )


def stream_client(
    endpoint_url: str, *, read_timeout_seconds: float = 10.0, max_attempts: int = 3
) -> BotoStreamClient:
    """Return a new client, without cached iterators, on shared connections."""
    return BotoStreamClient(
        SOURCE.table_name, _clients(endpoint_url, read_timeout_seconds, max_attempts)
    )


class OrdersTable:
    """A table with seeded changes: the same seed writes the same changes."""

    def __init__(self, endpoint_url: str, seed: int) -> None:
        self.endpoint_url = endpoint_url
        self.admin = AdminClient(endpoint_url)
        self.wire = WireClient(endpoint_url, region="eu-west-1")
        self.dice = random.Random(seed)

    def create(self) -> None:
        self.admin.reset()
        self._create()

    def recreate(self) -> None:
        self.wire.call("DeleteTable", TableName=SOURCE.table_name)
        self._create()

    def _create(self) -> None:
        self.wire.call(
            "CreateTable",
            TableName=SOURCE.table_name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def write(self, changes: int) -> None:
        for _ in range(changes):
            number = self.dice.randrange(40)
            if self.dice.random() < 0.2:
                key = {"id": {"S": f"k{number}"}}
                self.wire.delete_item(TableName=SOURCE.table_name, Key=key)
            else:
                item = order(number, self.dice.choice(STATUSES), self.dice.randrange(100))
                self.wire.put_item(TableName=SOURCE.table_name, Item=item)

    def write_many_pages(self, pages: int) -> int:
        """Write records so large that a page has three of them; return their number."""
        for number in range(3 * pages):
            item = {**order(number, "placed", number), "note": {"S": "x" * 300_000}}
            self.wire.put_item(TableName=SOURCE.table_name, Item=item)
        return 3 * pages

    def end_a_shard(self) -> None:
        if self.dice.random() < 0.5:
            self.admin.split(SOURCE.table_name)
        else:
            self.admin.roll(SOURCE.table_name)

    def set_stream(self, *, enabled: bool) -> None:
        specification: dict[str, Any] = {"StreamEnabled": enabled}
        if enabled:
            specification["StreamViewType"] = "NEW_AND_OLD_IMAGES"
        self.wire.call(
            "UpdateTable", TableName=SOURCE.table_name, StreamSpecification=specification
        )

    def rows(self) -> dict[str, Row]:
        """Return the rows that `current` must have."""
        items: list[Any] = []
        start: dict[str, Any] = {}
        while True:
            page = self.wire.call("Scan", TableName=SOURCE.table_name, **start)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return rows_of_items(items)
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def event_ids(self) -> Counter[str]:
        """Return the event ids of every record that the table's streams still have."""
        client = stream_client(self.endpoint_url)
        found: Counter[str] = Counter()
        for stream_arn in client.stream_arns():
            for shard in client.describe(stream_arn).shards:
                iterator: str | None = client.shard_iterator(
                    stream_arn, shard.shard_id, TRIM_HORIZON
                )
                while iterator is not None:
                    page = client.get_records(iterator)
                    found.update(record.event_id for record in page.records)
                    iterator = page.next_iterator if page.records else None
        return found


def drain_to_the_end(
    endpoint_url: str, layout: Layout, *, settings: DrainSettings = DrainSettings()
) -> None:
    client = stream_client(endpoint_url)
    for _ in range(100):
        report = drain_once(SOURCE, client, layout, settings=settings)
        if report.caught_up and report.stream_arn == client.stream_arns()[-1]:
            return
    raise AssertionError("the drain never caught up")


def table_with_an_ended_shard(server: LocalDynamoDB, seed: int) -> OrdersTable:
    """Create a table, and write changes before and after one of its shards ends."""
    table = OrdersTable(server.endpoint_url, seed=seed)
    table.create()
    table.write(60)
    table.end_a_shard()
    table.write(60)
    return table


def write_until_killed(table: OrdersTable, worker: BaseProcess) -> None:
    """Write changes until a process has been killed; then some more."""
    deadline = time.monotonic() + DEADLINE_SECONDS * overload()
    while worker.is_alive() and time.monotonic() < deadline:
        table.write(5)
        worker.join(0.1)
    assert worker.exitcode == -signal.SIGKILL
    table.write(20)


def catch_up(endpoint_url: str, layout: Layout) -> None:
    """Drain and apply everything, as a healthy process would."""
    drain_to_the_end(endpoint_url, layout)
    apply_transform(flow, layout)


def assert_exactly_once(
    table: OrdersTable, layout: Layout, *, fault: str, injected: int = 1
) -> None:
    """Check that the dataset equals the table, and that no event is lost or doubled."""
    written, found = table.event_ids(), event_ids(layout)
    entry = record(fault, injected, written, found)
    assert (entry.lost, entry.doubled) == (0, 0), (entry, written - found, found - written)
    assert current_rows(layout) == table.rows()
