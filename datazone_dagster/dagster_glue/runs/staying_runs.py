"""Runs that stay: requested by the drain sensor, they go on while their stream has traffic.

A run that somebody starts by hand, or that is part of another job, ends as soon as no change waits.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.api import Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.dagster_glue.names import (
    ALIVE_TAG,
    END_TAG,
    SOURCE_TAG,
    VERSION_TAG,
    hidden_tag,
)
from datazone_dagster.dagster_glue.runs.full_queue import has_full_pool, places_are_taken, pools_of
from datazone_dagster.model.protocols import Clock
from datazone_dagster.observe.lag import in_words

ASK_EVERY_SECONDS = 5.0
"""Interval at which a run asks the instance whether to end."""

QUEUED_LONG = timedelta(seconds=10)
"""Time in the queue after which a run of anybody makes those that stay end: it may need the place
of one of them."""
STARTING_LONG = timedelta(seconds=60)
"""Time after which a run of the same job that has not begun makes those that stay end: it may wait
for a worker in a queue that is not Dagster's. A pod or a task starts sooner as a rule."""
QUEUED_READ = 100
"""Most runs of the queue that a run looks at, the newest ones."""

_LAUNCHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]
_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]

_logger = logging.getLogger(__name__)


def stays(run: DagsterRun) -> bool:
    """Return whether a run goes on while its stream has traffic."""
    return SOURCE_TAG in run.tags


def definition_version(transform: Transform, *of_runs: object) -> str:
    """Return a version that changes with the function and with every setting of the transform.

    Args:
        transform: The transform.
        of_runs: Settings of its runs that are not its own, such as their bounds.
    """
    settings = (transform.source, *transform.outputs.values(), *transform.lookups.values())
    handling = (transform.on_error, transform.on_mismatch, transform.row_wise)
    of_runs = (*of_runs, sorted(transform.run_tags.items()))
    text = repr((function_version(transform), settings, *handling, *of_runs))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def told_to_end(
    instance: DagsterInstance,
    run_id: str,
    pools: Collection[str],
    clock: Clock,
    monotonic: Callable[[], float] = time.monotonic,
) -> Callable[[], bool]:
    """Return a function that tells whether a run that stays must end.

    It must if it has got the tag for that, or was taken for dead, if another run waits for one of
    its pools (a redrive, the nightly maintenance), if a run of anybody waits in the queue for long,
    or if one of its job, such as that of another bucket, does not begin. The instance is asked at
    most every five seconds.
    """

    def must_end() -> bool:
        record = instance.get_run_record_by_id(run_id)
        return (
            record is None
            or record.dagster_run.is_finished
            or END_TAG in record.dagster_run.tags
            or _are_waited_for(instance, pools, run_id)
            or _queue_is_long(instance, clock)
            or _one_does_not_begin(instance, record, clock)
        )

    return asked_at_times(must_end, run_id, ASK_EVERY_SECONDS, monotonic)


def asked_at_times(
    must_end: Callable[[], bool],
    run_id: str,
    every_seconds: float,
    monotonic: Callable[[], float],
) -> Callable[[], bool]:
    """Return a function that asks now and then whether a run must end, and remembers that it must.

    Args:
        must_end: Function that asks Dagster's storage. An error of it counts as no.
        run_id: Id of the run, for the log.
        every_seconds: Shortest time between two questions.
        monotonic: Monotonic clock, in seconds.
    """
    asked_seconds, found = monotonic(), False

    def ask() -> bool:
        nonlocal asked_seconds, found
        if not found and monotonic() - asked_seconds >= every_seconds:
            asked_seconds = monotonic()
            try:
                found = must_end()
            except Exception as error:  # noqa: BLE001 - whatever the storage raises: asked again
                _logger.info("Run %s could not ask whether to end: %s", run_id, error)
        return found

    return ask


