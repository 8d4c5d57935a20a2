"""Processes of runs that wait for a step which nobody works on any more.

An executor that hands steps on, such as Celery's, waits in the run's process for the answer of a
worker. If the worker is killed, no answer comes, also after the run was marked as failed and after
an interrupt. The process would stay as long as the code server, which would wait for it at its end.
"""

from __future__ import annotations

import logging
import multiprocessing

from dagster import DagsterEventType, DagsterInstance, DagsterRun

_logger = logging.getLogger(__name__)


def kill_left_process(instance: DagsterInstance, run: DagsterRun) -> None:
    """Kill the process of a run that is over, if this process has started it.

    So it is in the code server, with Dagster's default run launcher. Pods and tasks of other
    launchers are theirs.
    """
    started = _pids_of(instance, run)
    for process in multiprocessing.active_children():
        if process.pid in started:
            _logger.info("Process %d still waits for a step of run %s.", process.pid, run.run_id)
            process.kill()


def _pids_of(instance: DagsterInstance, run: DagsterRun) -> set[int]:
    """Return the processes that Dagster's log names as those of a run."""
    found = set()
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        data = entry.dagster_event and entry.dagster_event.engine_event_data
        pid = data.metadata.get("pid") if data else None
        if pid is not None and str(pid.value).isdigit():
            found.add(int(str(pid.value)))
    return found
