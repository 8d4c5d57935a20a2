"""Options of `build_definitions` that go to Dagster: sensors, runs and ops."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from dagster import (
    AutomationCondition,
    DefaultSensorStatus,
    EnvVar,
    ExecutorDefinition,
    RetryPolicy,
    in_process_executor,
)

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.resources import LAKEHOUSE_URI_VARIABLE, Lakehouse
from datazone_dagster.dagster_glue.translator import (
    DagsterDatazoneTranslator,
    ExecutingTranslator,
)
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import is_remote

LOCAL_TICK_SECONDS = 5
REMOTE_TICK_SECONDS = 15
"""Time between two drains where none is given; in an object store, each batch has a price."""


def is_remote_now(lakehouse: Lakehouse) -> bool:
    """Return whether a lakehouse is in an object store, by its location as of now."""
    uri = lakehouse.uri.get_value() if isinstance(lakehouse.uri, EnvVar) else lakehouse.uri
    return is_remote(uri or os.environ.get(LAKEHOUSE_URI_VARIABLE) or "")


def default_tick_seconds(lakehouse: Lakehouse) -> int:
    """Return the time between two drains for a lakehouse."""
    return REMOTE_TICK_SECONDS if is_remote_now(lakehouse) else LOCAL_TICK_SECONDS


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of the runs, ops and sensors of one call of `build_definitions`.

    Args:
        default_status: Status of the sensors in a code location that was never seen before.
        tick_seconds: Shortest interval of drain ticks.
        min_run_interval: Shortest time between the starts of two runs of a transform.
        run_tags: Tags of the runs that the sensors request.
        op_tags: Tags of the ops of the transforms.
        executor: Executor of the jobs `apply_<transform>`.
        retry_policy: Retry policy of the ops; None: the sensor requests the next run.
        automation_condition: Condition of all datasets, beside the sensor; None: none.
        translator: How assets look.
        one_run_per_source: Whether the transforms of a source share the runs.
        keys: Keys of the assets and checks.
        why_stopped: Why the sensors do not start by default; empty if they do, or were not to.
    """

    default_status: DefaultSensorStatus = DefaultSensorStatus.RUNNING
    tick_seconds: int = LOCAL_TICK_SECONDS
    min_run_interval: timedelta = timedelta(0)
    run_tags: Mapping[str, str] = field(default_factory=dict)
    op_tags: Mapping[str, str] = field(default_factory=dict)
    executor: ExecutorDefinition = in_process_executor
    retry_policy: RetryPolicy | None = None
    automation_condition: AutomationCondition[Any] | None = None
    translator: DagsterDatazoneTranslator = field(default_factory=DagsterDatazoneTranslator)
    one_run_per_source: bool = False
    keys: AssetKeys = field(default_factory=AssetKeys)
    why_stopped: str = ""

    def shares_runs(self, transform: Transform) -> bool:
        """Return whether a transform shares the runs of its source."""
        if not self.one_run_per_source or not transform.source.stream_enabled:
            return False
        if transform.buckets > 1:  # each bucket has runs of its own
            return False
        return not (isinstance(self.translator, ExecutingTranslator) and self.translator.does_more)

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            DefinitionError: An option is invalid; the message names it and its allowed values.
        """
        seconds = self.tick_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
            raise _refused("tick_seconds", seconds, "Give whole seconds, 1 or more.")
        if not isinstance(self.min_run_interval, timedelta) or self.min_run_interval < timedelta(0):
            hint = "Give a timedelta of 0 or more, such as timedelta(minutes=5)."
            raise _refused("min_run_interval", self.min_run_interval, hint)
        for name in ("run_tags", "op_tags"):
            tags = getattr(self, name)
            if not isinstance(tags, Mapping) or not all(
                isinstance(text, str) for pair in tags.items() for text in pair
            ):
                raise _refused(name, tags, "Give a mapping from tag to value, both strings.")
        kinds: dict[str, tuple[type, ...]] = {
            "default_status": (DefaultSensorStatus,),
            "executor": (ExecutorDefinition,),
            "retry_policy": (RetryPolicy, type(None)),
            "automation_condition": (AutomationCondition, type(None)),
            "translator": (DagsterDatazoneTranslator,),
            "one_run_per_source": (bool,),
        }
        for name, allowed in kinds.items():
            if not isinstance(getattr(self, name), allowed):
                module = allowed[0].__module__.partition(".")[0]
                hint = f"Give a {module}.{allowed[0].__name__}."
                raise _refused(name, getattr(self, name), hint)


def _refused(name: str, value: object, hint: str) -> DefinitionError:
    return DefinitionError(f"build_definitions: {name}={value!r} is not allowed.", hint=hint)
