"""start="latest": the time of the service decides, whatever the clock of this machine says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.pipeline import ConnectionSettings, connect, drain_once, open_gaps
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource("orders", start="latest")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as server:
        yield server


@pytest.mark.parametrize("minutes_ahead", [5, 0, -5])
def test_the_clock_of_the_reader_does_not_decide(
    server: LocalDynamoDB, tmp_path: Path, minutes_ahead: int
) -> None:
    server.admin.reset()
    wire, layout = WireClient(server.endpoint_url), Layout(str(tmp_path))
    wire.call(
        "CreateTable",
        TableName="orders",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    settings = ConnectionSettings(
        region="us-east-1",
        endpoint_url=server.endpoint_url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    client = connect("orders", settings)

    def drained() -> int:
        return drain_once(SOURCE, client, layout, clock=clock).records

    def clock() -> datetime:
        return utc_now() + timedelta(minutes=minutes_ahead)

    wire.put_item(TableName="orders", Item={"id": {"S": "before"}})
    server.admin.advance_clock(10)
    assert drained() == 0
    for number in range(2):
        wire.put_item(TableName="orders", Item={"id": {"S": f"after {number}"}})
    assert drained() == 2
    assert open_gaps("orders", layout) == ()
