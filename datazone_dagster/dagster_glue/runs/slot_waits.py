"""Steps that wait for a slot of a pool, where pools count steps: their runs are not dead.

Such a run is started, holds its place among the runs of the instance, and sends no heartbeat.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dagster import DagsterInstance, DagsterRun, RunsFilter

_NAMED = 3


def waiting_for_slots(instance: DagsterInstance, run_ids: Collection[str]) -> frozenset[str]:
    """Return those of these runs of which a step waits for a slot that others have."""
    storage = instance.event_log_storage
    if not run_ids or not storage.supports_global_concurrency_limits:
        return frozenset()
    if storage.get_concurrency_run_ids().isdisjoint(run_ids):
        return frozenset()
    infos = (storage.get_concurrency_info(one) for one in storage.get_concurrency_keys())
    return frozenset(run_id for one in infos for run_id in one.pending_run_ids & set(run_ids))


def slot_wait(instance: DagsterInstance, run: DagsterRun, pools: Iterable[str]) -> str:
    """Return which pool a run waits for, its limit, and who has its slots, as a clause.

    Empty if the run waits for none of these pools.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return ""
    for pool in pools:
        info = storage.get_concurrency_info(pool)
        if run.run_id in info.pending_run_ids:
            has = _jobs(instance, info.active_run_ids)
            return (
                f"{run.job_name} waits for a slot of the pool {pool}, whose limit is "
                f"{info.slot_count}; {has}. It keeps a place among the runs meanwhile: with "
                "concurrency.pools.granularity: run in dagster.yaml it would not"
            )
    return ""


def _jobs(instance: DagsterInstance, run_ids: Collection[str]) -> str:
    if not run_ids:
        return "no run has it"
    runs = instance.get_runs(RunsFilter(run_ids=sorted(run_ids)), limit=_NAMED)
    names = ", ".join(f"{one.job_name} ({one.run_id[:8]})" for one in runs)
    return f"{names} {'has' if len(run_ids) == 1 else 'have'} it"
