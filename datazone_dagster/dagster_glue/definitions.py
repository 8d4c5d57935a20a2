"""From transforms to Dagster definitions."""

from __future__ import annotations

from collections.abc import Iterable

from dagster import AssetSelection, Definitions, define_asset_job, in_process_executor

from datazone_dagster.api import Transform, checked
from datazone_dagster.dagster_glue.alerts import OnCheck, alert_sensor
from datazone_dagster.dagster_glue.assets import change_log_spec, transform_asset
from datazone_dagster.dagster_glue.built import Built, note
from datazone_dagster.dagster_glue.checks import stream_check
from datazone_dagster.dagster_glue.io_manager import DatasetIOManager
from datazone_dagster.dagster_glue.maintenance import QUIET_HOUR, maintenance_schedule
from datazone_dagster.dagster_glue.names import (
    DYNAMODB_KEY,
    IO_MANAGER_KEY,
    LAKEHOUSE_KEY,
    dataset_check_keys,
    dataset_key,
    stream_check_key,
)
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.dagster_glue.sensor import drain_sensor
from datazone_dagster.dagster_glue.topology import Topology
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.protocols import Clock
from datazone_dagster.pipeline import ApplySettings, DrainSettings, utc_now
from datazone_dagster.process.shutdown import notice_sigterm


def build_definitions(
    transforms: Transform | Iterable[Transform],
    *,
    lakehouse: Lakehouse | None = None,
    dynamodb: DynamoDBStreamsResource | None = None,
    on_check: OnCheck | None = None,
    drain_settings: DrainSettings | None = None,
    apply_settings: ApplySettings | None = None,
    preview: bool = True,
    maintenance_cron: str | None = QUIET_HOUR,
    clock: Clock = utc_now,
) -> Definitions:
    """Assets, jobs, sensors, checks and resources for some transforms.

    The result is plain `dagster.Definitions`; put it together with your own by
    `Definitions.merge(build_definitions([...]), Definitions(assets=[...]))`. Call it once per
    code location, with all transforms: two of them on one table share its drain.

    Args:
        transforms: Functions decorated with `@transform`.
        lakehouse: Where the tables are; the default is `DATAZONE_LAKEHOUSE_URI`, else
            `.datazone/lakehouse` in the working directory.
        dynamodb: How DynamoDB is reached; the default is as any AWS tool does.
        on_check: Called with a `CheckEvent` when a check fails, changes its severity or
            recovers; see `slack_alert`.
        drain_settings: Bounds of one drain; `DrainSettings` is in `datazone_dagster.pipeline`.
        apply_settings: Bounds of one run; `ApplySettings` is there too.
        preview: Whether materializations show a few rows. They are then in Dagster's event
            log: turn it off for data that must not be there.
        maintenance_cron: When all tables are maintained thoroughly, which runs do a piece at a
            time; None: never. The default is 3 at night, UTC.
        clock: Tells the time; for tests.

    Raises:
        DefinitionError: Two transforms clash, both are named; or an argument can't be used.
    """
    topology = Topology.of(transforms)
    lakehouse = lakehouse if lakehouse is not None else Lakehouse()
    dynamodb = dynamodb if dynamodb is not None else DynamoDBStreamsResource()
    drain_settings = drain_settings or DrainSettings()
    apply_settings = apply_settings or ApplySettings()
    for argument, value, kind, example in (
        ("lakehouse", lakehouse, Lakehouse, "lakehouse=Lakehouse(uri='s3://bucket/folder')"),
        ("dynamodb", dynamodb, DynamoDBStreamsResource, "dynamodb=DynamoDBStreamsResource()"),
        ("drain_settings", drain_settings, DrainSettings, "drain_settings=DrainSettings()"),
        ("apply_settings", apply_settings, ApplySettings, "apply_settings=ApplySettings()"),
    ):
        checked.instance("build_definitions", argument, value, kind, example)
    if on_check is not None and not callable(on_check):
        raise DefinitionError(
            f"build_definitions: on_check={on_check!r} is not a function.",
            hint="Give a function that takes one CheckEvent.",
        )
    notice_sigterm()
    note(Built(topology.transforms, lakehouse, dynamodb))
    jobs = {
        transform.name: define_asset_job(
            transform.job_name,
            selection=AssetSelection.assets(
                *(dataset_key(dataset.id) for dataset in transform.outputs.values())
            ),
            executor_def=in_process_executor,
            description=f"Applies the changes that wait for {transform.name}. Safe at any time.",
        )
        for transform in topology.transforms
    }
    sensors = [
        drain_sensor(
            source,
            downstream,
            [jobs[transform.name] for transform in downstream],
            settings=drain_settings,
            clock=clock,
        )
        for source, downstream in topology.by_source.items()
    ]
    if on_check is not None:
        watched = [
            *(stream_check_key(source) for source in topology.by_source),
            *(
                key
                for transform in topology.transforms
                for dataset in transform.outputs.values()
                for key in dataset_check_keys(dataset.id)
            ),
        ]
        sensors.append(alert_sensor(on_check, watched))
    schedules = []
    if maintenance_cron is not None:
        schedules.append(maintenance_schedule(topology.transforms, maintenance_cron, clock=clock))
    return Definitions(
        schedules=schedules,
        assets=[
            *(change_log_spec(source) for source in topology.by_source),
            *(
                transform_asset(transform, apply_settings, preview=preview, clock=clock)
                for transform in topology.transforms
            ),
        ],
        asset_checks=[stream_check(source, drain_settings) for source in topology.by_source],
        jobs=list(jobs.values()),
        sensors=sensors,
        resources={
            LAKEHOUSE_KEY: lakehouse,
            DYNAMODB_KEY: dynamodb,
            IO_MANAGER_KEY: DatasetIOManager(lakehouse=lakehouse),
        },
    )
