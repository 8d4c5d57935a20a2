"""Steps that a broker's workers take: of runs that are over, and of runs that nobody answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterRunStatus,
    Executor,
    ExecutorDefinition,
    InitResourceContext,
    execute_job,
    in_process_executor,
    job,
    multiprocess_executor,
    op,
    reconstructable,
)
from dagster._core.execution.retries import RetryMode

from datazone_dagster import Lakehouse
from datazone_dagster.dagster_glue.names import ALIVE_TAG, FAILURE_TAG
from datazone_dagster.dagster_glue.runs import celery_executor, staying_runs
from datazone_dagster.dagster_glue.runs.celery_executor import ending_with_its_run, until_over
from datazone_dagster.dagster_glue.runs.job_runs import PARTITION_TAG
from tests.dagster_glue.conftest import MakeWorld, World, orders_transform

EVENT = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job_name="apply_orders")


def test_a_step_of_a_run_that_is_over_does_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor has given the run up while its step waited for a worker."""

    def give_up(_: Lakehouse, context: InitResourceContext) -> None:
        assert context.instance is not None
        assert context.run is not None
        context.instance.report_run_failed(context.run, "it has sent no heartbeat")

    world.put("a")
    [request] = world.tick().requests
    monkeypatch.setattr(Lakehouse, "setup_for_execution", give_up)
    result = world.run("apply_orders", tags=request.tags, raise_on_error=False)
    assert not result.success
    assert not any(one.is_step_materialization for one in result.all_events)
    [failure] = [one for one in result.all_events if one.is_step_failure]
    assert "had ended before its step began" in str(failure.step_failure_data.error)
    run = world.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert not {FAILURE_TAG, ALIVE_TAG} & run.tags.keys()  # no failure of the application

    monkeypatch.undo()
    world.clock.advance(timedelta(minutes=1))
    world.run_until_idle()
    assert world.rows() == {"a": "placed"}


def silent(events: list[Any], ended: threading.Event) -> Iterator[DagsterEvent]:
    """Yield events, and wait then for an answer that comes when the test ends."""
    yield from events
    ended.wait()


def test_the_process_of_a_run_ends_when_its_run_is_over() -> None:
    ended = threading.Event()
    looks = iter([False, False, True])
    found = until_over(silent([EVENT], ended), lambda: next(looks), 0.01)
    assert next(found) is EVENT
    with pytest.raises(DagsterExecutionInterruptedError):
        next(found)
    assert next(looks, None) is None
    ended.set()


def test_events_and_errors_of_the_executor_pass() -> None:
    assert list(until_over(iter([EVENT, EVENT]), lambda: False, 1.0)) == [EVENT, EVENT]

    def fails() -> Iterator[DagsterEvent]:
        yield EVENT
        raise ValueError("boom")

    found = until_over(fails(), lambda: False, 1.0)
    assert next(found) is EVENT
    with pytest.raises(ValueError, match="boom"):
        next(found)


def test_a_late_answer_does_not_make_a_failed_run_successful() -> None:
    with pytest.raises(DagsterExecutionInterruptedError):
        list(until_over(iter([EVENT]), lambda: True, 1.0))


def test_a_database_that_does_not_answer_ends_no_process() -> None:
    looks = iter([OSError("down"), True])

    def is_over() -> bool:
        match next(looks):
            case Exception() as error:
                raise error
            case answer:
                return bool(answer)

    ended = threading.Event()
    with pytest.raises(DagsterExecutionInterruptedError):
        list(until_over(silent([], ended), is_over, 0.01))
    assert next(looks, None) is None
    ended.set()


class NeverAnswers(Executor):
    """An executor like that of Celery, whose worker was killed; the sensor gives the run up."""

    more = "read by its own loop"

    @property
    def retries(self) -> RetryMode:
        return RetryMode.DISABLED

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        assert plan_context.executor.more == self.more
        instance: DagsterInstance = plan_context.instance
        instance.report_run_failed(plan_context.run, "it has sent no heartbeat")
        yield from silent([], threading.Event())


CELERY = ExecutorDefinition("celery", executor_creation_fn=lambda _: NeverAnswers())


@op
def step() -> None: ...


@job(executor_def=ending_with_its_run(CELERY))
def job_of_celery() -> None:
    step()


def test_the_process_of_a_killed_step_ends_and_its_run_stays_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_executor, "LOOK_SECONDS", 0.01)
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = execute_job(reconstructable(job_of_celery), instance)
        events = [one.dagster_event_type for one in instance.all_logs(result.run_id)]
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is DagsterRunStatus.FAILURE
    assert events.count(DagsterEventType.PIPELINE_FAILURE) == 1  # alerts are sent once
    assert DagsterEventType.PIPELINE_SUCCESS not in events


def test_only_the_executor_of_celery_is_wrapped_and_once() -> None:
    for other in (in_process_executor, multiprocess_executor):
        assert ending_with_its_run(other) is other
    configured = CELERY.configured({"broker": "redis://127.0.0.1:6379/0"})
    assert ending_with_its_run(configured) is ending_with_its_run(configured)
    assert ending_with_its_run(configured) is not configured


def test_the_sensor_says_that_a_bucket_has_no_worker(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(buckets=2))
    for number in range(20):
        world.put(f"k{number}")
    requests = world.tick().requests
    assert [one.partition_key for one in requests] == ["1-of-2", "2-of-2"]
    apply = world.defs.resolve_job_def("apply_orders")
    runs = [
        world.instance.create_run_for_job(
            apply, status=DagsterRunStatus.STARTING, tags={PARTITION_TAG: str(one.partition_key)}
        )
        for one in requests
    ]
    world.clock.now = datetime.now(timezone.utc)
    skip = world.tick().skip or ""
    assert "apply_orders of bucket 1-of-2 is running or queued" in skip
    world.clock.advance(staying_runs.STARTING_LONG / 2 + timedelta(seconds=1))
    world.instance.add_run_tags(runs[0].run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    skip = world.tick().skip or ""
    assert "apply_orders of bucket 1-of-2 is running or queued" in skip
    assert re.search(r"of bucket 2-of-2 was launched 3\d s ago and has not begun", skip)
    assert "as many of them as runs, one for each bucket" in skip
