"""Time when a stream was last read to its end, from the Dagster instance.

Sensors and runs are different processes. The `stream_health` check passes the time from one to
the other, so that both compute the same lag of a dataset.
"""

from __future__ import annotations

from datetime import datetime, timezone

from dagster import AssetCheckEvaluation, DagsterInstance, TimestampMetadataValue

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.names import stream_check_key


def known_caught_up_at(instance: DagsterInstance, source: DynamoDBSource) -> datetime | None:
    """Return `caught_up_at` of the last `stream_health` evaluation; None if there is none."""
    record = instance.get_latest_asset_check_evaluation_record(stream_check_key(source))
    event = record.event.dagster_event if record is not None and record.event else None
    facts = event.event_specific_data if event is not None else None
    if not isinstance(facts, AssetCheckEvaluation):
        return None
    value = facts.metadata.get("caught_up_at")
    if not isinstance(value, TimestampMetadataValue) or value.value is None:
        return None
    return datetime.fromtimestamp(value.value, timezone.utc)
