"""What a run in the queue waits for, where pools count runs."""

from __future__ import annotations

from collections.abc import Collection

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

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
    held: dict[str, set[str]] = {}
    for one in instance.get_runs(RunsFilter(statuses=AT_WORK), limit=RUNS_READ):
        needs = one.run_op_concurrency
        if needs is not None and (both := set(needs.all_pools or ()).intersection(pools)):
            held.setdefault(one.job_name, set()).update(both)
    if not held:
        return ""
    who = "; ".join(f"{job}, which has {', '.join(sorted(of))}" for job, of in sorted(held.items()))
    return f"{run.job_name} waits in the queue for the pool of a run at work: {who}"
