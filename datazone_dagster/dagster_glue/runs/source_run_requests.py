"""Decision on a run of all transforms of a source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunRequest, RunsFilter

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.dagster_glue.names import (
    BATCH_TAG,
    FAILED_TAG,
    FAILURE_TAG,
    LAKEHOUSE_TAG,
    RETRIES_TAG,
    SHARED_TAG,
    SOURCE_TAG,
    TURN_TAG,
    VERSION_TAG,
    pool_name,
    source_job_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.runs.job_runs import ACTIVE
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.pools import free_pools, limit_pools
from datazone_dagster.dagster_glue.runs.queued_runs import held_pools, taken_pools
from datazone_dagster.dagster_glue.runs.run_requests import (
    RunDecision,
    Wait,
    died_at,
    end_of,
    has_applied,
    too_early,
    why_it_waits,
)
from datazone_dagster.dagster_glue.runs.staying_runs import end_run
from datazone_dagster.model import retries
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.retries import Retry
from datazone_dagster.observe.lag import in_words
from datazone_dagster.text import without_secrets

DIED_IN_TURN = (
    "The process of the run ended while this transform had its turn: it may need more memory than "
    "there is, or crash."
)
"""Error of a transform whose run died."""


def decide_source_run(
    source: DynamoDBSource,
    transforms: Sequence[Transform],
    layout: Layout,
    placed: PlacedRuns,
    options: RunOptions,
    *,
    versions: Mapping[str, str],
    heads: Mapping[str, int],
    loaded_at: datetime,
) -> tuple[RunRequest | None, str, dict[str, RunDecision]]:
    """Decide whether a source whose transforms share runs gets a run now.

    The rules are those of `RunDecider`, for each transform: one that failed waits, and the run
    takes it in once its wait is over. The run is requested for those that need not wait. A run of
    one of the transforms alone, which the sensor requested before they shared runs, is told to end.

    Args:
        source: The source.
        transforms: Transforms that share the run.
        layout: Locations of the tables.
        placed: The latest runs in Dagster's storage.
        options: Tags of the run, and the shortest time between two runs.
        versions: Version of each transform and of the settings of its runs, by name.
        heads: Latest batch of the change log, by transform with a backlog.
        loaded_at: Time when the code location was loaded.

    Returns:
        Run to request, or None; the reason for either; the failures in a row, by transform.
    """
    instance, now = placed.instance, placed.now
    job, prefix = source_job_name(source), options.keys.prefix
    pools = [pool_name(one, prefix) for one in transforms]
    free_pools(instance, pools)
    version = _version({one.name: versions[one.name] for one in transforms})
    records = placed.records(RunsFilter(job_name=job, statuses=ACTIVE), 1)
    latest = records or placed.records(RunsFilter(job_name=job), 1)
    counted = _retries_after(latest[0], heads, loaded_at) if latest else {}
    texts = {name: _retry_text(name, one, now) for name, one in counted.items()}
    failing = {
        name: RunDecision(None, texts[name], one.failures, one.error, one.run_id)
        for name, one in counted.items()
    }

    def decided(
        reason: str, request: RunRequest | None = None, *, is_conflict: bool = False
    ) -> _Decision:
        text = "; ".join(filter(None, (reason, *texts.values())))
        if not is_conflict:
            return request, text, failing
        told = {name: failing.get(name, RunDecision(None, reason)) for name in heads}
        return request, text, {name: replace(one, conflict=reason) for name, one in told.items()}

    if records:
        rival = placed.rival(records[0].dagster_run, version)
        if rival:
            does = f"apply {', '.join(one.name for one in transforms)}"
            return decided(placed.conflict(rival, does), is_conflict=True)
        ends = placed.end_outdated(records[0], version)
        waits = held_pools(placed, records[0].dagster_run, pools)
        return decided(ends or waits or f"{job} is running or queued")
    former, rivals = _end_runs_of_one(placed, source, transforms, versions)
    if former or rivals:
        return decided(former or rivals, is_conflict=bool(rivals))
    waiting = [one for one in transforms if one.name in heads]
    why_not = {one.name: why_it_waits(one, layout, now, instance) for one in waiting}
    ready = [
        name
        for name, wait in why_not.items()
        if not wait.text and (name not in counted or counted[name].until <= now)
    ]
    failing = _with_waits(failing, why_not)
    text = "; ".join(one.text for one in why_not.values() if one.text)
    if ready:
        text = _text_of_wait(placed, latest, job, loaded_at, options)
    if text or not ready:
        return decided(text)
    taken = taken_pools(placed, pools)
    if taken.text:
        return decided(f"{job} {taken.text}", is_conflict=taken.elsewhere)
    limit_pools(instance, pools)
    tags = {
        **options.run_tags,
        **_own_tags(source, layout, version, counted),
        BATCH_TAG: str(max(heads[one] for one in ready)),
    }
    request = RunRequest(job_name=job, tags=tags)
    return decided(f"{', '.join(ready)} of {source.name} have a backlog", request)


_Decision = tuple[RunRequest | None, str, dict[str, RunDecision]]


def _own_tags(
    source: DynamoDBSource, layout: Layout, version: str, counted: Mapping[str, Retry]
) -> dict[str, str]:
    return {
        SOURCE_TAG: source.name,
        SHARED_TAG: source.name,
        LAKEHOUSE_TAG: without_secrets(layout.uri),
        VERSION_TAG: version,
        **({RETRIES_TAG: retries.to_json(counted)} if counted else {}),
    }


def _with_waits(
    failing: Mapping[str, RunDecision], waits: Mapping[str, Wait]
) -> dict[str, RunDecision]:
    """Return the failures, and what keeps transforms from a run until a time that is known."""
    until = {name: one for name, one in waits.items() if one.until is not None}
    return dict(failing) | {
        name: replace(
            failing.get(name, RunDecision(None, "")), reason=one.text, waits_until=one.until
        )
        for name, one in until.items()
    }


def _version(versions: Mapping[str, str]) -> str:
    """Return a version that changes with each of the transforms."""
    return hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:12]


def _retries_after(
    latest: RunRecord, heads: Mapping[str, int], loaded_at: datetime
) -> dict[str, Retry]:
    """Return the failures in a row of the transforms with a backlog, after the latest run."""
    run, is_active = latest.dagster_run, latest.dagster_run.status in ACTIVE
    ended = None if is_active else end_of(latest)
    if ended is not None and ended < loaded_at:
        return {}
    before = retries.from_json(run.tags.get(RETRIES_TAG))
    failed: dict[str, Retry] = {}
    if is_active or run.status is DagsterRunStatus.FAILURE:
        failed = retries.from_json(run.tags.get(FAILED_TAG))
        error = run.tags.get(FAILURE_TAG)
        if not failed and error is not None and ended is not None:  # the run itself, for all
            failed = {
                name: Retry(before[name].failures + 1 if name in before else 1, ended, error, "")
                for name in heads
            }
        name = run.tags.get(TURN_TAG)
        if name and name not in failed and ended is not None:  # the process died in its turn
            failures = 1 + (before[name].failures if name in before else 0)
            failed[name] = Retry(failures, ended, DIED_IN_TURN, run.run_id)
    counted = retries.carried_on(before, failed, ended)
    return {name: one for name, one in counted.items() if name in heads}


def _retry_text(name: str, retry: Retry, now: datetime) -> str:
    times = "once" if retry.failures == 1 else f"{retry.failures} times in a row"
    wait = retry.until - now
    when = f" in {in_words(wait)}" if wait > timedelta(0) else ""
    return f"{name} failed {times} and is retried{when}"


def _text_of_wait(
    placed: PlacedRuns,
    latest: Sequence[RunRecord],
    job: str,
    loaded_at: datetime,
    options: RunOptions,
) -> str:
    """Return how long the next run waits after the last one; empty if it does not."""
    wait = _wait_after_death(placed.instance, latest, loaded_at, placed.now)
    if wait > timedelta(0):
        return f"the last run of {job} ended early; the next starts in {in_words(wait)}"
    early = too_early(placed, job, options.min_run_interval)
    return f"the next run of {job} starts in {in_words(early)}" if early > timedelta(0) else ""


def _wait_after_death(
    instance: DagsterInstance, latest: Sequence[RunRecord], loaded_at: datetime, now: datetime
) -> timedelta:
    """Return the time until the run after one whose process died before it applied anything."""
    for one in latest:
        run, ended = one.dagster_run, end_of(one)
        died = run.status is DagsterRunStatus.FAILURE and FAILURE_TAG not in run.tags
        if died and ended >= loaded_at and not has_applied(instance, run.run_id):
            return died_at(one) + retries.FIRST_WAIT - now
    return timedelta(0)


def _end_runs_of_one(
    placed: PlacedRuns,
    source: DynamoDBSource,
    transforms: Sequence[Transform],
    versions: Mapping[str, str],
) -> tuple[str, str]:
    """Tell the runs of single transforms to end; return their jobs as a reason, empty if none.

    Those of another code location go on: they are the second text.
    """
    found = []
    for one in transforms:
        for record in placed.records(RunsFilter(job_name=one.job_name, statuses=ACTIVE), 1):
            if rival := placed.rival(record.dagster_run, versions[one.name]):
                return "", placed.conflict(rival, f"apply {one.name}")
            end_run(placed.instance, record, f"the transforms of {source.name} share a run now")
            found.append(one.job_name)
    return f"{', '.join(found)} ends before the run of all transforms" if found else "", ""


def end_source_run(placed: PlacedRuns, source: DynamoDBSource) -> tuple[str, str]:
    """Tell a run of all transforms of a source to end, which have runs of their own now.

    Returns why no other run is requested meanwhile, empty if there is no such run; and the same
    where it goes on, as another code location has requested it.
    """
    job = source_job_name(source)
    of_all = {SHARED_TAG: source.name}  # a transform of any source may have a job of this name
    records = placed.records(RunsFilter(job_name=job, tags=of_all, statuses=ACTIVE), 1)
    for record in records:
        if rival := placed.rival(record.dagster_run, ""):
            conflict = placed.conflict(rival, f"apply the transforms of {source.name}")
            return conflict, conflict
        end_run(
            placed.instance, record, f"the transforms of {source.name} have runs of their own now"
        )
    return f"{job} ends before the runs of single transforms" if records else "", ""
