"""The checks of a change log as a definition: Dagster lists them, and they can run by hand."""

# No postponed annotations here: Dagster reads the real one of `context`.

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSpec,
    AssetKey,
    AssetMaterialization,
    multi_asset_check,
)

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.api.kinesis_source import known_retention, stream_name_of
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.rendering import as_results, rendered, severity
from datazone_dagster.dagster_glue.names import (
    DRAIN_CHECK,
    DYNAMODB_KEY,
    HEADROOM_CHECK,
    LAKEHOUSE_KEY,
    SNAPSHOT_CHECK,
    STREAM_CHECK,
    WATCH_SENSOR,
    sensor_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from datazone_dagster.dagster_glue.sensors.cursor import SensorCursor
from datazone_dagster.dagster_glue.sensors.drain_runs import DrainRuns
from datazone_dagster.dagster_glue.sensors.sensor_checks import (
    StreamReads,
    snapshot_check,
    stream_checks,
)
from datazone_dagster.dagster_glue.sensors.snapshot_requests import decide_snapshot
from datazone_dagster.dagster_glue.sensors.watch_drains import drain_evaluation, drain_facts
from datazone_dagster.model.protocols import Clock
from datazone_dagster.observe.drain_watch import drain_status
from datazone_dagster.observe.health import health_of_report
from datazone_dagster.observe.metadata import drain_metadata
from datazone_dagster.pipeline import DrainSettings, drain_once, drain_tick


def stream_check(
    source: DynamoDBSource, options: RunOptions, settings: DrainSettings, clock: Clock
) -> AssetChecksDefinition:
    """Return the checks of the change log of a source. The sensor evaluates them all the time.

    A run by hand drains once, which is safe at any time, and reports the result. With
    `drain="runs"`, it does what a tick of the sensor does of a drain.
    """
    keys = options.keys
    key = keys.change_log(source)

    @multi_asset_check(
        name=f"check_{source.name}_stream",
        specs=_specs(source, key),
        required_resource_keys={LAKEHOUSE_KEY, DYNAMODB_KEY},
        can_subset=True,
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[AssetCheckResult]:
        lakehouse: Lakehouse = getattr(context.resources, LAKEHOUSE_KEY)
        dynamodb: DynamoDBStreamsResource = getattr(context.resources, DYNAMODB_KEY)
        client = dynamodb.stream_client(
            source.table_name,
            region=source.region,
            endpoint_url=source.endpoint_url,
            stream_name=stream_name_of(source),
        )
        layout = lakehouse.layout
        place = RunPlace.of_run(context.run, layout)
        bounds: Any = {"settings": settings, "clock": clock, "logger": context.log}
        if source.drain == "runs":
            runs = DrainRuns(source, settings, options, context.instance, place)
            report = drain_tick(source, client, layout, part=runs.part(clock(), None), **bounds)
        else:
            report = drain_once(source, client, layout, **bounds)
        now = clock()
        if report.batch is not None:
            metadata = drain_metadata(report, lakehouse.layout.change_log(source.name), now=now)
            context.instance.report_runless_asset_event(
                AssetMaterialization(key, metadata=rendered(metadata))
            )
        caught_up_at = now if report.caught_up else None
        health = health_of_report(report, now=now, caught_up_at=caught_up_at)
        placed = PlacedRuns(context.instance, place, sensor_name(source), now)
        decision = decide_snapshot(source, report.snapshot, placed, keys, loaded_at=now)
        known = SensorCursor(newest_at=report.event_time_max)
        reads = StreamReads.after(report, known, now)
        found = stream_checks(source, keys, health, caught_up_at, reads, now)
        for one in (*found, snapshot_check(source, keys, report.snapshot, decision)):
            if one.key not in context.selected_asset_check_keys:
                continue
            yield AssetCheckResult(
                asset_key=key,
                check_name=one.key.name,
                passed=one.level.passed,
                severity=severity(one.level),
                description=one.reason,
                metadata=rendered(one.plain),
            )
        yield from _drain_result(context, source, keys, now)

    return check


def _specs(source: DynamoDBSource, key: AssetKey) -> list[AssetCheckSpec]:
    return [
        AssetCheckSpec(
            STREAM_CHECK,
            asset=key,
            description="The stream is read without errors: no shard fails, and no change "
            "was lost before it was read.",
        ),
        AssetCheckSpec(
            HEADROOM_CHECK,
            asset=key,
            description="Unread changes are far from being trimmed by DynamoDB, which keeps "
            "them for 24 hours. Warns below 6 hours, fails below 2.",
        ),
        AssetCheckSpec(
            SNAPSHOT_CHECK,
            asset=key,
            description="The last snapshot of the source is complete, or none was asked for. "
            "Warns while one is taken, fails while one does not get on.",
        ),
        AssetCheckSpec(
            DRAIN_CHECK,
            asset=key,
            description=f"The sensor {sensor_name(source)} is switched on, ticks and does not "
            f"fail. The sensor {WATCH_SENSOR} evaluates it.",
        ),
    ]


def _drain_result(
    context: AssetCheckExecutionContext, source: DynamoDBSource, keys: AssetKeys, now: datetime
) -> Iterator[AssetCheckResult]:
    name = sensor_name(source)
    facts = drain_facts(context.instance, name, None)
    drain = drain_evaluation(
        keys.source_check(source, DRAIN_CHECK),
        drain_status(name, facts, now=now, watched_since=now, retention=known_retention(source)),
    )
    if drain.asset_check_key in context.selected_asset_check_keys:
        yield from as_results([drain])
