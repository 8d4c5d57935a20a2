"""Construction of Dagster definitions from transforms."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from weakref import ref

from dagster import (
    AssetsDefinition,
    AutomationCondition,
    DefaultSensorStatus,
    Definitions,
    ExecutorDefinition,
    RetryPolicy,
    SensorDefinition,
    define_asset_job,
    in_process_executor,
)

from datazone_dagster.api import Transform, checked
from datazone_dagster.api.calls import explained
from datazone_dagster.dagster_glue.alerts.alerts import OnCheck
from datazone_dagster.dagster_glue.alerts.on_check_sensor import on_check_sensor
from datazone_dagster.dagster_glue.applier import Applier
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.assets.assets import transform_asset
from datazone_dagster.dagster_glue.assets.io_manager import DatasetIOManager
from datazone_dagster.dagster_glue.built import Built, record
from datazone_dagster.dagster_glue.folder_names import refuse_shared_folders
from datazone_dagster.dagster_glue.jobs.audit_check import audit_definitions
from datazone_dagster.dagster_glue.jobs.maintenance import QUIET_HOUR, maintenance_schedules
from datazone_dagster.dagster_glue.jobs.repair_jobs import repair_jobs
from datazone_dagster.dagster_glue.names import (
    DYNAMODB_KEY,
    IO_MANAGER_KEY,
    LAKEHOUSE_KEY,
)
from datazone_dagster.dagster_glue.options import RunOptions, default_tick_seconds
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.dagster_glue.runs.celery_executor import ending_with_its_run
from datazone_dagster.dagster_glue.runs.run_requests import tags_of_runs
from datazone_dagster.dagster_glue.sensors.dev_guard import guarded
from datazone_dagster.dagster_glue.sensors.watch_drains import watch_sensors
from datazone_dagster.dagster_glue.shared import Companions, Member, shared_job, shared_resource
from datazone_dagster.dagster_glue.source_definitions import source_definitions
from datazone_dagster.dagster_glue.topology import Topology, refuse_job_names
from datazone_dagster.dagster_glue.translator import DagsterDatazoneTranslator
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.protocols import Clock
from datazone_dagster.pipeline import (
    ApplySettings,
    DrainSettings,
    SnapshotSettings,
    utc_now,
)
from datazone_dagster.process.shutdown import notice_sigterm

KEEP_RUNS = timedelta(days=7)

_KINDS: dict[str, tuple[type, str]] = {
    "lakehouse": (Lakehouse, "Lakehouse(uri='s3://bucket/folder')"),
    "dynamodb": (DynamoDBStreamsResource, "DynamoDBStreamsResource()"),
    "drain_settings": (DrainSettings, "DrainSettings()"),
    "apply_settings": (ApplySettings, "ApplySettings()"),
    "snapshot_settings": (SnapshotSettings, "SnapshotSettings()"),
}


@explained(
    "build_definitions([my_transform, another], lakehouse=Lakehouse(...))",
    {"resources": "Other resources are merged: Definitions.merge(build_definitions(...), mine)."},
)
def build_definitions(
    transforms: Transform | Iterable[Transform],
    *,
    lakehouse: Lakehouse | None = None,
    dynamodb: DynamoDBStreamsResource | None = None,
    on_check: OnCheck | None = None,
    drain_settings: DrainSettings | None = None,
    apply_settings: ApplySettings | None = None,
    snapshot_settings: SnapshotSettings | None = None,
    preview: bool = True,
    maintenance_cron: str | None = QUIET_HOUR,
    audit_cron: str | None = None,
    keep_runs: timedelta | None = KEEP_RUNS,
    default_status: DefaultSensorStatus | None = None,
    tick_seconds: int | None = None,
    min_run_interval: timedelta = timedelta(0),
    run_tags: Mapping[str, str] | None = None,
    op_tags: Mapping[str, str] | None = None,
    executor: ExecutorDefinition = in_process_executor,
    retry_policy: RetryPolicy | None = None,
    automation_condition: AutomationCondition[Any] | None = None,
    translator: DagsterDatazoneTranslator | None = None,
    one_run_per_source: bool = False,
    key_prefix: str | Sequence[str] | None = None,
    clock: Clock = utc_now,
) -> Definitions:
    """Build assets, jobs, sensors, checks and resources for transforms.

    Building reads and writes nothing. Transforms on the same DynamoDB table share one drain, also
    those of several calls with the same settings that are merged into one code location.

    Args:
        transforms: One or more functions decorated with `@transform`.
        lakehouse: Location of the tables. Defaults to `Lakehouse()`: the environment variable
            `DATAZONE_LAKEHOUSE_URI`, else `.datazone/lakehouse` in the working directory.
        dynamodb: Connection to DynamoDB. Defaults to `DynamoDBStreamsResource()`, which uses the
            AWS environment and profile.
        on_check: Function that is called with a `CheckEvent` when a check fails, changes its
            severity or recovers, such as `slack_alert(...)`. None: no alerts.
        drain_settings: Bounds of one drain, a `datazone_dagster.pipeline.DrainSettings`.
        apply_settings: Bounds of one run, a `datazone_dagster.pipeline.ApplySettings`.
        snapshot_settings: Bounds of a scan, a `datazone_dagster.pipeline.SnapshotSettings`.
        preview: Whether materializations show a few rows. These are stored in Dagster's event
            log: pass False for data that must not be there.
        maintenance_cron: Cron schedule, in UTC, of thorough maintenance of all tables; runs only
            maintain a bounded piece at a time. Defaults to daily at 03:00. None: no schedule.
        audit_cron: Cron schedule, in UTC, of a check `audit` on each source with a stream: about
            20,000 items of the table, others each day, are scanned and compared with its datasets.
            None: no schedule, job or check.
        keep_runs: Age, above 0, after which the schedule removes successful runs of the transforms
            and of maintenance, with their events; the newest 100 of each job stay. Defaults to 7
            days. None: no run is removed.
        default_status: Status of the sensors and schedules where Dagster sees them for the first
            time. Defaults to RUNNING, but to STOPPED in a process of `dagster dev` that would drain
            a table of AWS into the default lakehouse: then a laptop with AWS keys drains nothing
            until you start the sensor in the UI, or set the variable `DATAZONE_ALLOW_DEV=1`.
        tick_seconds: Shortest time between two drains of a stream, 1 or more. Defaults to 5, and to
            15 if the lakehouse is in an object store, where a landed batch writes two objects.
            Dagster's daemon looks for due sensors every five seconds.
        min_run_interval: Shortest time between the starts of two runs of a transform that its
            sensor requests. Changes wait in the change log meanwhile; `lag` counts that time.
        run_tags: Tags of the runs that the sensors request, and of those that are started as the
            jobs of the transforms, for launchers and run queues, such as
            `{"dagster/priority": "5"}`. Those of a transform come first.
        op_tags: Tags of the ops of the transforms, such as a Kubernetes configuration.
        executor: Executor of the jobs `apply_<transform>`. Defaults to the run's own process.
        retry_policy: Retry policy of the ops. Defaults to none: after a failure the sensor requests
            the next run, after a wait that doubles up to 5 minutes.
        automation_condition: Condition of all datasets, beside the sensor. Defaults to none. A
            dataset without a stream needs one, or a schedule, to be materialized by itself.
        translator: How assets look: a `DagsterDatazoneTranslator` whose `get_asset_spec` changes
            group, owners, tags and more, of datasets and change logs. Defaults to what the
            datasets say.
        one_run_per_source: Whether the transforms of a stream share the runs that its sensor
            requests: one run of the job `apply_source_<source>`, in which they take turns, chunk by
            chunk, instead of one run each. It takes one process and reads the change log once.
            Materializing a dataset by hand is as without it.
        key_prefix: First part of the keys of all assets and checks, or a list of several, such as
            `["team", "raw"]`, each of letters, digits, `_` and `-`. Names of jobs and sensors, and
            tables, are the same with any. Defaults to none.
        clock: Function that returns the time in UTC; for tests.

    Returns:
        Plain `dagster.Definitions`, which can be merged with others, those of this function
        included.

    Raises:
        DefinitionError: Two transforms clash (the message names both), or an argument is
            invalid.

    Example:
        ```python
        defs = Definitions.merge(
            build_definitions([orders], lakehouse=Lakehouse(uri="s3://acme-lake/orders")),
            Definitions(assets=[report]),
        )
        ```
    """
    topology = Topology.of(transforms)
    lakehouse = lakehouse if lakehouse is not None else Lakehouse()
    dynamodb = dynamodb if dynamodb is not None else DynamoDBStreamsResource()
    drain_settings = DrainSettings() if drain_settings is None else drain_settings
    apply_settings = ApplySettings() if apply_settings is None else apply_settings
    snapshot_settings = SnapshotSettings() if snapshot_settings is None else snapshot_settings
    _check_kinds(lakehouse, dynamodb, drain_settings, apply_settings, snapshot_settings)
    _warn_of_plain_secrets(lakehouse)
    _check_calls(on_check, keep_runs)
    refuse_shared_folders(topology, lakehouse)
    options = RunOptions(
        default_status or DefaultSensorStatus.RUNNING,
        default_tick_seconds(lakehouse) if tick_seconds is None else tick_seconds,
        min_run_interval,
        run_tags or {},
        op_tags or {},
        executor,
        retry_policy,
        automation_condition,
        translator or DagsterDatazoneTranslator(),
        one_run_per_source,
        AssetKeys.of(key_prefix),
    )
    if default_status is None:
        options = guarded(options, lakehouse, dynamodb, topology.by_source)
    apply_settings = replace(apply_settings, show_rows=apply_settings.show_rows and preview)
    notice_sigterm()
    both = lakehouse, dynamodb = shared_resource(lakehouse), shared_resource(dynamodb)
    record(Built(topology.transforms, lakehouse, dynamodb, preview, options))
    members, assets = _members(
        topology, apply_settings, snapshot_settings, options, preview=preview, clock=clock
    )
    sources = source_definitions(
        topology.streams,
        members,
        both,
        settings=drain_settings,
        snapshot_settings=snapshot_settings,
        options=options,
        clock=clock,
    )
    watching = _watching(on_check, members, lakehouse, options, clock)
    maintenance = maintenance_schedules(
        members, maintenance_cron, lakehouse, options, keep_runs=keep_runs, clock=clock
    )
    audits = audit_definitions(members, both, audit_cron, snapshot_settings, options, clock)
    return Definitions(
        schedules=[*maintenance, *(one.schedule for one in audits)],
        assets=[*(one.change_log for one in sources), *assets],
        asset_checks=[*(one.check for one in sources), *(one.check for one in audits)],
        jobs=[
            *(member.job for member in members),
            *repair_jobs(members, apply_settings, preview=preview, clock=clock),
            *(job for one in sources for job in one.jobs),
            *(one.job for one in audits),
        ],
        sensors=[*(one.sensor for one in sources), *watching],
        resources=_resources(lakehouse, dynamodb),
    )


def _watching(
    on_check: OnCheck | None,
    members: list[Member],
    lakehouse: Lakehouse,
    options: RunOptions,
    clock: Clock,
) -> list[SensorDefinition]:
    """Return the sensors that watch the drains and the checks."""
    alerts = (
        [] if on_check is None else [on_check_sensor(on_check, members, lakehouse, options, clock)]
    )
    return [*watch_sensors(members, lakehouse, options, clock), *alerts]


def _warn_of_plain_secrets(lakehouse: Lakehouse) -> None:
    if lakehouse.plain_secrets:
        warnings.warn(
            f"Lakehouse(storage_options=...) has {', '.join(lakehouse.plain_secrets)} written in "
            "the code: Dagster stores the settings of resources in its database and shows them. "
            'Name the variable instead: EnvVar("AWS_SECRET_ACCESS_KEY").',
            stacklevel=3,
        )


def _members(
    topology: Topology,
    apply_settings: ApplySettings,
    snapshot_settings: SnapshotSettings,
    options: RunOptions,
    *,
    preview: bool,
    clock: Clock,
) -> tuple[list[Member], list[AssetsDefinition]]:
    """Return each transform with its job, and the assets, which the caller has to keep."""
    refuse_job_names(topology, one_run_per_source=options.one_run_per_source)
    companions = {source: Companions() for source in topology.by_source}
    members, assets = [], []
    for transform in topology.transforms:
        shares = options.shares_runs(transform)
        applier = Applier(
            transform, options.keys, apply_settings, snapshot_settings, preview, clock, shares
        )
        others = companions[transform.source]
        assets.append(transform_asset(applier, others, options))
        members.append(Member(applier, _apply_job(transform, options), ref(assets[-1]), others))
    return members, assets


def _resources(lakehouse: Lakehouse, dynamodb: DynamoDBStreamsResource) -> dict[str, Any]:
    return {
        LAKEHOUSE_KEY: lakehouse,
        DYNAMODB_KEY: dynamodb,
        IO_MANAGER_KEY: shared_resource(DatasetIOManager(lakehouse=lakehouse), given=False),
    }


def _check_kinds(*given: object) -> None:
    for value, (argument, (kind, example)) in zip(given, _KINDS.items(), strict=True):
        checked.instance("build_definitions", argument, value, kind, f"{argument}={example}")


def _check_calls(on_check: object, keep_runs: object) -> None:
    if on_check is not None and not callable(on_check):
        raise DefinitionError(
            f"build_definitions: on_check={on_check!r} is not a function.",
            hint="Give a function that takes one CheckEvent.",
        )
    if keep_runs is not None and not (isinstance(keep_runs, timedelta) and keep_runs > timedelta()):
        raise DefinitionError(
            f"build_definitions: keep_runs={keep_runs!r} is not a time above 0.",
            hint="Give a timedelta, such as timedelta(days=7), or None to keep every run.",
        )


def _apply_job(
    transform: Transform, options: RunOptions
) -> Any:  # define_asset_job's type has no public name
    dataset_ids = [dataset.id for dataset in transform.outputs.values()]
    tags = tags_of_runs(transform, options)
    executor = ending_with_its_run(options.executor)
    job = shared_job(transform.name, set(dataset_ids), options.keys, executor, tags)
    if job is not None:
        return job
    return define_asset_job(
        transform.job_name,
        selection=options.keys.selection(dataset_ids),
        executor_def=executor,
        run_tags=tags,
        description=f"Applies the backlog of {transform.name}. Safe at any time."
        if transform.source.stream_enabled
        else f"Scans {transform.source.table_name} and replaces what {transform.name} makes of it.",
    )
