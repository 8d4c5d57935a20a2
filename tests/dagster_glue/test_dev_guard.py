"""`dagster dev` on a laptop with AWS keys drains nothing unasked."""

from __future__ import annotations

import logging

import pytest
from dagster import DefaultScheduleStatus, DefaultSensorStatus, Definitions, EnvVar

from datazone_dagster import DynamoDBStreamsResource, Lakehouse, build_definitions
from datazone_dagster.dagster_glue.sensors import dev_guard
from tests.dagster_glue.conftest import orders_transform

RUNNING, STOPPED = DefaultSensorStatus.RUNNING, DefaultSensorStatus.STOPPED


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dagster dev` on a laptop with AWS keys: an endpoint or a lakehouse is named nowhere."""
    for name in (*dev_guard.ENDPOINT_VARIABLES, "DATAZONE_LAKEHOUSE_URI", "DATAZONE_ALLOW_DEV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")


def status(
    lakehouse: Lakehouse | None = None,
    dynamodb: DynamoDBStreamsResource | None = None,
    given: DefaultSensorStatus | None = None,
) -> DefaultSensorStatus:
    defs = build_definitions(
        [orders_transform()], lakehouse=lakehouse, dynamodb=dynamodb, default_status=given
    )
    return defs.resolve_sensor_def("drain_orders").default_status


def guarded() -> Definitions:
    return build_definitions([orders_transform()], audit_cron="0 4 * * *")


def test_nothing_starts_and_the_log_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        defs = guarded()
    sensor = defs.resolve_sensor_def("drain_orders")
    assert sensor.default_status is STOPPED
    for name in ("datazone_maintenance", "audit_orders"):
        schedule = defs.resolve_schedule_def(name)
        assert schedule.default_status is DefaultScheduleStatus.STOPPED
    for text in (caplog.text, sensor.description or ""):
        assert "does not drain orders in AWS into a folder of this machine" in text
        assert "Start the sensor in the UI, set DATAZONE_ALLOW_DEV=1" in text


@pytest.mark.parametrize("value", [None, ""])
def test_a_deployment_is_not_dev(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("DAGSTER_IS_DEV_CLI")
    else:
        monkeypatch.setenv("DAGSTER_IS_DEV_CLI", value)
    assert status() is RUNNING


@pytest.mark.parametrize(
    ("value", "expected"), [("1", RUNNING), ("true", RUNNING), ("0", STOPPED), ("", STOPPED)]
)
def test_who_says_so_drains(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: DefaultSensorStatus
) -> None:
    monkeypatch.setenv("DATAZONE_ALLOW_DEV", value)
    assert status() is expected


def test_a_status_that_is_given_counts() -> None:
    assert status(given=RUNNING) is RUNNING
    assert status(Lakehouse(uri="/tmp/lake"), given=STOPPED) is STOPPED


def test_a_lakehouse_with_a_location_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(Lakehouse(uri="s3://bucket/lake")) is RUNNING
    assert status(Lakehouse(uri=EnvVar("MY_LAKE"))) is STOPPED  # not set: the default folder
    monkeypatch.setenv("MY_LAKE", "/tmp/lake")
    assert status(Lakehouse(uri=EnvVar("MY_LAKE"))) is RUNNING
    monkeypatch.setenv("DATAZONE_LAKEHOUSE_URI", "/tmp/lake")
    assert status() is RUNNING


@pytest.mark.parametrize("name", dev_guard.ENDPOINT_VARIABLES)
def test_an_emulator_is_no_production(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert status(dynamodb=DynamoDBStreamsResource(endpoint_url="http://127.0.0.1:8000")) is RUNNING
    for endpoint, expected in (
        ("http://localstack:4566", RUNNING),
        ("https://streams.dynamodb.eu-west-1.amazonaws.com", STOPPED),
        ("https://dynamodb.eu-west-1.api.aws", STOPPED),
    ):
        monkeypatch.setenv(name, endpoint)
        assert status() is expected, endpoint
