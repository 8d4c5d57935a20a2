"""A sensor that somebody has stopped: runs that it requested and that stay end soon, too."""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRun

from datazone_dagster.dagster_glue.names import SOURCE_TAG

ASK_EVERY_SECONDS = 30.0
"""Interval at which a run asks for the state of its sensor."""


def was_stopped(instance: DagsterInstance, run: DagsterRun, sensor: str) -> bool:
    """Return whether a run was requested by a sensor that is stopped now.

    Only an explicit stop counts. While the daemon is down, or a code location does not load, no
    sensor ticks either, but then landing goes on: the stream keeps its changes for a day only.

    Args:
        instance: The instance.
        run: The run. One that somebody started by hand depends on no sensor.
        sensor: Name of the sensor, in the repository of the run.
    """
    job = run.remote_job_origin
    if SOURCE_TAG not in run.tags or job is None or instance.schedule_storage is None:
        return False
    origin = job.repository_origin.get_instigator_origin(sensor)
    state = instance.get_instigator_state(origin.get_id(), origin.get_selector().get_id())
    return state is not None and state.status.value == "STOPPED"
