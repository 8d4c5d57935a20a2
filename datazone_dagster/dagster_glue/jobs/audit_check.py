"""The `audit` check of a source: its datasets compared with a sample of the table, on a schedule.

The check is on the change log, not on the datasets: Dagster evaluates the checks of an asset with
each run that materializes it, and an audit reads the table.
"""

# No postponed annotations here: Dagster reads the real one of `context`.

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSpec,
    AssetSelection,
    DefaultScheduleStatus,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
    multi_asset_check,
)

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.rendering import rendered, severity
from datazone_dagster.dagster_glue.checks.sample_audit import (
    audit_line,
    audit_metadata,
    sample_settings,
)
from datazone_dagster.dagster_glue.names import (
    AUDIT_CHECK,
    DYNAMODB_KEY,
    LAKEHOUSE_KEY,
    audit_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dagster_glue.shared import Group, Member, shared
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.audit_report import AuditReport
from datazone_dagster.model.protocols import Clock
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain
from datazone_dagster.pipeline import SnapshotSettings, audit_source


class AuditDefinitions(NamedTuple):
    """The `audit` check of one source, its job, and the schedule of the job."""

    check: AssetChecksDefinition
    job: Any  # the type that define_asset_job returns has no public name
    schedule: ScheduleDefinition


def audit_definitions(
    members: Sequence[Member],
    resources: tuple[Lakehouse, DynamoDBStreamsResource],
    cron: str | None,
    settings: SnapshotSettings,
    options: RunOptions,
    clock: Clock,
) -> list[AuditDefinitions]:
    """Return the definitions of every source with a stream; none without a schedule."""
    sources = dict.fromkeys(member.transform.source for member in members)
    return [
        _of_source(
            source,
            [member for member in members if member.transform.source == source],
            resources,
            cron,
            settings,
            options,
            clock,
        )
        for source in sources
        if source.stream_enabled and cron is not None
    ]


def _of_source(
    source: DynamoDBSource,
    members: Sequence[Member],
    resources: tuple[Lakehouse, DynamoDBStreamsResource],
    cron: str,
    settings: SnapshotSettings,
    options: RunOptions,
    clock: Clock,
) -> AuditDefinitions:
    """Return the check of one source, which compares the datasets of all its transforms."""

    def arguments(group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "job": group.beside[1],
            "cron_schedule": cron,
            "default_status": DefaultScheduleStatus[options.default_status.name],
            "description": f"Compares the datasets of {source.name} with a sample of its table.",
        }

    wanted = Group(
        audit_name(source),
        identical=(*resources, clock),
        equal={
            "source": source,
            "audit_cron": cron,
            "snapshot_settings": settings,
            "default_status": options.default_status,
            "key_prefix": options.keys.prefix,
        },
    )
    wanted.beside = (
        _check(source, options.keys, wanted, settings, clock),
        define_asset_job(
            audit_name(source),
            selection=AssetSelection.checks(options.keys.audit_check(source)),
            executor_def=in_process_executor,
            description=f"Compares the datasets of {source.name} with a sample of its table. "
            "Changes no row. Safe at any time.",
        ),
    )
    schedule, group = shared(wanted, members, ScheduleDefinition, arguments)
    check, job = group.beside
    return AuditDefinitions(check, job, schedule)


def _check(
    source: DynamoDBSource, keys: AssetKeys, group: Group, settings: SnapshotSettings, clock: Clock
) -> AssetChecksDefinition:
    key = keys.change_log(source)

    def result(level: Level, reason: str, plain: dict[str, Plain]) -> AssetCheckResult:
        return AssetCheckResult(
            asset_key=key,
            check_name=AUDIT_CHECK,
            passed=level.passed,
            severity=severity(level),
            description=reason,
            metadata=rendered(plain),
        )

    @multi_asset_check(
        name=f"check_{audit_name(source)}",
        specs=[
            AssetCheckSpec(
                AUDIT_CHECK,
                asset=key,
                description="The datasets show the items of a sample of the table, as they are.",
            )
        ],
        required_resource_keys={LAKEHOUSE_KEY, DYNAMODB_KEY},
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[AssetCheckResult]:
        lakehouse: Lakehouse = getattr(context.resources, LAKEHOUSE_KEY)
        dynamodb: DynamoDBStreamsResource = getattr(context.resources, DYNAMODB_KEY)
        client = dynamodb.table_client(
            source.table_name, region=source.region, endpoint_url=source.endpoint_url
        )
        try:
            with heartbeats(context.instance, context.run.run_id, clock, rest_is_quick=True):
                report = audit_source(
                    source,
                    group.transforms,
                    lakehouse.layout,
                    client,
                    settings=sample_settings(
                        client.describe_table().item_count, settings.run_waits_seconds, clock
                    ),
                    clock=clock,
                    logger=context.log,
                )
        except DatazoneError as error:
            yield result(Level.WARN, f"The audit could not be made: {error}", {})
            raise
        yield result(_level(report), audit_line(report), audit_metadata(report))

    return check


def _level(report: AuditReport) -> Level:
    """Return the level of a result; a source all of whose datasets hold events passes."""
    if report.has_differences:
        return Level.ERROR
    return Level.WARN if any(one.undecided for one in report.datasets) else Level.OK
