"""Pages of compatible and of hostile stores: members left out, a record nested too deep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe.metadata import drain_metadata
from datazone_dagster.pipeline import (
    ConnectionSettings,
    apply_transform,
    connect,
    drain_once,
    quarantine_report,
    read_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from tests.source.scripted import Answer, ScriptedService, ok

ARN = "arn:aws:dynamodb:us-west-2:123456789012:table/orders"
STREAM = f"{ARN}/stream/2026-01-01T00:00:00.000"
NEXT = {"NextShardIterator": "next"}
NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
SETTINGS = {"region": "us-west-2", "aws_access_key_id": "k", "aws_secret_access_key": "s"}


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """A store with one open shard whose pages leave out what they may."""
    with ScriptedService() as service:
        stream = {"StreamArn": STREAM, "TableName": "orders", "StreamLabel": "2026"}
        service.script("ListStreams", ok({"Streams": [stream]}))
        table = {"TableName": "orders", "TableArn": ARN, "LatestStreamArn": STREAM}
        date = format_datetime(NOW, usegmt=True)
        service.script("DescribeTable", ok({"Table": table}, Date=date))
        described = {
            "StreamArn": STREAM,
            "StreamStatus": "ENABLED",
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            "Shards": [{"ShardId": "shardId-00000000000000000001-00000001"}],
        }
        service.script("DescribeStream", ok({"StreamDescription": described}))
        service.script("GetShardIterator", ok({"ShardIterator": "first"}))
        yield service


def record(number: int, **changes: Any) -> dict[str, Any]:
    keys = {"id": {"S": str(number)}}
    return {
        "eventID": f"e{number}",
        "eventName": "INSERT",
        "dynamodb": {
            "SequenceNumber": f"{number:021d}",
            "Keys": keys,
            "NewImage": {**keys, **changes},
        },
    }


@pytest.mark.parametrize("mode", ["merge", "append", "history"])
@pytest.mark.parametrize("start", ["trim_horizon", "latest"])
def test_records_without_a_time_and_pages_without_records(
    service: ScriptedService, tmp_path: Path, mode: Any, start: Any
) -> None:
    source = DynamoDBSource("orders", start=start)

    @transform(
        input_mapping={"orders": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset(id="rows", mode=mode))},
    )
    def flow(orders: Frame) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id")

    service.script(
        "GetRecords",
        ok({"NextShardIterator": "second"}),
        ok({"Records": [record(1), record(2)], "NextShardIterator": "third"}),
        ok({"NextShardIterator": "last"}),
    )
    settings = ConnectionSettings(endpoint_url=service.url, **SETTINGS)  # type: ignore[arg-type]
    layout = Layout(str(tmp_path))
    report = drain_once(source, connect("orders", settings), layout)
    assert (report.records, report.malformed, report.caught_up) == (2, 0, True)
    assert report.shard_errors == ()
    assert report.undated == 2
    assert drain_metadata(report, "uri", now=NOW)["records_without_time"] == 2
    apply_transform(flow, layout)
    rows = read_dataset(layout, "rows").to_pylist()
    assert [row["id"] for row in rows] == ["1", "2"]
    times = [row["_dz_event_time"] for row in rows]
    if start == "trim_horizon":
        assert all(NOW <= at < NOW + timedelta(minutes=1) for at in times)


@pytest.mark.parametrize("mask", [{}, {"d.a": "hash"}])
def test_a_record_nested_900_levels_is_quarantined_and_its_shard_goes_on(
    service: ScriptedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: Any
) -> None:
    monkeypatch.setenv("DATAZONE_MASK_SALT", "a salt of sixteen characters")
    source = DynamoDBSource("orders", mask=mask)

    @transform(
        input_mapping={"orders": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset(id="rows"))},
    )
    def flow(orders: Frame) -> Frame:
        return orders.items()

    page = json.dumps({"Records": [record(1), record(2, d="DEEP"), record(3)], **NEXT})
    deep = '{"M":{"a":' * 900 + '{"S":"x"}' + "}}" * 900
    service.script(
        "GetRecords",
        Answer(page.replace('"DEEP"', deep).encode()),
        ok({"Records": [record(4)], **NEXT}),
        ok({"Records": [], **NEXT}),
    )
    settings = ConnectionSettings(endpoint_url=service.url, **SETTINGS)  # type: ignore[arg-type]
    layout = Layout(str(tmp_path))
    report = drain_once(source, connect("orders", settings), layout)
    assert (report.records, report.malformed, report.shard_errors) == (3, 1, ())
    applied = apply_transform(flow, layout)["rows"]
    assert (applied.row_count, applied.quarantined) == (3, 1)
    ((reason, count),) = quarantine_report(flow, "rows", layout).reasons
    assert ("nested too deep" in reason, count) == (True, 1)
    assert redrive_dataset(flow, "rows", layout).waiting == 1
