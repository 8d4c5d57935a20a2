"""Heartbeats of runs, and the end of runs without one.

Dagster notices the death of a run's process as long as the code server that started it lives.
If both die at once (the machine, the container, its memory), the default run launcher leaves the
run as started for ever: the run occupies its pool, and no run of the transform starts again. So
each run writes heartbeats to one of its tags, and the drain sensor ends a run without them. It
believes the time in the tag only together with what it has seen itself, see `silence.py`.

An executor that hands its steps to others (a broker's workers, pods) leaves a run as started while
its step waits for one of them, and for ever if that message is lost. A run gets more time before
its first heartbeat, unless, with a broker, one that began later has overtaken it. A run whose step
waits for a slot of its pool is not silent: it has that time from when it gets the slot.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.dagster_glue.names import ALIVE_TAG, hidden_tag
from datazone_dagster.dagster_glue.runs.finished_runs import is_over
from datazone_dagster.dagster_glue.runs.silence import SilenceWatch
from datazone_dagster.dagster_glue.runs.slot_waits import waiting_for_slots
from datazone_dagster.model.protocols import Clock
from datazone_dagster.process.current_run import working_for

HEARTBEAT_SECONDS = 5.0
AGAIN_SECONDS = 2.0
"""Time after which a heartbeat that the storage refused is sent again."""
SILENCE_SECONDS = 20.0
"""Time without a heartbeat after which a run is marked as failed: three were missed.

