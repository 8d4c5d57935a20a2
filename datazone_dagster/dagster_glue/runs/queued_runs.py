"""What a run waits for: pools that others have.

Where pools count runs, Dagster starts a run when the pools of its steps are free. While it waits
in the queue, the runs that stay end, whoever's they are: it may need their place. So the sensor
requests no run that could not start, and says which run it waits for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from datazone_dagster.dagster_glue.names import ALIVE_TAG, hidden_tag
from datazone_dagster.dagster_glue.runs.full_queue import AT_WORK, RUNS_READ, pools_of
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.pools import POOL_LIMIT, counts_runs
from datazone_dagster.dagster_glue.runs.run_place import repository_of
from datazone_dagster.dagster_glue.runs.slot_waits import slot_wait
from datazone_dagster.dagster_glue.runs.tag_limits import tag_wait


@dataclass(frozen=True, slots=True)
class Taken:
    """Runs at work that keep another one in the queue, as a clause; empty if none does.

    `elsewhere` tells that one of them is of another code location.
    """

    text: str = ""
    elsewhere: bool = False


def held_pools(placed: PlacedRuns, run: DagsterRun, pools: Collection[str]) -> str:
    """Return which runs at work have a pool, or reach a limit, that a run waits for, as a clause.

    Empty if the run has begun, or none does: it waits for a place then.

    Args:
        placed: Runs, as seen from the place of the run.
        run: The run.
        pools: Pools that it needs.
    """
    if run.status is DagsterRunStatus.STARTED and hidden_tag(run.tags, ALIVE_TAG) is None:
        return slot_wait(placed.instance, run, pools)
    if run.status is not DagsterRunStatus.QUEUED:
        return ""
    held = _holders(placed.instance, pools)
    if held:
        return f"{run.job_name} waits in the queue for {_named(placed, held)}"
    return tag_wait(placed.instance, run)


def taken_pools(placed: PlacedRuns, pools: Collection[str]) -> Taken:
    """Return which runs at work keep a run that needs these pools in the queue.

    None does where pools count steps: the run starts, and its steps wait.
    """
    storage = placed.instance.event_log_storage
    if not counts_runs(placed.instance):
        return Taken()
    limits = {one.name: one.limit for one in storage.get_pool_limits()}
    held = _holders(placed.instance, pools)
    taken = {pool: runs for pool, runs in held.items() if len(runs) >= limits.get(pool, POOL_LIMIT)}
    if not taken:
        return Taken()
    elsewhere = any(placed.place.is_elsewhere(run) for runs in taken.values() for run in runs)
    return Taken(f"waits for {_named(placed, taken)}", elsewhere)


def _holders(instance: DagsterInstance, pools: Collection[str]) -> dict[str, list[DagsterRun]]:
    """Return the runs at work that need one of these pools, by pool."""
    found: dict[str, list[DagsterRun]] = {}
    for run in instance.get_runs(RunsFilter(statuses=AT_WORK), limit=RUNS_READ):
        for pool in set(pools).intersection(pools_of(run)):
            found.setdefault(pool, []).append(run)
    return found


def _named(placed: PlacedRuns, held: Mapping[str, Collection[DagsterRun]]) -> str:
    by_job: dict[str, set[str]] = {}
    cure = ""
    for pool, runs in held.items():
        for run in runs:
            name, location = run.job_name, repository_of(run)
            if location is not None and placed.place.is_elsewhere(run):
                name = f"{name} of the code location {location[0]}"
                cure = ". Give one of the two another key_prefix: pools have it in their names"
            by_job.setdefault(name, set()).add(pool)
    who = "; ".join(
        f"{job}, which has {', '.join(sorted(of))}" for job, of in sorted(by_job.items())
    )
    return f"the pool of a run at work: {who}{cure}"
