"""Code location whose runs are executed by Celery's workers: its jobs are as always."""

from __future__ import annotations

from dataclasses import replace

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
from tests.faults.orders import SOURCE

BUCKETS = 4

# The silence of a run is as it is everywhere. Runs make room for others sooner.
staying_runs.STARTING_LONG /= 2


@transform(
    input_mapping={"orders": Input(Stream(source=replace(SOURCE, start="trim_horizon")))},
    output_mapping={
        "current": Output(Dataset(id="current", buckets=BUCKETS)),
        "events": Output(Dataset(id="events", mode="append", buckets=BUCKETS)),
    },
)
def flow(orders: Frame) -> dict[str, object]:
    rows = orders.select(
        "eventID",
        "dynamodb.Keys.id.S as id",
        "dynamodb.NewImage.status.S as status",
        "cast(dynamodb.NewImage.total.N as bigint) as total",
    )
    return {"current": rows, "events": rows}


defs = build_definitions(
    [flow],
    # A worker dies, or is frozen, between two of many chunks.
    apply_settings=ApplySettings(chunk_bytes=1, idle_seconds=15.0),
    dynamodb=DynamoDBStreamsResource(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    ),
)
