"""End of runs that were launched and never begin, where Dagster does not see to it.

Dagster's run monitoring ends them (`start_timeout_seconds`). Without it, a run whose worker is lost
before it begins would be starting for ever, and its transform or its shards would get no other one.
A process that comes late after all finds that its run has failed, and refuses it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.dagster_glue.runs.silence import SilenceWatch
from datazone_dagster.observe.lag import in_words

STARTS_WITHIN = timedelta(minutes=10)
"""Time for the start of a process: a pod may wait for a node. It doubles with each run in a row
that did not begin."""
LONGEST_START = timedelta(hours=1)

_MOST_LOOKED_AT = 200
_STARTS_COUNTED = 4
_LONGEST_GAP_SECONDS = 60.0
_STARTING = [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING]

_watch = SilenceWatch()


def end_stuck_starts(instance: DagsterInstance, job_names: Collection[str], now: datetime) -> None:
    """Mark runs of these jobs as failed that were launched long ago and have not begun.

    What this process has seen itself counts as well: clocks of hosts may differ.
    """
    if instance.run_monitoring_enabled:
        return
    for record in instance.get_run_records(RunsFilter(statuses=_STARTING), limit=_MOST_LOOKED_AT):
        run = record.dagster_run
        if run.job_name not in job_names:
            continue
        allowed = _allowed(instance, record)
        seen = _watch.look(run.run_id, run.status.value, now, _LONGEST_GAP_SECONDS)
        waited = now - record.update_timestamp.replace(tzinfo=timezone.utc)
        if min(timedelta(seconds=seen + _LONGEST_GAP_SECONDS), waited) < allowed:
            continue
        instance.report_run_failed(
            run,
            f"This run was launched {in_words(waited)} ago, and its process has not begun: look at "
            "the log of its launcher (task, pod, worker). Nothing is lost: the next run goes on "
            "after the last commit. run_monitoring.start_timeout_seconds in dagster.yaml sets "
            "another time.",
        )


def _allowed(instance: DagsterInstance, record: RunRecord) -> timedelta:
    """Return the time that a run has to begin, after those before it that did not."""
    wanted = RunsFilter(job_name=record.dagster_run.job_name)
    before = instance.get_run_records(
        wanted, limit=_STARTS_COUNTED, cursor=record.dagster_run.run_id
    )
    in_row = 0
    for one in before:
        if one.dagster_run.status is not DagsterRunStatus.FAILURE or one.start_time is not None:
            break
        in_row += 1
    return min(STARTS_WITHIN * (1 << in_row), LONGEST_START)
