"""The transform of the fault tests as a code location, with its locations in the environment.

Dead runs are noticed, and failed runs retried, within seconds.
"""

from __future__ import annotations

from datetime import timedelta

from datazone_dagster import DynamoDBStreamsResource, build_definitions
from datazone_dagster.dagster_glue.runs import heartbeat
from datazone_dagster.model import retries
from datazone_dagster.pipeline import ApplySettings
from tests.faults.orders import flow

heartbeat.HEARTBEAT_SECONDS = 0.5
heartbeat.SILENCE_SECONDS = 4.0
retries.FIRST_WAIT = retries.LONGEST_WAIT = timedelta(seconds=1)

SMALL_CHUNKS = ApplySettings(chunk_bytes=1)

defs = build_definitions(
    [flow],
    apply_settings=SMALL_CHUNKS,
    dynamodb=DynamoDBStreamsResource(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    ),
)
