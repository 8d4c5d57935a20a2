"""The apply of one run of a transform, with what the run knows and sends meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from dagster import AssetExecutionContext

from datazone_dagster.dagster_glue.applier import Applier
from datazone_dagster.dagster_glue.assets.known_schema import known_columns
from datazone_dagster.dagster_glue.assets.lazy_apply import LazyApply
from datazone_dagster.dagster_glue.checks.expectation_checks import known_expectations
from datazone_dagster.dagster_glue.checks.first_backlogs import FirstBacklogs
from datazone_dagster.dagster_glue.names import DYNAMODB_KEY, source_job_name
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.dagster_glue.runs.bucket_runs import bucket_of_run
from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dagster_glue.sensors.freshness import known_caught_up_at
from datazone_dagster.model.table_scan import TableClient


def apply_of_run(
    applier: Applier, context: AssetExecutionContext, only: Collection[str]
) -> LazyApply:
    """Return the apply of a run to the datasets of these ids."""
    source, keys = applier.transform.source, applier.keys
    bucket, first_backlogs = bucket_of_run(context, applier.transform), FirstBacklogs(keys)
    return LazyApply(
        applier.transform,
        keys,
        applier.settings,
        lambda: known_caught_up_at(context.instance, source, keys),
        lambda dataset_id: known_columns(context.instance, keys.dataset(dataset_id)),
        lambda dataset: known_expectations(context.instance, dataset, keys, bucket),
        heartbeats=heartbeats_of(applier, context),
        table_client=lambda: _table_client(applier, context),
        snapshot_settings=applier.snapshot_settings,
        preview=applier.preview,
        clock=applier.clock,
        only=only,
        bucket=bucket,
        judge=lambda now: first_backlogs.judge(context.instance, now),
    )


def heartbeats_of(
    applier: Applier, context: AssetExecutionContext
) -> Callable[[], AbstractContextManager[None]]:
    """Return a factory of the context manager that sends heartbeats of a run."""
    own_jobs = {applier.transform.job_name, source_job_name(applier.transform.source)}
    return lambda: heartbeats(
        context.instance,
        context.run.run_id,
        applier.clock,
        rest_is_quick=context.run.job_name in own_jobs,
    )


def _table_client(applier: Applier, context: AssetExecutionContext) -> TableClient:
    source = applier.transform.source
    dynamodb: DynamoDBStreamsResource = getattr(context.resources, DYNAMODB_KEY)
    return dynamodb.table_client(
        source.table_name, region=source.region, endpoint_url=source.endpoint_url
    )
