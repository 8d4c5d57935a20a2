"""Checks that a run that stays evaluates again: unchanged ones are reported after minutes only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from dagster import AssetCheckEvaluation, AssetCheckKey, DagsterInstance

from datazone_dagster.dagster_glue.assets.lazy_apply import LazyApply
from datazone_dagster.dagster_glue.checks.applied import Applied
from datazone_dagster.dagster_glue.checks.expectation_checks import last_evaluation, repeated
from datazone_dagster.dagster_glue.checks.key_checks import last_keys_events
from datazone_dagster.dagster_glue.checks.rendering import Event, applied_events
from datazone_dagster.dagster_glue.names import UNIQUE_KEYS_CHECK

REPEAT_SECONDS = 300.0


class RepeatedChecks:
    """Checks that a run has reported.

    Args:
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._passed_seconds: dict[AssetCheckKey, float] = {}

    def changed(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events but for checks that pass, as they did when they were last reported.

        A check that fails is reported each time, since its text has the latest numbers; one that
        passes is reported again after some minutes.
        """
        for event in events:
            if not isinstance(event, AssetCheckEvaluation):
                yield event
                continue
            now, key = self._monotonic(), event.asset_check_key
            passed = self._passed_seconds.pop(key, None)
            if event.passed and passed is not None and now - passed < REPEAT_SECONDS:
                self._passed_seconds[key] = passed
                continue
            if event.passed:
                self._passed_seconds[key] = now
            yield event


def last_events(lazy_apply: LazyApply, instance: DagsterInstance) -> Iterator[AssetCheckEvaluation]:
    """Yield the last evaluation of each check again, for a transform that has to wait.

    A run plans the checks of all its transforms. Without this, a check that fails would be hidden
    by the planned one.
    """
    keys = lazy_apply.keys
    for dataset in lazy_apply.datasets:
        for key in keys.checks_of(lazy_apply.transform, dataset):
            last = last_evaluation(instance, key)
            if last is not None:
                yield repeated(last)


def events_so_far(
    so_far: Mapping[str, Applied],
    lazy_apply: LazyApply,
    checks: RepeatedChecks,
    instance: DagsterInstance,
) -> Iterator[Event]:
    """Yield what a run that goes on reports of a transform.

    Args:
        so_far: What was applied since the last time, by dataset id.
        lazy_apply: Apply of the transform.
        checks: Checks that the run has reported of it.
        instance: Instance that has the last checks of the keys.
    """
    keys, by_id = lazy_apply.keys, {one.id: one for one in lazy_apply.datasets}
    for dataset_id, one in so_far.items():
        changed = one.report.chunks > 0
        yield from checks.changed(
            applied_events(
                dataset_id,
                one,
                keys,
                preview=lazy_apply.preview,
                changed=changed,
                partition=lazy_apply.partition,
            )
        )
        key = keys.dataset_check(dataset_id, UNIQUE_KEYS_CHECK)
        yield from checks.changed(last_keys_events(by_id[dataset_id], key, instance))
