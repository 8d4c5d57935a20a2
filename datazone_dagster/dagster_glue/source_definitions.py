"""Definitions of one source: drain sensor, change log, check of the stream, snapshot jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dagster import (
    AssetChecksDefinition,
    AssetSpec,
    JobDefinition,
    SensorDefinition,
    define_asset_job,
    in_process_executor,
)

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.assets.assets import change_log_spec
from datazone_dagster.dagster_glue.jobs.drain_jobs import drain_job
from datazone_dagster.dagster_glue.jobs.snapshot_jobs import snapshot_jobs
from datazone_dagster.dagster_glue.names import (
    DYNAMODB_KEY,
    LAKEHOUSE_KEY,
    sensor_name,
    source_job_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.dagster_glue.sensors.change_log_checks import stream_check
from datazone_dagster.dagster_glue.sensors.sensor import DrainSensor
from datazone_dagster.dagster_glue.shared import Group, Member, shared
from datazone_dagster.model.protocols import Clock
from datazone_dagster.pipeline import DrainSettings, SnapshotSettings


class SourceDefinitions(NamedTuple):
    """Definitions of one source: drain sensor, change log, check of the stream, snapshot jobs."""

    sensor: SensorDefinition
    change_log: AssetSpec
    check: AssetChecksDefinition
    jobs: tuple[JobDefinition, ...]


def source_definitions(
    sources: Iterable[DynamoDBSource],
    members: Sequence[Member],
    resources: tuple[Lakehouse, DynamoDBStreamsResource],
    *,
    settings: DrainSettings,
    snapshot_settings: SnapshotSettings,
    options: RunOptions,
    clock: Clock,
) -> list[SourceDefinitions]:
    """Return the definitions of sources with a stream."""
    return [
        _of_source(
            source,
            [one for one in members if one.transform.source == source],
            resources,
            settings,
            snapshot_settings,
            options,
            clock,
        )
        for source in sources
    ]


def _of_source(
    source: DynamoDBSource,
    members: Sequence[Member],
    resources: tuple[Lakehouse, DynamoDBStreamsResource],
    settings: DrainSettings,
    snapshot_settings: SnapshotSettings,
    options: RunOptions,
    clock: Clock,
) -> SourceDefinitions:
    """Return the definitions of one source; one drain serves every transform downstream of it."""

    def arguments(group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "evaluation_fn": DrainSensor(source, group, settings, options, clock).evaluate,
            "jobs": [
                *group.jobs,
                *_job_of_all(source, group, options),
                group.beside[2],
                *group.beside[4:],
            ],
            "minimum_interval_seconds": options.tick_seconds,
            "default_status": options.default_status,
            "required_resource_keys": {LAKEHOUSE_KEY, DYNAMODB_KEY},
            "description": f"Drains the changes of the DynamoDB table {source.table_name} into its "
            "change log and runs the transforms downstream. Resetting the cursor loses nothing. "
            + options.why_stopped,
        }

    wanted = Group(
        sensor_name(source),
        identical=(*resources, clock),
        equal={
            "source": source,
            "drain_settings": settings,
            "snapshot_settings": snapshot_settings,
            "default_status": options.default_status,
            "tick_seconds": options.tick_seconds,
            "min_run_interval": options.min_run_interval,
            "run_tags": dict(options.run_tags),
            "executor": options.executor,
            "one_run_per_source": options.one_run_per_source,
            "key_prefix": options.keys.prefix,
            "asset of the change log": (spec := change_log_spec(source, options)),
        },
    )
    wanted.beside = (
        spec,
        stream_check(source, options, settings, clock),
        *snapshot_jobs(source, options.keys, wanted, snapshot_settings, clock=clock),
        *_drain_jobs(source, settings, options, clock),
    )
    sensor, group = shared(wanted, members, SensorDefinition, arguments)
    spec, check, *jobs = group.beside
    for one in members:
        one.companions.group = group
    return SourceDefinitions(sensor, spec, check, tuple(jobs))


def _drain_jobs(
    source: DynamoDBSource,
    settings: DrainSettings,
    options: RunOptions,
    clock: Clock,
) -> list[JobDefinition]:
    """Return the job whose runs drain the shards; none where ticks do."""
    if source.drain == "tick":
        return []
    return [drain_job(source, options.keys, settings, options.tick_seconds, clock=clock)]


def _job_of_all(
    source: DynamoDBSource, group: Group, options: RunOptions
) -> list[Any]:  # of no public type
    """Return the job that applies the transforms which share runs; none without any.

    The sensor brings it into the code location: other calls add their transforms to it.
    """
    together = [one for one in group.members.values() if one.applier.shares_runs]
    if not together:
        return []
    ids = [dataset_id for one in together for dataset_id in sorted(one.dataset_ids)]
    return [
        define_asset_job(
            source_job_name(source),
            selection=together[0].keys.selection(ids),  # one source has one prefix
            executor_def=in_process_executor,  # the transforms take turns in one process
            run_tags=dict(options.run_tags),
            description=f"Applies the backlogs of all transforms of {source.table_name}, in turns. "
            "Safe at any time.",
        )
    ]
