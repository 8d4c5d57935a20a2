"""A Kinesis source in Dagster: sensor, run, checks and metadata, on the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetMaterialization,
    DagsterInstance,
    build_sensor_context,
)

from datazone_dagster import (
    Dataset,
    DynamoDBStreamsResource,
    Input,
    Lakehouse,
    Output,
    Stream,
    build_definitions,
    transform,
)
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, read_dataset
from datazone_dagster.sources import KinesisSource
from datazone_dagster.testing import FixedClock
from tests.drain.kinesis_flow import Flow, Service


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as running:
        yield running


def test_a_kinesis_source_is_drained_applied_and_checked(
    server: LocalDynamoDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    layout = Layout(str(tmp_path / "lake"))
    flow = Flow(Service(server), layout, precision="MILLISECOND")
    source = KinesisSource(
        flow.table,
        flow.table,
        "us-west-2",
        name="orders",
        endpoint_url=server.endpoint_url,
        start="trim_horizon",
    )

    @transform(
        input_mapping={"orders": Input(Stream(source=source))},
        output_mapping={"current": Output(Dataset("current"))},
    )
    def current(orders: Any) -> Any:
        return orders.items()

    clock = FixedClock(datetime.now(timezone.utc).replace(microsecond=0))
    defs = build_definitions(
        [current],
        lakehouse=Lakehouse(uri=layout.uri),
        dynamodb=DynamoDBStreamsResource(),
        drain_settings=DrainSettings(listen_seconds=0),
        clock=clock,
    )
    flow.hold()
    flow.put("a", 1)
    flow.put("a", 2)
    flow.deliver([1, 0, 1])
    definition = defs.resolve_sensor_def("drain_orders")
    resources = defs.resources or {}
    with DagsterInstance.ephemeral() as instance:
        needed = {key: resources[key] for key in definition.required_resource_keys}
        with build_sensor_context(instance=instance, definitions=defs, resources=needed) as context:
            found = definition.evaluate_tick(context)
        assert [one.job_name for one in found.run_requests or ()] == ["apply_current"]
        (landed,) = [one for one in found.asset_events if isinstance(one, AssetMaterialization)]
        assert landed.metadata["records_landed"].value == 2
        assert landed.metadata["records_repeated"].value == 1
        checks = {
            one.check_name: one
            for one in found.asset_events
            if isinstance(one, AssetCheckEvaluation)
        }
        health = checks["stream_health"]
        assert (health.passed, health.severity) == (False, AssetCheckSeverity.WARN)
        assert "MICROSECOND" in (health.description or "")
        defs.resolve_job_def("apply_current").execute_in_process(instance=instance)
        assert "No drain looked" not in (health.description or "")
        clock.advance(timedelta(minutes=20))
        with build_sensor_context(
            instance=instance, definitions=defs, resources=needed, cursor=found.cursor
        ) as context:
            found = definition.evaluate_tick(context)
        (told,) = [
            one.description or ""
            for one in found.asset_events
            if isinstance(one, AssetCheckEvaluation) and one.check_name == "stream_health"
        ]
        assert "No drain looked from " in told
        assert "DisableKinesisStreamingDestination" in told
    rows = read_dataset(layout, "current").to_pylist()
    assert [(row["id"], row["n"]) for row in rows] == [("a", 2)]
