"""Time when a stream was last read to its end, from the Dagster instance.

Sensors and runs are different processes. The cursor of the sensor, saved by every tick, passes the
time from one to the other, so that both compute the same lag of a dataset. So does the
`stream_health` check, which is evaluated less often.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from dagster import AssetCheckEvaluation, AssetCheckKey, DagsterInstance, TimestampMetadataValue

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.names import STREAM_CHECK, sensor_name
from datazone_dagster.dagster_glue.sensors.cursor import SensorCursor


def known_caught_up_at(
    instance: DagsterInstance, source: DynamoDBSource, keys: AssetKeys
) -> datetime | None:
    """Return the latest `caught_up_at` of the sensor and its check; None if there is none."""
    return max(
        (
            *_of_check(instance, keys.source_check(source, STREAM_CHECK)),
            *_of_cursors(instance, source),
        ),
        default=None,
    )


def _of_check(instance: DagsterInstance, key: AssetCheckKey) -> Iterator[datetime]:
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record is not None and record.event else None
    facts = event.event_specific_data if event is not None else None
    if not isinstance(facts, AssetCheckEvaluation):
        return
    value = facts.metadata.get("caught_up_at")
    if isinstance(value, TimestampMetadataValue) and value.value is not None:
        yield datetime.fromtimestamp(value.value, timezone.utc)


def _of_cursors(instance: DagsterInstance, source: DynamoDBSource) -> Iterator[datetime]:
    if instance.schedule_storage is None:  # an instance of tests, which no daemon uses
        return
    now = datetime.now(timezone.utc)
    for state in instance.all_instigator_state():
        if state.instigator_name != sensor_name(source) or state.instigator_data is None:
            continue
        text = getattr(state.instigator_data, "cursor", None)
        cursor = SensorCursor.parse(text, now=now)
        if cursor.caught_up_at is not None and not cursor.never_read:
            yield cursor.caught_up_at
