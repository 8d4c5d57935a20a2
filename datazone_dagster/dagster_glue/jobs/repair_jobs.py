"""Jobs that rebuild a dataset or redrive its quarantined records, to start by hand in the UI."""

# No postponed annotations here: Dagster reads the real one of `context`.

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, cast

from dagster import (
    GraphDefinition,
    JobDefinition,
    OpDefinition,
    OpExecutionContext,
    in_process_executor,
    op,
)

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.dagster_glue.checks.rendering import Event
from datazone_dagster.dagster_glue.jobs.repairs import Repair
from datazone_dagster.dagster_glue.names import LAKEHOUSE_KEY, own_pool_name, pool_name
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dagster_glue.runs.pools import limit_pools
from datazone_dagster.dagster_glue.shared import Member
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ChunkReport
from datazone_dagster.pipeline import ApplySettings


def repair_jobs(
    members: Iterable[Member], settings: ApplySettings, *, preview: bool, clock: Clock
) -> list[JobDefinition]:
    """Return the jobs `rebuild_<dataset>` and `redrive_<dataset>` of every dataset of a stream."""
    jobs, taken = [], set[str]()
    for member in members:
        transform = member.transform
        options = {"keys": member.keys, "settings": settings, "preview": preview, "clock": clock}
        if not transform.source.stream_enabled:
            continue  # a run makes all rows again, with the present code
        for dataset in transform.outputs.values():
            name = _job_part(dataset.id, taken)
            taken.add(name)
            jobs.append(_rebuild_job(f"rebuild_{name}", transform, dataset, options))
            jobs.append(_redrive_job(f"redrive_{name}", transform, dataset, options))
    return jobs


def _job_part(dataset_id: str, taken: set[str]) -> str:
    """Return a dataset's id as part of a Dagster name, which has no '-'."""
    name = dataset_id.replace("-", "_")
    if name not in taken:
        return name
    return f"{name}_{hashlib.sha256(dataset_id.encode()).hexdigest()[:6]}"


def _rebuild_job(
    name: str, transform: Transform, dataset: Dataset, options: dict[str, Any]
) -> JobDefinition:
    # Not in the pool of the transform: runs and a rebuild do not disturb each other.
    pool = own_pool_name(name, options["keys"].prefix)

    @op(name=_op_name(name), pool=pool, required_resource_keys={LAKEHOUSE_KEY}, ins={})
    def rebuild(context: OpExecutionContext) -> None:
        def log_chunk(chunk: ChunkReport) -> None:
            context.log.info(
                "Batch %d of %d: %d changes.", chunk.last_batch, chunk.head, chunk.records
            )

        limit_pools(context.instance, [pool], transform.buckets)
        repair = _repair(context, transform, dataset, options)
        with heartbeats(context.instance, context.run_id, options["clock"], rest_is_quick=True):
            _log(context, repair.rebuilt_events(repair.rebuild(log_chunk), context.instance))

    return _job(
        name,
        rebuild,
        f"Rebuilds {dataset.id} from the change log with the present code and swaps it in. "
        "Readers see the old rows until then.",
    )


def _redrive_job(
    name: str, transform: Transform, dataset: Dataset, options: dict[str, Any]
) -> JobDefinition:
    @op(
        name=_op_name(name),
        pool=pool_name(transform, options["keys"].prefix),
        required_resource_keys={LAKEHOUSE_KEY},
        ins={},
    )
    def redrive(context: OpExecutionContext) -> None:
        repair = _repair(context, transform, dataset, options)
        with heartbeats(context.instance, context.run_id, options["clock"], rest_is_quick=True):
            done = repair.redrive()
            context.log.info("%d records applied, %d left.", done.redriven, done.waiting)
            _log(context, repair.redriven_events(done, context.instance))

    return _job(
        name,
        redrive,
        f"Applies the quarantined records of {dataset.id}. Records that fail again stay.",
    )


def _repair(
    context: OpExecutionContext, transform: Transform, dataset: Dataset, options: dict[str, Any]
) -> Repair:
    lakehouse: Lakehouse = getattr(context.resources, LAKEHOUSE_KEY)
    return Repair(transform, dataset, layout=lakehouse.layout, logger=context.log, **options)


def _log(context: OpExecutionContext, events: Iterator[Event]) -> None:
    for event in events:
        context.log_event(cast("Any", event))  # its type lacks check evaluations, which it takes


def _op_name(job_name: str) -> str:
    return f"{job_name}_op"  # Dagster wants op, graph and job to have different names


def _job(name: str, node: OpDefinition, description: str) -> JobDefinition:
    return GraphDefinition(name, node_defs=[node]).to_job(
        name=name, executor_def=in_process_executor, description=description
    )
