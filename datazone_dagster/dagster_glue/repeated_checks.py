"""Checks that a run that stays evaluates again: unchanged ones are reported after minutes only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from dagster import AssetCheckEvaluation, AssetCheckKey

from datazone_dagster.dagster_glue.rendering import Event

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
