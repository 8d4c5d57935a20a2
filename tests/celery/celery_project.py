"""Code location whose runs, or whose steps, are executed by Celery's workers.

With `DATAZONE_TEST_STEPS`, the URL of Redis, a run is a process of the code server, and the
executor of dagster-celery hands its step on. Otherwise a run is a task by itself, by the run
launcher of dagster-celery, and the jobs are as always.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from dagster import ExecutorDefinition, in_process_executor

from datazone_dagster import (
    Dataset,
    DynamoDBStreamsResource,
    Input,
    Output,
    Stream,
    build_definitions,
    transform,
)
from datazone_dagster.dagster_glue.runs import staying_runs
from datazone_dagster.frame.frame import Frame
from datazone_dagster.pipeline import ApplySettings
from tests.celery.names import AT_WORK, BUCKETS
from tests.faults.orders import SOURCE

BROKER = os.environ.get("DATAZONE_TEST_STEPS")
WAY = "runs" if BROKER is None else "steps"

# The silence of a run is as it is everywhere. Runs make room for others sooner, as there is no
# worker to spare for them.
if WAY == "runs":
    staying_runs.STARTING_LONG /= 2


def executor() -> ExecutorDefinition:
    if BROKER is None:
        return in_process_executor
    from dagster_celery import celery_executor

    config = {"broker": BROKER, "backend": BROKER}
    found: ExecutorDefinition = celery_executor.configured(config)
    return found


@transform(
    input_mapping={"orders": Input(Stream(source=replace(SOURCE, start="trim_horizon")))},
    output_mapping={
        "current": Output(Dataset(id="current", buckets=BUCKETS[WAY])),
        "events": Output(Dataset(id="events", mode="append", buckets=BUCKETS[WAY])),
    },
)
def flow(orders: Frame) -> dict[str, object]:
    (Path(os.environ["DAGSTER_HOME"]) / AT_WORK / str(os.getsid(0))).touch()
    rows = orders.select(
        "eventID",
        "dynamodb.Keys.id.S as id",
        "dynamodb.NewImage.status.S as status",
        "cast(dynamodb.NewImage.total.N as bigint) as total",
    )
    return {"current": rows, "events": rows}


defs = build_definitions(
    [flow],
    executor=executor(),
    # A worker dies, or is frozen, between two of many chunks.
    apply_settings=ApplySettings(chunk_bytes=1, idle_seconds=15.0),
    dynamodb=DynamoDBStreamsResource(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    ),
)
