"""Code locations as Dagster's daemon stores them: origins of runs, ticks of sensors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

REPOSITORY = "__repository__"


def repository_of(location: str) -> RemoteRepositoryOrigin:
    """Return the origin of the definitions of a code location."""
    target = LoadableTargetOrigin(python_file="definitions.py")
    origin = InProcessCodeLocationOrigin(target, location_name=location)
    return RemoteRepositoryOrigin(origin, REPOSITORY)


def origins_of_run(location: str, job: str) -> dict[str, Any]:
    """Return what the run of a job of a code location has beside its tags."""
    code = CodePointer.from_python_file("definitions.py", "defs", None)
    python = JobPythonOrigin(job, RepositoryPythonOrigin("python", code))
    remote = repository_of(location).get_job_origin(job)
    return {"remote_job_origin": remote, "job_code_origin": python}


def run_in(
    instance: DagsterInstance,
    location: str,
    job: str,
    tags: Mapping[str, str],
    status: DagsterRunStatus = DagsterRunStatus.STARTED,
) -> DagsterRun:
    """Add a run of a code location."""
    origins = origins_of_run(location, job)
    return instance.add_run(DagsterRun(job, status=status, tags=tags, **origins))


def ticked(instance: DagsterInstance, location: str, sensor: str, at: datetime) -> None:
    """Store a sensor of a code location that is switched on, with one tick."""
    origin = repository_of(location).get_instigator_origin(sensor)
    data = SensorInstigatorData(min_interval=5)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    instance.add_instigator_state(state)
    instance.create_tick(
        TickData(
            state.instigator_origin_id,
            sensor,
            InstigatorType.SENSOR,
            TickStatus.SKIPPED,
            at.timestamp(),
            selector_id=state.selector_id,
        )
    )
