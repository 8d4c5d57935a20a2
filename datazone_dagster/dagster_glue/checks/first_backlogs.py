"""Datasets whose check `lag` has never passed: the first backlog of a new one is no error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from dagster import AssetCheckKey, DagsterInstance

from datazone_dagster.api import Dataset
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.names import LAG_CHECK
from datazone_dagster.observe.first_backlog import Progress, in_first_backlog
from datazone_dagster.observe.lag import LagStatus
from datazone_dagster.observe.level import Level

JudgeLag = Callable[[Dataset, LagStatus], LagStatus]
"""Function from a dataset and its lag to the same lag, with the level that a user expects."""


def as_it_is(_: Dataset, lag: LagStatus) -> LagStatus:
    """Return the lag unchanged."""
    return lag


class FirstBacklogs:
    """What one process has seen of the first backlogs of its datasets.

    Args:
        keys: Keys of the assets.
    """

    def __init__(self, keys: AssetKeys) -> None:
        self._keys = keys
        self._progress: dict[str, Progress] = {}
        self._old: set[str] = set()

    def judge(self, instance: DagsterInstance, now: datetime) -> JudgeLag:
        """Return the function that judges the lags of one look.

        Dagster's storage is asked only about a dataset that is late, until its check has passed.
        """

        def judged(dataset: Dataset, lag: LagStatus) -> LagStatus:
            if lag.level is not Level.ERROR or dataset.id in self._old:
                self._progress.pop(dataset.id, None)
                return lag
            if _has_passed(instance, self._keys.dataset_check(dataset.id, LAG_CHECK)):
                self._old.add(dataset.id)
                return lag
            known = self._progress.get(dataset.id)
            progress = Progress.first(lag, now) if known is None else known.after(lag, now)
            self._progress[dataset.id] = progress
            return in_first_backlog(lag, progress, now=now, max_lag=dataset.max_lag)

        return judged


def _has_passed(instance: DagsterInstance, key: AssetCheckKey) -> bool:
    """Return whether a check has ever passed, as far as the storage knows."""
    storage = instance.event_log_storage
    newest = storage.get_asset_check_execution_history(key, limit=1)
    if not newest:
        return False
    passed = type(newest[0].status).SUCCEEDED
    return bool(storage.get_asset_check_execution_history(key, limit=1, status={passed}))
