"""A process that evaluates the drain sensor, or runs the transform's job, until it is killed."""

from __future__ import annotations

import logging
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, Definitions, build_sensor_context

from datazone_dagster import DynamoDBStreamsResource, Lakehouse, Transform, build_definitions
from datazone_dagster.dagster_glue.names import SOURCE_TAG, source_job_name
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import ApplySettings, DrainSettings
from tests.faults.orders import SOURCE, flow, statuses

JOB = flow.job_name
SHARED_JOB = source_job_name(SOURCE)
SENSOR = "drain_orders"
CURSOR = "cursor"


def evaluate_sensor(
    endpoint_url: str, layout: Layout, home: str, *, listening: bool = False
) -> None:
    """Tick for ever; process the result of each tick as the daemon does, in its order.

    Ticks listen if a run is going on, so that none must be requested.
    """
    definitions = code_location(endpoint_url, layout)
    with instance_at(home, threads=listening) as instance:
        if listening:
            job = definitions.resolve_job_def(JOB)
            instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        while True:
            tick(definitions, instance, Path(home) / CURSOR)


def run_job(endpoint_url: str, layout: Layout, home: str) -> None:
    """Execute runs for ever."""
    definitions = code_location(endpoint_url, layout)
    with instance_at(home) as instance:
        while True:
            definitions.resolve_job_def(JOB).execute_in_process(instance=instance)


def run_shared_job(endpoint_url: str, layout: Layout, home: str) -> None:
    """Execute runs of all transforms for ever, as the sensor requests them."""
    definitions = code_location(endpoint_url, layout, flow, statuses, one_run_per_source=True)
    with instance_at(home) as instance:
        while True:
            definitions.resolve_job_def(SHARED_JOB).execute_in_process(
                instance=instance, tags={SOURCE_TAG: "orders"}
            )


def tick(definitions: Definitions, instance: DagsterInstance, cursor: Path) -> None:
    sensor = definitions.resolve_sensor_def(SENSOR)
    resources = definitions.resources or {}
    with build_sensor_context(
        instance=instance,
        cursor=cursor.read_text(errors="replace") if cursor.exists() else None,
        definitions=definitions,
        resources={key: resources[key] for key in sensor.required_resource_keys},
    ) as context:
        found = sensor.evaluate_tick(context)
    for event in found.asset_events:
        instance.report_runless_asset_event(event)
    fresh = cursor.with_suffix(".new")
    fresh.write_text(found.cursor or "")
    fresh.replace(cursor)


def code_location(
    endpoint_url: str, layout: Layout, *transforms: Transform, one_run_per_source: bool = False
) -> Definitions:
    return build_definitions(
        transforms or [flow],
        lakehouse=Lakehouse(uri=layout.uri),
        dynamodb=DynamoDBStreamsResource(
            region_name="eu-west-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
        ),
        drain_settings=DrainSettings(budget_bytes=4096, max_workers=4),
        apply_settings=ApplySettings(chunk_bytes=1),
        one_run_per_source=one_run_per_source,
    )


def instance_at(home: str, *, threads: bool = False) -> DagsterInstance:
    logging.disable(logging.WARNING)
    Path(home).mkdir(exist_ok=True)
    return DagsterInstance.local_temp(home, overrides={"sensors": {"use_threads": threads}})
