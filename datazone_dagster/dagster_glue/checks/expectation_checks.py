"""The checks `expect_<name>`: one for each expectation of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from dagster import AssetCheckEvaluation, AssetCheckKey, AssetCheckResult, DagsterInstance

from datazone_dagster.api import Dataset, Expect
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.rendering import expectation_results
from datazone_dagster.dagster_glue.names import expectation_check_name
from datazone_dagster.errors import ExpectationError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.report import RuleCount
from datazone_dagster.observe.bucket_verdicts import BUCKET, facts_of
from datazone_dagster.observe.expectation_status import expectation_statuses, known_count

LOOKED_AT = 100
"""Records of a check that are read at once, in search of its last evaluation."""

_ON_VIOLATION = {
    "warn": "Rows that violate it are written, and the check warns.",
    "fail": "Rows that violate it fail the run before anything of their chunk is written.",
    "quarantine": "Changes with rows that violate it go to the quarantine, and the check warns.",
}


def expectation_text(expected: Expect) -> str:
    """Return the description of the check of an expectation."""
    return (
        f"Each row that is written has `{expected.predicate}`. "
        + _ON_VIOLATION[expected.on_violation]
    )


def known_expectations(
    instance: DagsterInstance, dataset: Dataset, keys: AssetKeys, bucket: KeyBucket = WHOLE
) -> tuple[RuleCount, ...]:
    """Return the counts of the last evaluations, for a report that wrote no row.

    Args:
        instance: Dagster instance.
        dataset: The dataset.
        keys: Keys of its checks.
        bucket: Bucket of the run: the counts are of its own last report.
    """
    found = []
    for rule, expected in dataset.expect:
        key = keys.dataset_check(dataset.id, expectation_check_name(rule))
        count = known_count(rule, expected, _last_values(instance, key, bucket))
        if count is not None:
            found.append(count)
    return tuple(found)


def _last_values(
    instance: DagsterInstance, key: AssetCheckKey, bucket: KeyBucket
) -> Mapping[str, object]:
    """Return the metadata of the last evaluation of a bucket, or what later ones keep of it."""
    if bucket.is_whole:
        last = last_evaluation(instance, key)
        return values_of(last) if last else {}
    newest = [values_of(one) for one in islice(evaluations(instance, key), LOOKED_AT)]
    own = (one for one in newest if one.get(BUCKET) == bucket.name)
    return next(own, None) or facts_of(newest[0] if newest else {}, bucket)


def values_of(evaluation: AssetCheckEvaluation | AssetCheckResult) -> dict[str, object]:
    """Return the plain values of the metadata of an evaluation."""
    entries = evaluation.metadata or {}
    return {name: getattr(entry, "value", entry) for name, entry in entries.items()}


def last_evaluation(instance: DagsterInstance, key: AssetCheckKey) -> AssetCheckEvaluation | None:
    """Return the last evaluation of a check; what runs have only planned is passed over."""
    return next(evaluations(instance, key), None)


def evaluations(instance: DagsterInstance, key: AssetCheckKey) -> Iterator[AssetCheckEvaluation]:
    """Yield the evaluations of a check, newest first."""
    storage = instance.event_log_storage
    records = storage.get_asset_check_execution_history(key, limit=LOOKED_AT)
    while records:
        for record in records:
            event = record.event.dagster_event if record.event else None
            facts = event.event_specific_data if event is not None else None
            if isinstance(facts, AssetCheckEvaluation):
                yield facts
        cursor = records[-1].id
        records = storage.get_asset_check_execution_history(key, limit=LOOKED_AT, cursor=cursor)


def repeated(last: AssetCheckEvaluation) -> AssetCheckEvaluation:
    """Return an evaluation to report again, by a run that neither confirms nor clears it."""
    return AssetCheckEvaluation(
        asset_key=last.asset_key,
        check_name=last.check_name,
        passed=last.passed,
        severity=last.severity,
        description=last.description,
        metadata=last.metadata,
    )


def results_of_failure(
    datasets: Iterable[Dataset], error: ExpectationError, keys: AssetKeys
) -> Iterator[AssetCheckResult]:
    """Yield the results of the checks whose rules failed a run."""
    for dataset in datasets:
        if dataset.id != error.dataset_id:
            continue
        counts = [
            RuleCount(rule, error.rows, violations) for rule, violations in error.violations.items()
        ]
        failed = expectation_statuses(dataset, counts)
        yield from expectation_results(
            keys.dataset(dataset.id), (one for one in failed if one.count.violations)
        )
