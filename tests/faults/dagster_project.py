"""The transform of the fault tests as a code location: the environment says where things are."""

from __future__ import annotations

from datazone_dagster import DynamoDBStreamsResource, build_definitions
from datazone_dagster.pipeline import ApplySettings
from tests.faults.orders import flow

SMALL_CHUNKS = ApplySettings(chunk_bytes=1)

defs = build_definitions(
    [flow],
    apply_settings=SMALL_CHUNKS,
    dynamodb=DynamoDBStreamsResource(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    ),
)
