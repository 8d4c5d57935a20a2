"""The check `unique_keys`: made at night and by hand, and repeated by runs until then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    DagsterInstance,
)

from datazone_dagster.api import Dataset
from datazone_dagster.dagster_glue.checks.expectation_checks import last_evaluation, repeated
from datazone_dagster.dagster_glue.checks.rendering import (
    as_results,
    evaluation,
    rendered,
    severity,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe.table_status import NOT_CHECKED, TableStatus, unique_keys_status
from datazone_dagster.pipeline import key_report


def checked_keys(dataset: Dataset, layout: Layout, now: datetime) -> TableStatus | None:
    """Read the keys of a dataset; return None where there is nothing to check.

    Raises:
        StorageError: The table can't be read.
        OutOfMemoryError: There is too little memory and disk for the keys.
    """
    report = key_report(dataset, layout)
    return None if report is None else unique_keys_status(report, now)


def keys_evaluation(key: AssetCheckKey, status: TableStatus) -> AssetCheckEvaluation:
    """Return the evaluation as an event."""
    return evaluation(key, status.level, status.reason, status.plain)


def keys_result(key: AssetCheckKey, status: TableStatus | None) -> AssetCheckResult:
    """Return the result of the check in a run."""
    status = status or NOT_CHECKED
    return AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=status.level.passed,
        severity=severity(status.level),
        description=status.reason,
        metadata=rendered(status.plain),
    )


def last_keys_results(
    dataset: Dataset, key: AssetCheckKey, instance: DagsterInstance
) -> Iterator[AssetCheckResult]:
    """Yield the last result again: a run that reads no keys neither confirms nor clears it."""
    yield from as_results(last_keys_events(dataset, key, instance))


def last_keys_events(
    dataset: Dataset, key: AssetCheckKey, instance: DagsterInstance
) -> Iterator[AssetCheckEvaluation]:
    """Yield the last result as an event, for a run that stays.

    Without it, Dagster shows the check as in progress until the run ends.
    """
    if dataset.mode == "append":
        return
    last = last_evaluation(instance, key)
    if last is None:
        yield keys_evaluation(key, NOT_CHECKED)
        return
    yield repeated(last)
