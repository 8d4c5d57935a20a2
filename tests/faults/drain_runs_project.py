"""The transform of the fault tests, of a source that two drain runs read, with all real times."""

from __future__ import annotations

from dataclasses import replace

from datazone_dagster import DynamoDBStreamsResource, Input, Stream, build_definitions, transform
from tests.faults.orders import SOURCE, flow

SETS = 2

defs = build_definitions(
    [
        transform(
            input_mapping={
                "orders": Input(
                    Stream(
                        source=replace(
                            SOURCE, drain="runs", drain_workers=SETS, start="trim_horizon"
                        )
                    )
                )
            },
            output_mapping={name: flow.output_mapping[name] for name in flow.output_mapping},
        )(flow.function)
    ],
    dynamodb=DynamoDBStreamsResource(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    ),
)
