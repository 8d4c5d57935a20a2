"""Heartbeats of runs, and the end of runs without one.

Dagster notices the death of a run's process as long as the code server that started it lives.
If both die at once (the machine, the container, its memory), the default run launcher leaves the
run as started for ever: the run occupies its pool, and no run of the transform starts again. So
each run writes heartbeats to one of its tags, and the drain sensor ends a run without them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.dagster_glue.names import ALIVE_TAG, hidden_tag
from datazone_dagster.model.protocols import Clock

HEARTBEAT_SECONDS = 15.0
SILENCE_SECONDS = 120.0
"""Time without a heartbeat after which a run is marked as failed.

A run that was only suspended and continues is then one run too many, which is harmless.
"""

_RUNS_CHECKED = 200

_logger = logging.getLogger(__name__)


@contextmanager
def heartbeats(
    instance: DagsterInstance, run_id: str, clock: Clock, *, rest_is_quick: bool
) -> Iterator[None]:
    """Send a heartbeat of the run every 15 seconds while the block runs.

    Args:
        instance: Instance whose run gets the tag.
        run_id: Id of the run.
        clock: Clock of the heartbeats; the sensor that reads them uses the same one.
        rest_is_quick: Whether the rest of the run takes seconds, so that silence after the block
            means that the run is dead, too. Not so in a job with steps of others.
    """
    ended = threading.Event()

    def send_heartbeats() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                send_heartbeat()
            except Exception as error:  # noqa: BLE001 - whatever the storage raises: one heartbeat is missed
                _logger.info("Run %s could not send a heartbeat: %s", run_id, error)

    def send_heartbeat() -> None:
        instance.add_run_tags(run_id, {ALIVE_TAG: clock().isoformat()})

    send_heartbeat()
    thread = threading.Thread(target=send_heartbeats, name="datazone-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if not rest_is_quick:
            instance.add_run_tags(run_id, {ALIVE_TAG: ""})


def end_silent_runs(instance: DagsterInstance, job_names: Collection[str], now: datetime) -> None:
    """Mark started runs without a recent heartbeat as failed.

    Runs of all jobs are checked, since they may occupy the same pools. A run that never sent a
    heartbeat is ended only if its job is one of `job_names`: other jobs may not send any.
    """
    started = RunsFilter(statuses=[DagsterRunStatus.STARTED])
    for record in instance.get_run_records(started, limit=_RUNS_CHECKED):
        alive_at = _last_alive_at(record, job_names)
        if alive_at is None or now - alive_at < timedelta(seconds=SILENCE_SECONDS):
            continue
        run = record.dagster_run
        instance.report_run_failed(
            run,
            f"This run has sent no heartbeat since {alive_at.isoformat(timespec='seconds')}: its "
            "process is gone. Nothing is lost: its commits are safe, and the next run continues "
            "after them.",
        )


def _last_alive_at(record: RunRecord, job_names: Collection[str]) -> datetime | None:
    heartbeat = hidden_tag(record.dagster_run.tags, ALIVE_TAG)
    if heartbeat:
        return datetime.fromisoformat(heartbeat)
    if heartbeat == "" or record.dagster_run.job_name not in job_names or record.start_time is None:
        return None
    return datetime.fromtimestamp(record.start_time, timezone.utc)
