"""Process of a run whose steps are tasks of Celery's workers: it ends when its run does.

The executor of dagster-celery waits for the answer of each step. A worker that was killed never
answers, so the process would wait until the code server ends, long after the drain sensor has
marked the run as failed: a process with 150 MB for each such worker. And the late answer of a
frozen worker would turn a failed run into a successful one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import cache
from queue import Empty, Queue
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterExecutionInterruptedError,
    Executor,
    ExecutorDefinition,
)

from datazone_dagster.dagster_glue.runs.finished_runs import is_over

LOOK_SECONDS = 5.0
"""Interval at which the process looks whether its run is over."""

_NOTHING = object()

_logger = logging.getLogger(__name__)


def hands_steps_to_broker(executor: ExecutorDefinition) -> bool:
    """Return whether an executor hands steps to a broker's workers: those of Celery do."""
    return executor.name.startswith("celery")


@cache
def ending_with_its_run(executor: ExecutorDefinition) -> ExecutorDefinition:
    """Return the executor; that of Celery as one whose process ends when its run is over.

    The same one for the same executor: definitions that use it count as equal.
    """
    create = executor.executor_creation_fn
    if create is None or not hands_steps_to_broker(executor):
        return executor
    schema: Any = executor.config_schema  # taken as it is, though the argument's type leaves it out
    return ExecutorDefinition(
        name=executor.name,
        config_schema=schema,
        requirements=executor.get_requirements,
        executor_creation_fn=lambda context: _EndingExecutor(create(context)),
        description=executor.description,
    )


class _EndingExecutor(Executor):
    """Executor that is interrupted when its run is over.

    The loop of dagster-celery reads settings from it that other executors don't have.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    @property
    def retries(self) -> Any:  # its type has no public name
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:  # the same
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        return until_over(
            self._executor.execute(plan_context, execution_plan),
            lambda: is_over(plan_context.instance, plan_context.run_id),
            LOOK_SECONDS,
        )


def until_over(
    events: Iterator[DagsterEvent],
    run_is_over: Callable[[], bool],
    look_seconds: float,
) -> Iterator[DagsterEvent]:
    """Yield the events of an executor while its run goes on.

    A thread waits for the events: the executor may never yield one again. It is left behind when
    the run is over, and ends with the process.

    Args:
        events: Events of the executor.
        run_is_over: Function that asks Dagster's database. An error of it counts as no.
        look_seconds: Interval at which it is asked while no event comes.

    Raises:
        DagsterExecutionInterruptedError: The run is over. Dagster leaves its status as it is.
        Exception: That of the executor.
    """
    waiting: Queue[object] = Queue()

    def read() -> None:
        try:
            for event in events:
                waiting.put(event)
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the events are awaited
            waiting.put(error)

    threading.Thread(target=read, name="datazone-executor", daemon=True).start()
    while True:
        try:
            item = waiting.get(timeout=look_seconds)
        except Empty:
            item = _NOTHING
        if isinstance(item, DagsterEvent):
            yield item
            continue
        if _asked(run_is_over):
            raise DagsterExecutionInterruptedError
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item


def _asked(run_is_over: Callable[[], bool]) -> bool:
    try:
        return run_is_over()
    except Exception as error:  # noqa: BLE001 - whatever the storage raises: asked again
        _logger.info("A run could not ask whether it is over: %s", error)
        return False
