"""Sensor readings that DynamoDB keeps for a week, and the dataset for good."""

from datetime import timedelta

from datazone_dagster import Dataset, Input, Output, Stream, build_definitions, transform
from datazone_dagster.frame import Frame
from datazone_dagster.pipeline import DrainSettings
from datazone_dagster.sources import DynamoDBSource

READINGS = DynamoDBSource("readings", region="eu-west-1")


@transform(
    input_mapping={"changes": Input(Stream(source=READINGS))},
    output_mapping={
        "archive": Output(
            Dataset(
                "readings_archive",
                ttl_deletes="ignore",  # DynamoDB forgets a reading, the archive does not
                partition_by="day",
                description="Every reading, also after its time to live.",
            )
        ),
        "alarms": Output(
            Dataset(
                "alarms",
                mode="append",
                ttl_deletes="ignore",
                description="An event for each reading above 80 degrees.",
            )
        ),
    },
)
def readings(changes: Frame) -> dict[str, Frame]:
    """Readings with typed columns: the key is the device and the second."""
    typed = changes.select(
        "dynamodb.Keys.device.S as device",
        "to_timestamp(cast(dynamodb.Keys.at.N as bigint)) as at",
        "cast(to_timestamp(cast(dynamodb.Keys.at.N as bigint)) as date) as day",
        # Measured values are floats: a double is near enough, and half the size of a decimal.
        "cast(dynamodb.NewImage.celsius.N as double) as celsius",
        "cast(dynamodb.NewImage.battery.N as real) as battery",
    )
    hot = changes.filter("cast(dynamodb.NewImage.celsius.N as double) > 80").select(
        "dynamodb.Keys.device.S as device",
        "to_timestamp(cast(dynamodb.Keys.at.N as bigint)) as at",
        "cast(dynamodb.NewImage.celsius.N as double) as celsius",
    )
    return {"archive": typed, "alarms": hot}


# The archive has every reading: the change log need not keep them too.
defs = build_definitions(
    [readings], drain_settings=DrainSettings(keep_changes=timedelta(days=7)), preview=False
)
