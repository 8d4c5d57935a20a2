"""Decision on run requests: transforms with a backlog and without an active run get one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRequest, RunsFilter

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.names import BATCH_TAG, SOURCE_TAG
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe.lag import in_words
from datazone_dagster.pipeline import dataset_exists

ACTIVE = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=5)

_FAILURES_COUNTED = 6


@dataclass(frozen=True, slots=True)
class RunDecision:
    """Run to request, or None; and the reason for either."""

    request: RunRequest | None
    reason: str


def decide_run(
    transform: Transform, layout: Layout, instance: DagsterInstance, *, head: int, now: datetime
) -> RunDecision:
    """Decide whether a transform with a backlog gets a run now.

    It gets none while a run of its job is queued, starting or started, and none before its
    lookups exist. After failures, it gets one only after a wait that doubles, from 15 seconds to
    5 minutes. Duplicate and lost requests are harmless: a run applies from the datasets' own
    positions.

    Args:
        transform: Transform with a backlog.
        layout: Locations of the tables.
        instance: Dagster instance, for the latest runs.
        head: Latest batch of the change log, for the run's tags.
        now: Current time.
    """
    if instance.get_run_records(RunsFilter(job_name=transform.job_name, statuses=ACTIVE), limit=1):
        return RunDecision(None, f"{transform.job_name} is running or queued")
    absent = _absent_lookups(transform, layout)
    if absent:
        return RunDecision(
            None, f"{transform.name} waits for the first rows of {', '.join(absent)}"
        )
    failures, last_end = _failures_in_a_row(instance, transform)
    if last_end is not None:
        wait = min(FIRST_WAIT * 2 ** (failures - 1), LONGEST_WAIT)
        remaining = last_end + wait - now
        if remaining > timedelta(0):
            times = "once" if failures == 1 else f"{failures} times in a row"
            return RunDecision(
                None,
                f"{transform.name} failed {times} and is retried in {in_words(remaining)}",
            )
    return RunDecision(
        RunRequest(
            job_name=transform.job_name,
            tags={SOURCE_TAG: transform.source.name, BATCH_TAG: str(head)},
        ),
        f"{transform.name} has a backlog",
    )


def _absent_lookups(transform: Transform, layout: Layout) -> list[str]:
    return [
        dataset.id
        for dataset in transform.lookups.values()
        if not dataset_exists(layout, dataset.id)
    ]


def _failures_in_a_row(
    instance: DagsterInstance, transform: Transform
) -> tuple[int, datetime | None]:
    """Return how many of the latest runs failed, and when the last one ended; None for none."""
    records = instance.get_run_records(
        RunsFilter(job_name=transform.job_name), limit=_FAILURES_COUNTED
    )
    failures = 0
    for record in records:
        if record.dagster_run.status is not DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures:
        return 0, None
    ended = records[0].end_time
    at = (
        datetime.fromtimestamp(ended, timezone.utc)
        if ended is not None
        else records[0].update_timestamp.replace(tzinfo=timezone.utc)
    )
    return failures, at
