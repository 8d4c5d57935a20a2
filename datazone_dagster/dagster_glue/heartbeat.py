"""Signs of life of runs, and what becomes of a run that shows none any more.

Dagster notices that a run's process died as long as the code server lives that started it. If
both go at once (the machine, the container, its memory), the default run launcher leaves the
run as started for ever: it holds its pool, and no run of the transform ever starts again.
So a run of ours tells that it lives, in a tag, and the sensor ends a run that fell silent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.model.protocols import Clock

ALIVE_TAG = "datazone/alive_at"
"""When a run last told that it lives; empty when it goes on with something that does not tell."""

BEAT_SECONDS = 15.0
SILENCE_SECONDS = 120.0
"""A run that is silent for so long is over.

If it only was stopped and goes on after all, it is one run too many, which is harmless.
"""

_RUNS_LOOKED_AT = 200

_logger = logging.getLogger(__name__)


@contextmanager
def heartbeats(
    instance: DagsterInstance, run_id: str, clock: Clock, *, rest_is_quick: bool
) -> Iterator[None]:
    """Within the block, the run tells every 15 seconds that it lives.

    Args:
        instance: Where it tells it.
        run_id: The run.
        clock: Tells the time; the sensor that listens has the same one.
        rest_is_quick: Whether all else that the run does takes seconds, so that silence after
            the block means the same. Not in a job with steps of somebody else.
    """
    over = threading.Event()

    def send_heartbeat() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                tell()
            except Exception as error:  # noqa: BLE001 - whatever the storage raises: one beat is missed
                _logger.info("Run %s could not tell that it lives: %s", run_id, error)

    def tell() -> None:
        instance.add_run_tags(run_id, {ALIVE_TAG: clock().isoformat()})

    tell()
    thread = threading.Thread(target=send_heartbeat, name="datazone-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if not rest_is_quick:
            instance.add_run_tags(run_id, {ALIVE_TAG: ""})


def end_silent_runs(instance: DagsterInstance, job_names: Collection[str], now: datetime) -> None:
    """Mark runs as failed that are started and fell silent.

    Those of other jobs too: they may hold the same pools. Of runs that never told anything,
    only those of `job_names` are known to be ones that would.
    """
    started = RunsFilter(statuses=[DagsterRunStatus.STARTED])
    for record in instance.get_run_records(started, limit=_RUNS_LOOKED_AT):
        heard_at = _heard_at(record, job_names)
        if heard_at is None or now - heard_at < timedelta(seconds=SILENCE_SECONDS):
            continue
        run = record.dagster_run
        instance.report_run_failed(
            run,
            f"This run has not been heard of since {heard_at.isoformat(timespec='seconds')}: its "
            "process is gone. Nothing is lost: what it had committed stands, the next run goes on "
            "from there.",
        )


def _heard_at(record: RunRecord, job_names: Collection[str]) -> datetime | None:
    told = record.dagster_run.tags.get(ALIVE_TAG)
    if told:
        return datetime.fromisoformat(told)
    if told == "" or record.dagster_run.job_name not in job_names or record.start_time is None:
        return None
    return datetime.fromtimestamp(record.start_time, timezone.utc)
