"""Removal of old runs: Dagster keeps every run for good, with all its events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

NEWEST_RUNS_KEPT = 100
"""Successful runs of each job that stay, however old they are."""

_REMOVED_AT_ONCE = 500


def remove_old_runs(
    instance: DagsterInstance, job_names: Iterable[str], created_before: datetime
) -> int:
    """Remove successful runs of these jobs, with their events; return how many.

    The newest 100 of each job stay, and so do failed and cancelled runs.
    """
    return sum(_removed_of_job(instance, name, created_before) for name in job_names)


def _removed_of_job(instance: DagsterInstance, job_name: str, created_before: datetime) -> int:
    succeeded = [DagsterRunStatus.SUCCESS]
    newest = instance.get_run_records(
        RunsFilter(job_name=job_name, statuses=succeeded), limit=NEWEST_RUNS_KEPT
    )
    if len(newest) < NEWEST_RUNS_KEPT:
        return 0
    kept = {one.dagster_run.run_id for one in newest}
    old = RunsFilter(job_name=job_name, statuses=succeeded, created_before=created_before)
    removed, cursor = 0, None
    while True:
        found = instance.get_run_records(old, limit=_REMOVED_AT_ONCE, cursor=cursor)
        for one in found:
            run_id = one.dagster_run.run_id
            if run_id in kept:
                cursor = run_id
                continue
            instance.delete_run(run_id)
            removed += 1
        if len(found) < _REMOVED_AT_ONCE:
            return removed
