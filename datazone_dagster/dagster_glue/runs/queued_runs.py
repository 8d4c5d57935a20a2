"""What a run waits for, where pools count runs.

Dagster starts such a run when the pools of all its steps are free. While it waits in the queue, the
runs that stay end, whoever's they are: it may need their place. So the sensor requests no run that
could not start, and says which run it waits for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from datazone_dagster.dagster_glue.runs.pools import POOL_LIMIT

AT_WORK = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
RUNS_READ = 100
"""Most runs at work that are looked at, the newest ones."""


def held_pools(instance: DagsterInstance, run: DagsterRun, pools: Collection[str]) -> str:
    """Return which runs at work have a pool that a queued run needs, as a clause.

    Empty if the run is not queued, or no run has one of them: it waits for a place then.

    Args:
        instance: Dagster instance.
        run: The run.
        pools: Pools that it needs.
    """
    if run.status is not DagsterRunStatus.QUEUED:
        return ""
    held = _holders(instance, pools)
    return f"{run.job_name} waits in the queue for {_named(held)}" if held else ""


def taken_pools(instance: DagsterInstance, pools: Collection[str]) -> str:
    """Return which runs at work keep a run that needs these pools in the queue, as a clause.

    Empty if none does, and where pools count steps: the run starts, and its steps wait.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return ""
    granularity = storage.get_pool_config().pool_granularity
    if getattr(granularity, "value", "op") != "run":
        return ""
    limits = {one.name: one.limit for one in storage.get_pool_limits()}
    held = _holders(instance, pools)
    taken = {pool: jobs for pool, jobs in held.items() if len(jobs) >= limits.get(pool, POOL_LIMIT)}
    return f"waits for {_named(taken)}" if taken else ""


def _holders(instance: DagsterInstance, pools: Collection[str]) -> dict[str, list[str]]:
    """Return the jobs of the runs at work that need one of these pools, by pool."""
    found: dict[str, list[str]] = {}
    for run in instance.get_runs(RunsFilter(statuses=AT_WORK), limit=RUNS_READ):
        needs = run.run_op_concurrency
        for pool in set(pools).intersection((needs.all_pools or ()) if needs else ()):
            found.setdefault(pool, []).append(run.job_name)
    return found


def _named(held: Mapping[str, Collection[str]]) -> str:
    by_job: dict[str, set[str]] = {}
    for pool, jobs in held.items():
        for job in jobs:
            by_job.setdefault(job, set()).add(pool)
    who = "; ".join(
        f"{job}, which has {', '.join(sorted(of))}" for job, of in sorted(by_job.items())
    )
    return f"the pool of a run at work: {who}"
