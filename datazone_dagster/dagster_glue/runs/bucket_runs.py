"""Runs of buckets: a dataset with buckets has a static partition for each, and a run has one.

Dagster's pools belong to ops, not to partitions. So the pool of a transform with buckets lets as
many runs work as there are buckets, the drain sensor requests none for a bucket that has one, and
the fences of the table make the second of two runs of one bucket give way.
"""

from __future__ import annotations

from dagster import AssetExecutionContext, StaticPartitionsDefinition

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.runs.job_runs import PARTITION_TAG
from datazone_dagster.dagster_glue.runs.pools import limit_pools
from datazone_dagster.dagster_glue.runs.run_requests import RunDecider, RunDecision
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, bucket_named, key_buckets
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


def decide_runs(decider: RunDecider) -> list[RunDecision]:
    """Decide whether a transform with a backlog gets runs now: one, or one for each bucket."""
    transform, instance = decider.transform, decider.instance
    buckets: tuple[KeyBucket, ...] = (WHOLE,)
    if transform.buckets > 1:
        ids = [one.id for one in transform.outputs.values()]
        buckets = buckets_behind(
            transform.source.name,
            ids,
            decider.layout,
            transform.buckets,
            some_run=bool(decider.runs.all_active),
        )
        _end_runs_of_other_numbers(decider)
    decisions = [decider.of(bucket) for bucket in buckets]
    if any(one.request is not None for one in decisions):
        limit_pools(instance, [decider.pool], transform.buckets)
    return decisions


def _end_runs_of_other_numbers(decider: RunDecider) -> None:
    """Tell runs with a former number of buckets to end: they have the former code too."""
    names = {one.name for one in key_buckets(decider.transform.buckets)}
    for record in decider.runs.all_active:
        if record.dagster_run.tags.get(PARTITION_TAG) not in names:
            decider.placed.end_outdated(record, decider.version)
