"""What `doctor` finds about a Kinesis source, on the local DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.finding import Finding
from datazone_dagster.pipeline import ConnectionSettings, probe_source
from datazone_dagster.sources import KinesisSource
from tests.drain.kinesis_flow import Flow, Service, layout_in


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as running:
        yield running


def found(server: LocalDynamoDB, source: KinesisSource) -> dict[str, Finding]:
    settings = ConnectionSettings(region="us-west-2", endpoint_url=server.endpoint_url)
    return {one.check: one for one in probe_source(source, settings)}


def test_a_source_that_is_set_up(server: LocalDynamoDB, tmp_path: Path) -> None:
    flow = Flow(Service(server), layout_in(tmp_path))
    source = KinesisSource(flow.table, flow.table)
    by_check = found(server, source)
    assert [one for one, finding in by_check.items() if finding.outcome != "ok"] == ["retention"]
    assert "microseconds" in by_check["destination"].what
    assert "24 hours" in by_check["retention"].what
    flow.service.kinesis.increase_stream_retention_period(
        StreamName=flow.table, RetentionPeriodHours=168
    )
    flow.disable()
    flow.precision = "MILLISECOND"
    flow.enable()
    by_check = found(server, source)
    assert by_check["retention"].outcome == "ok"
    assert by_check["destination"].outcome == "warn"
    flow.disable()
    off = found(server, source)["destination"]
    assert off.outcome == "fail"
    assert "DISABLED" in off.what


def test_a_stream_that_is_not_there(server: LocalDynamoDB, tmp_path: Path) -> None:
    flow = Flow(Service(server), layout_in(tmp_path))
    by_check = found(server, KinesisSource(flow.table, "no-such-stream", start="trim_horizon"))
    assert by_check["kinesis:DescribeStreamSummary"].outcome == "fail"
    assert "kinesis:GetRecords" in by_check["not_tried"].what
    assert by_check["destination"].outcome == "fail"
    assert "dynamodb:Scan" not in by_check
