"""A store that is down: the tick and the run end soon with our error, and the check says so."""

from __future__ import annotations

import traceback
from datetime import timedelta

import pytest
from dagster import AssetCheckSeverity

from datazone_dagster import Lakehouse, build_definitions
from datazone_dagster.errors import StoreUnavailableError
from tests.dagster_glue.conftest import KEYS, SOURCE, ScriptedResource, World

OPTIONS = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ALLOW_HTTP": "true",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIAKEY",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t",
    "max_retries": "0",
}


@pytest.fixture
def down(world: World) -> World:
    world.defs = build_definitions(
        world.transforms,
        lakehouse=Lakehouse(uri="s3://lake/orders", storage_options=OPTIONS),
        dynamodb=ScriptedResource(),
        clock=world.clock,
    )
    return world


def test_health_says_storage(down: World) -> None:
    for minutes, severity in ((0, AssetCheckSeverity.WARN), (2, AssetCheckSeverity.ERROR)):
        down.clock.advance(timedelta(minutes=minutes))
        with pytest.raises(StoreUnavailableError, match="connection refused") as caught:
            down.tick()
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
        health = down.latest(KEYS.source_check(SOURCE, "stream_health"))
        assert health is not None
        assert not health.passed
        assert health.severity is severity
        assert health.metadata["state"].value == "STORAGE"
        assert "s3://lake/orders" in (health.description or "")


def test_a_run_says_what_failed(down: World) -> None:
    result = down.run("apply_orders", raise_on_error=False)
    [failure] = result.get_step_failure_events()
    error = str(failure.step_failure_data.error)
    assert "StoreUnavailableError" in error
    assert "connection refused" in error
    assert "s3cr3t" not in error
    assert not result.get_asset_check_evaluations()