def _are_waited_for(instance: DagsterInstance, pools: Collection[str], run_id: str) -> bool:
    """Return whether a step of another run waits for one of the pools, or such a run is queued.

    Where pools count runs, Dagster leaves a run that needs a taken pool in the queue. If the pool
    has a free slot, as for another bucket, the run is only about to be launched.
    """
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        waiting = (storage.get_concurrency_info(one).pending_run_ids for one in pools)
        if any(found - {run_id} for found in waiting):
            return True
    queued = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED]), limit=QUEUED_READ)
    wanted = {pool for one in queued for pool in pools_of(one)}.intersection(pools)
    return bool(wanted) and has_full_pool(instance, wanted, run_id)


def _queue_is_long(instance: DagsterInstance, clock: Clock) -> bool:
    queued = RunsFilter(statuses=[DagsterRunStatus.QUEUED], created_before=clock() - QUEUED_LONG)
    return bool(instance.get_run_records(queued, limit=1)) and places_are_taken(instance)


def _one_does_not_begin(instance: DagsterInstance, own: RunRecord, clock: Clock) -> bool:
    """Return whether a run has to end for others of its job that were launched and do not begin.

    Each of those needs one place: as many runs end as do not begin, the oldest ones first, and as
    many again with each minute for which that did not help. One that can't begin at all makes each
    run of the job end once, not the runs that follow these, too: they were created when it had been
    launched long ago.
    """
    now, job_name = clock(), own.dagster_run.job_name
    launched = instance.get_run_records(
        RunsFilter(job_name=job_name, statuses=_LAUNCHED), limit=QUEUED_READ
    )
    since = [
        _launched_at(one)
        for one in launched
        if one.storage_id != own.storage_id
        and hidden_tag(one.dagster_run.tags, ALIVE_TAG) is None
        and _created_at(own) - STARTING_LONG < _launched_at(one) < now - STARTING_LONG
    ]
    if not since:
        return False
    ended = instance.get_run_records(
        RunsFilter(job_name=job_name, statuses=_ENDED, updated_after=max(since)), limit=QUEUED_READ
    )
    older = sum(
        one.storage_id < own.storage_id and hidden_tag(one.dagster_run.tags, ALIVE_TAG) is not None
        for one in (*launched, *ended)
    )
    minutes = (now - min(since)) // STARTING_LONG
    return older < len(since) * minutes


def _created_at(record: RunRecord) -> datetime:
    return record.create_timestamp.replace(tzinfo=timezone.utc)


def not_begun(record: RunRecord, now: datetime) -> str:
    """Return since when a launched run has not begun, as a clause; empty if it has, or just began.

    It may wait for a worker, a pod or a task: those that stay keep theirs.
    """
    run = record.dagster_run
    waited = now - _launched_at(record)
    has_begun = hidden_tag(run.tags, ALIVE_TAG) is not None
    if run.status not in _LAUNCHED or has_begun or waited < STARTING_LONG / 2:
        return ""
    return (
        f"was launched {in_words(waited)} ago and has not begun: it waits for a worker, a pod or a "
        "task, or its process starts slowly. Each run at work keeps a worker: there have to be as "
        "many of them as runs, one for each bucket"
    )


def _launched_at(record: RunRecord) -> datetime:
    """Return when a run without a heartbeat was started, or was last changed before that."""
    if record.start_time is not None:
        return datetime.fromtimestamp(record.start_time, timezone.utc)
    return record.update_timestamp.replace(tzinfo=timezone.utc)


def end_run_of_other_code(instance: DagsterInstance, record: RunRecord, version: str) -> str | None:
    """Tell a run to end that has another version of the transform, or other settings; return why.

    None if it has this version.
    """
    if hidden_tag(record.dagster_run.tags, VERSION_TAG) in (None, version):
        return None
    end_run(instance, record, "the transform or its settings have changed")
    return "a run with the former version of the transform ends after its chunk"


def end_run(instance: DagsterInstance, record: RunRecord, why: str) -> None:
    """Tell a run to end, if it stays and is not told already."""
    run = record.dagster_run
    if stays(run) and run.status is DagsterRunStatus.STARTED:
        tell_to_end(instance, record, why)


def tell_to_end(instance: DagsterInstance, record: RunRecord, why: str) -> None:
    """Tell a run of a job whose runs all stay to end, whoever started it, unless it is told."""
    run = record.dagster_run
    if END_TAG not in run.tags:
        instance.add_run_tags(run.run_id, {END_TAG: why})
