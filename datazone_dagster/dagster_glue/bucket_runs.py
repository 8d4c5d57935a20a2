"""Runs of buckets: a dataset with buckets has a static partition for each, and a run has one.

Dagster's pools belong to ops, not to partitions. So the pool of a transform with buckets lets as
many runs work as there are buckets, the drain sensor requests none for a bucket that has one, and
the fences of the table make the second of two runs of one bucket give way.
"""

from __future__ import annotations

from datetime import datetime

from dagster import AssetExecutionContext, DagsterInstance, RunsFilter, StaticPartitionsDefinition

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.run_requests import (
    ACTIVE,
    PARTITION_TAG,
    RunDecision,
    decide_run,
)
from datazone_dagster.dagster_glue.staying_runs import end_run_of_other_code
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, bucket_named, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import buckets_behind


def partitions_of_buckets(transform: Transform) -> StaticPartitionsDefinition | None:
    """Return the partitions of a transform's datasets; None if they have no buckets."""
    if transform.buckets == 1:
        return None
    return StaticPartitionsDefinition([one.name for one in key_buckets(transform.buckets)])


def bucket_of_run(context: AssetExecutionContext, transform: Transform) -> KeyBucket:
    """Return the bucket of a run.

    Raises:
        DefinitionError: Its partition is that of another number of buckets.
    """
    if transform.buckets == 1 or not context.has_partition_key:
        return WHOLE
    bucket = bucket_named(context.partition_key)
    if bucket is None or bucket.of != transform.buckets:
        raise DefinitionError(
            f"Transform {transform.name!r} has {transform.buckets} buckets, but this run is of the "
            f"partition {context.partition_key!r}.",
            safe="Nothing was read or written.",
            hint="Start a run of one of the present partitions.",
        )
    return bucket


def decide_runs(
    transform: Transform,
    layout: Layout,
    instance: DagsterInstance,
    options: RunOptions,
    *,
    version: str,
    head: int,
    now: datetime,
    loaded_at: datetime,
) -> list[RunDecision]:
    """Decide whether a transform with a backlog gets runs now: one, or one for each bucket.

    Arguments are as for `decide_run`.
    """
    buckets: tuple[KeyBucket, ...] = (WHOLE,)
    if transform.buckets > 1:
        ids = [one.id for one in transform.outputs.values()]
        buckets = buckets_behind(transform.source.name, ids, layout, transform.buckets)
        _end_runs_of_other_numbers(transform, instance, version)
    return [
        decide_run(
            transform,
            layout,
            instance,
            options,
            version=version,
            head=head,
            now=now,
            loaded_at=loaded_at,
            bucket=bucket,
        )
        for bucket in buckets
    ]


def _end_runs_of_other_numbers(
    transform: Transform, instance: DagsterInstance, version: str
) -> None:
    """Tell runs with a former number of buckets to end: they have the former code too."""
    names = {one.name for one in key_buckets(transform.buckets)}
    for record in instance.get_run_records(
        RunsFilter(job_name=transform.job_name, statuses=ACTIVE)
    ):
        if record.dagster_run.tags.get(PARTITION_TAG) not in names:
            end_run_of_other_code(instance, record, version)
