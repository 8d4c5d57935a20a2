"""Scheduled maintenance in quiet hours: a job and its schedule.

Runs maintain their tables a bounded piece at a time; this job does the rest. Each op waits for
the pool of its transform, so that it never runs at the same time as a merge.
"""

# No postponed annotations here: Dagster reads the real one of `context`.

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    DefaultScheduleStatus,
    GraphDefinition,
    JobDefinition,
    OpDefinition,
    OpExecutionContext,
    ScheduleDefinition,
    in_process_executor,
    op,
)

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.key_checks import checked_keys, keys_evaluation
from datazone_dagster.dagster_glue.checks.rendering import evaluation, rendered
from datazone_dagster.dagster_glue.names import (
    LAKEHOUSE_KEY,
    SMALL_FILES_CHECK,
    UNIQUE_KEYS_CHECK,
    pool_name,
    source_job_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dagster_glue.runs.old_runs import NEWEST_RUNS_KEPT, remove_old_runs
from datazone_dagster.dagster_glue.shared import Group, Member, shared
from datazone_dagster.errors import OutOfMemoryError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.observe.metadata import maintenance_metadata
from datazone_dagster.observe.table_status import small_files_status
from datazone_dagster.pipeline import maintain_dataset
from datazone_dagster.pipeline.table_calls import asset_tables, maintain_asset_table

MAINTENANCE_JOB = "datazone_maintenance"
QUIET_HOUR = "0 3 * * *"


def maintenance_schedules(
    members: Sequence[Member],
    cron: str | None,
    lakehouse: Lakehouse,
    options: RunOptions,
    *,
    keep_runs: timedelta | None,
    clock: Clock,
) -> list[ScheduleDefinition]:
    """Return the schedule of thorough maintenance of all datasets; none without a cron schedule."""
    if cron is None:
        return []

    def arguments(group: Group) -> dict[str, Any]:
        return {
            "name": MAINTENANCE_JOB,
            "job": maintenance_job(group.members.values(), keep_runs=keep_runs, clock=clock),
            "cron_schedule": cron,
            "default_status": DefaultScheduleStatus[options.default_status.name],
            "description": "Joins files, drops hidden rows, and deletes orphan files and old runs.",
        }

    wanted = Group(
        MAINTENANCE_JOB,
        identical=(lakehouse, clock),
        equal={
            "maintenance_cron": cron,
            "keep_runs": keep_runs,
            "default_status": options.default_status,
        },
    )
    return [shared(wanted, members, ScheduleDefinition, arguments)[0]]


def maintenance_job(
    members: Iterable[Member], *, keep_runs: timedelta | None, clock: Clock
) -> JobDefinition:
    """Return the job that maintains every table, one op per transform, and removes old runs."""
    members = list(members)
    ops = [
        *(_maintenance_op(one.transform, one.keys, clock) for one in members),
        _asset_tables_op(clock),
    ]
    if keep_runs is not None:
        ops.append(_old_runs_op([one.transform for one in members], keep_runs, clock))
    return GraphDefinition(MAINTENANCE_JOB, node_defs=ops).to_job(
        name=MAINTENANCE_JOB,
        executor_def=in_process_executor,
        description="Thorough maintenance of every table. Safe at any time.",
    )


def _maintenance_op(transform: Transform, keys: AssetKeys, clock: Clock) -> OpDefinition:
    @op(
        name=f"maintain_{transform.name}",
        pool=pool_name(transform, keys.prefix),
        required_resource_keys={LAKEHOUSE_KEY},
        ins={},
    )
    def maintain_datasets(context: OpExecutionContext) -> None:
        lakehouse: Lakehouse = getattr(context.resources, LAKEHOUSE_KEY)
        with heartbeats(context.instance, context.run_id, clock, rest_is_quick=True):
            for dataset in transform.outputs.values():
                try:
                    report = maintain_dataset(dataset, lakehouse.layout, clock=clock)
                except StorageError as error:
                    # The other datasets are maintained all the same.
                    context.log.warning("Maintenance of dataset %s: %s", dataset.id, error)
                    continue
                if report is not None:
                    context.log_event(
                        AssetObservation(
                            keys.dataset(dataset.id),
                            metadata=rendered(maintenance_metadata(report)),
                        )
                    )
                    _check_table(context, dataset, keys, report, lakehouse.layout, clock)

    return maintain_datasets


def _check_table(
    context: OpExecutionContext,
    dataset: Dataset,
    keys: AssetKeys,
    report: MaintenanceReport,
    layout: Layout,
    clock: Clock,
) -> None:
    """Log the checks `small_files` and `unique_keys` of a table that was maintained."""
    small = small_files_status(report.files, report.size_bytes)
    key = keys.dataset_check(dataset.id, SMALL_FILES_CHECK)
    context.instance.report_runless_asset_event(
        evaluation(key, small.level, small.reason, small.plain)
    )
    try:
        found = checked_keys(dataset, layout, clock())
    except (StorageError, OutOfMemoryError) as error:
        context.log.warning("The keys of dataset %s were not checked: %s", dataset.id, error)
        return
    if found is not None:
        key = keys.dataset_check(dataset.id, UNIQUE_KEYS_CHECK)
        context.instance.report_runless_asset_event(keys_evaluation(key, found))


def _asset_tables_op(clock: Clock) -> OpDefinition:
    """Return the op for the tables of other assets: those that the lakehouse has."""

    @op(name="maintain_asset_tables", required_resource_keys={LAKEHOUSE_KEY}, ins={})
    def maintain_tables(context: OpExecutionContext) -> None:
        layout = getattr(context.resources, LAKEHOUSE_KEY).layout
        try:
            names = asset_tables(layout)
        except StorageError as error:
            context.log.warning("Looking for the tables of assets: %s", error)
            return
        for name in names:
            try:
                report = maintain_asset_table(layout, name, clock=clock)
            except StorageError as error:
                context.log.warning("Maintenance of the table %s: %s", name, error)
                continue
            if report is not None:
                context.log_event(
                    AssetObservation(
                        AssetKey(name.split(".")), metadata=rendered(maintenance_metadata(report))
                    )
                )

    return maintain_tables


def _old_runs_op(
    transforms: Sequence[Transform], keep_runs: timedelta, clock: Clock
) -> OpDefinition:
    sources = dict.fromkeys(one.source for one in transforms)
    of_transforms = (one.job_name for one in transforms)
    jobs = [MAINTENANCE_JOB, *of_transforms, *map(source_job_name, sources)]

    @op(name="remove_old_runs", ins={})
    def remove(context: OpExecutionContext) -> None:
        removed = remove_old_runs(context.instance, jobs, clock() - keep_runs)
        context.log.info(
            "Removed %d successful runs that are older than %s; the newest %d of each job stay.",
            removed,
            keep_runs,
            NEWEST_RUNS_KEPT,
        )

    return remove
