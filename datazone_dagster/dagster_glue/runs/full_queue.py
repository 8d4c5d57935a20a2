"""Whether a run that waits in Dagster's queue lacks the slot or the place of one at work."""

from __future__ import annotations

from collections.abc import Collection

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from datazone_dagster.dagster_glue.runs.pools import POOL_LIMIT

AT_WORK = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
RUNS_READ = 100
"""Most runs at work that are looked at, the newest ones."""


def pools_of(run: DagsterRun) -> Collection[str]:
    """Return the pools that a run needs."""
    needs = run.run_op_concurrency
    return (needs.all_pools or ()) if needs else ()


def has_full_pool(instance: DagsterInstance, pools: Collection[str], run_id: str) -> bool:
    """Return whether a run and others at work have all slots of one of these pools.

    Args:
        instance: Dagster instance.
        pools: Pools that the run has.
        run_id: Id of the run.
    """
    storage = instance.event_log_storage
    limits = {}
    if storage.supports_global_concurrency_limits:
        limits = {one.name: one.limit for one in storage.get_pool_limits()}
    at_work = instance.get_runs(RunsFilter(statuses=AT_WORK), limit=RUNS_READ)
    others = [pools_of(one) for one in at_work if one.run_id != run_id]
    return any(
        1 + sum(pool in taken for taken in others) >= limits.get(pool, POOL_LIMIT) for pool in pools
    )


def places_are_taken(instance: DagsterInstance) -> bool:
    """Return whether a run may stay in the queue for lack of a place.

    With places left, it waits for something else. Dagster launches one run after another, and its
    own launcher takes as long for each as a process takes to start. If the runs that stay ended
    then, those that follow them would wait in the same queue.
    """
    queue = instance.get_concurrency_config().run_queue_config
    if queue is None or queue.tag_concurrency_limits:
        return True
    at_work = instance.get_runs_count(RunsFilter(statuses=AT_WORK))
    return 0 <= queue.max_concurrent_runs <= at_work