A run that was only suspended and continues is then one run too many, which is harmless: it gives
way to commits of the next one, and ends when it looks at its status. With the next tick, and the
start of a process, another run is at work within a minute, also where the machine is so busy that a
process takes half of that to start.
"""

FIRST_HEARTBEAT_SECONDS = 120.0
"""Time for the first heartbeat: a step may wait for a worker."""

OVERTAKEN_SECONDS = 35.0
"""The same once a later step has begun: the worker of this one may have to load the code first."""

OTHER_SILENCE_SECONDS = 120.0
"""Silence allowed to runs that do not look at their status, so that they would go on when marked as
failed: snapshots, rebuilds, maintenance, audits."""

_NEWEST_RUNS = 200
_WITH_A_PROCESS = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]

_WAITS = "waits for a slot"
"""Stands for the heartbeat of a run whose step waits: its silence begins when it need not wait."""

_watch = SilenceWatch()

_logger = logging.getLogger(__name__)


@contextmanager
def heartbeats(
    instance: DagsterInstance,
    run_id: str,
    clock: Clock,
    *,
    rest_is_quick: bool,
    tags: Callable[[], Mapping[str, str]] = dict,
) -> Iterator[None]:
    """Send a heartbeat of the run every 5 seconds while the block runs, or until the run ends.

    Args:
        instance: Instance whose run gets the tag.
        run_id: Id of the run.
        clock: Clock of the heartbeats; the sensor that reads them uses the same one.
        rest_is_quick: Whether the rest of the run takes seconds, so that silence after the block
            means that the run is dead, too. Not so in a job with steps of others.
        tags: Function that returns further tags to write with each heartbeat.
    """
    ended = threading.Event()

    def send_heartbeats() -> None:
        was_sent = first_was_sent
        while not ended.wait(
            HEARTBEAT_SECONDS if was_sent else min(AGAIN_SECONDS, HEARTBEAT_SECONDS)
        ):
            was_sent = send(heartbeat)

    def send(what: Callable[[], Mapping[str, str]]) -> bool:
        try:
            if not is_over(instance, run_id):
                instance.add_run_tags(run_id, dict(what()))
        except Exception as error:  # noqa: BLE001 - whatever the storage raises: one heartbeat is missed
            _logger.info("Run %s could not send a heartbeat: %s", run_id, error)
            return False
        return True

    def heartbeat() -> Mapping[str, str]:
        return {**tags(), ALIVE_TAG: clock().isoformat()}

    first_was_sent = send(heartbeat)
    thread = threading.Thread(target=send_heartbeats, name="datazone-heartbeat", daemon=True)
    thread.start()
    try:
        with working_for(run_id):
            yield
    finally:
        ended.set()
        thread.join()
        # The rest has the full time of silence, or all time.
        send(heartbeat if rest_is_quick else lambda: {ALIVE_TAG: ""})


def end_silent_runs(
    instance: DagsterInstance,
    job_names: Collection[str],
    now: datetime,
    *,
    quick_to_end: Collection[str] = (),
    handed_on: Collection[str] = (),
    only: str | None = None,
) -> None:
    """Mark started runs without a recent heartbeat as failed, and those to be canceled as canceled.

    A process that died, or was gone before somebody terminated its run, cancels nothing: Dagster
    would show the run as canceling for ever, and it would keep its place.

    Runs of all jobs are checked, since they may occupy the same pools. A run that never sent a
    heartbeat is ended only if its job is one of `job_names`: other jobs may not send any.

    Args:
        instance: Dagster instance with the runs.
        job_names: Jobs whose steps send heartbeats from their start on.
        now: Current time.
        quick_to_end: Those of them that look at their status, and end soon after they were marked
            as failed by mistake. They are allowed the shorter silence.
        handed_on: Those of them whose executor hands steps to a broker.
        only: Job whose runs are checked; None: those of all jobs.
    """
    records = _started_runs(instance, job_names, only)
    begun = {job_name: _last_begun(records, job_name) for job_name in handed_on}
    own = [one for one in records if one.dagster_run.job_name in job_names]
    mute = {one.dagster_run.run_id for one in own if _heartbeat_of(one) is None}
    waiting = waiting_for_slots(instance, mute)
    for record in records:
        run, alive_at = record.dagster_run, _last_alive_at(record, job_names)
        heartbeat = _WAITS if run.run_id in waiting else _heartbeat_of(record)
        allowed_seconds = _allowed_seconds(record, quick_to_end, begun)
        # Seen by ourselves at least: one heartbeat less, as a tick sees the last one late.
        least_seconds = allowed_seconds - HEARTBEAT_SECONDS
        # The time that a step has waited so far counts, too, when a later one overtakes it.
        waits = _heartbeat_of(record) is None and run.job_name in begun
        counted_seconds = OVERTAKEN_SECONDS - HEARTBEAT_SECONDS if waits else least_seconds
        seen_seconds = _watch.look(run.run_id, heartbeat, now, counted_seconds / 2)
        if alive_at is None or seen_seconds < least_seconds or run.run_id in waiting:
            continue
        if max((now - alive_at).total_seconds(), seen_seconds) < allowed_seconds:
            continue
        is_canceling = run.status is DagsterRunStatus.CANCELING
        end = instance.report_run_canceled if is_canceling else instance.report_run_failed
        end(
            run,
            f"This run has sent no heartbeat since {alive_at.isoformat(timespec='seconds')}: its "
            "process is gone. Nothing is lost: its commits are safe, and the next run continues "
            "after them.",
        )


def _heartbeat_of(record: RunRecord) -> str | None:
    return hidden_tag(record.dagster_run.tags, ALIVE_TAG)


def last_sign_of_life(record: RunRecord) -> datetime | None:
    """Return the time of the last heartbeat of a run; None if it sent none, or stopped to."""
    heartbeat = hidden_tag(record.dagster_run.tags, ALIVE_TAG)
    return datetime.fromisoformat(heartbeat) if heartbeat else None


def _started_runs(
    instance: DagsterInstance, job_names: Collection[str], only: str | None
) -> list[RunRecord]:
    """Return the started runs: all of `only` or of `job_names`, and the newest of other jobs."""

    def of(job_name: str | None, limit: int | None = None) -> Sequence[RunRecord]:
        started = RunsFilter(job_name=job_name, statuses=_WITH_A_PROCESS)
        return instance.get_run_records(started, limit=limit)

    if only is not None:
        return list(of(only))
    newest = of(None, _NEWEST_RUNS)
    found = {one.storage_id: one for one in newest}
    if len(newest) >= _NEWEST_RUNS:
        found.update((one.storage_id, one) for job_name in job_names for one in of(job_name))
    return list(found.values())


def _allowed_seconds(
    record: RunRecord, quick_to_end: Collection[str], begun: Mapping[str, int]
) -> float:
    """Return the silence after which a run is dead."""
    run = record.dagster_run
    if hidden_tag(run.tags, ALIVE_TAG) is None:
        overtaken = record.storage_id < begun.get(run.job_name, 0)
        return OVERTAKEN_SECONDS if overtaken else FIRST_HEARTBEAT_SECONDS
    return SILENCE_SECONDS if run.job_name in quick_to_end else OTHER_SILENCE_SECONDS


def _last_begun(records: Sequence[RunRecord], job_name: str) -> int:
    """Return the number of the newest run of a job that has sent a heartbeat; 0 if none has."""
    of_job = (one for one in records if one.dagster_run.job_name == job_name)
    return max((one.storage_id for one in of_job if last_sign_of_life(one)), default=0)


def _last_alive_at(record: RunRecord, job_names: Collection[str]) -> datetime | None:
    alive_at, heartbeat = last_sign_of_life(record), hidden_tag(record.dagster_run.tags, ALIVE_TAG)
    if alive_at is not None:
        return alive_at
    if heartbeat == "" or record.dagster_run.job_name not in job_names or record.start_time is None:
        return None
    return datetime.fromtimestamp(record.start_time, timezone.utc)
