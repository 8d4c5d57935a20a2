"""Checks of a dataset with buckets: each run sees rows of its bucket, the check tells of them all.

The rows of a run decide the checks of expectations, and `schema` where values did not fit. A bucket
that fails stands in the check until a run of its keys has passed: each report takes over from the
newest evaluations what they say of the other buckets. Two runs that report at once do not know of
each other. So a run that stays looks again with each materialization, and reports what is new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetMaterialization,
    DagsterInstance,
)

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.expectation_checks import (
    LOOKED_AT,
    evaluations,
    values_of,
)
from datazone_dagster.dagster_glue.checks.rendering import VALUES_NOT_FITTING, severity
from datazone_dagster.dagster_glue.names import SCHEMA_CHECK, expectation_check_name
from datazone_dagster.dagster_glue.runs.bucket_runs import bucket_of_run
from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.observe.bucket_verdicts import (
    BUCKET,
    FAILING,
    BucketReport,
    Verdict,
    failing_to_json,
    reason_of,
    report_in,
    standing,
)
from datazone_dagster.observe.level import Level

E = TypeVar("E")


def across_buckets(
    events: Iterable[E], context: AssetExecutionContext, transform: Transform, keys: AssetKeys
) -> Iterator[E]:
    """Yield the events of a run; checks of its rows tell of the other buckets, too.

    Args:
        events: Events of the run.
        context: Context of the run.
        transform: Transform of the run.
        keys: Keys of its assets.

    Raises:
        DefinitionError: The partition of the run is that of another number of buckets.
    """
    if transform.buckets == 1:
        yield from events
        return
    bucket, of_rows = bucket_of_run(context, transform), _of_rows(transform, keys)
    reported: dict[AssetCheckKey, tuple[E, object]] = {}
    for event in events:
        combined = _combined(event, context.instance, of_rows, bucket)
        yield combined
        key = _key_of(event)
        if isinstance(event, AssetCheckEvaluation) and key in of_rows:
            reported[event.asset_check_key] = (event, _failing_in(combined))
        if isinstance(event, AssetMaterialization):
            for key, (own, failing) in list(reported.items()):
                combined = _combined(own, context.instance, of_rows, bucket)
                if _failing_in(combined) != failing:
                    reported[key] = (own, _failing_in(combined))
                    yield combined


def _key_of(event: object) -> AssetCheckKey | None:
    if not isinstance(event, AssetCheckResult | AssetCheckEvaluation) or event.asset_key is None:
        return None
    return AssetCheckKey(event.asset_key, event.check_name or "")


def _failing_in(event: object) -> object:
    """Return the buckets that fail as an evaluation of ours tells it."""
    assert isinstance(event, AssetCheckResult | AssetCheckEvaluation)
    return values_of(event).get(FAILING)


def _of_rows(transform: Transform, keys: AssetKeys) -> frozenset[AssetCheckKey]:
    """Return the checks that the rows of a run decide."""
    return frozenset(
        keys.dataset_check(dataset.id, name)
        for dataset in transform.outputs.values()
        for name in (SCHEMA_CHECK, *(expectation_check_name(rule) for rule, _ in dataset.expect))
    )


def _combined(
    event: E, instance: DagsterInstance, of_rows: Collection[AssetCheckKey], bucket: KeyBucket
) -> E:
    key = _key_of(event)
    if key is None or key not in of_rows:
        return event
    assert isinstance(event, AssetCheckResult | AssetCheckEvaluation)
    own = _failing(event, key)
    report = BucketReport(bucket, {} if own is None else {bucket: own})
    # Older verdicts are in the newest evaluation.
    newest = islice(evaluations(instance, key), LOOKED_AT)
    known = [report_in(values_of(one)) for one in newest]
    failing = standing([report, *known])
    others = {of: one for of, one in failing.items() if of != bucket}
    noted = {FAILING: failing_to_json(failing)} if failing else {}
    facts: dict[str, Any] = {**event.metadata, BUCKET: bucket.name, **noted}
    if not others:
        same: E = _copied(event, event.passed, event.severity, event.description, facts)
        return same
    said = [] if event.passed else [f"Bucket {bucket.name}: {event.description}"]
    levels = {_level(event), *(one.level for one in others.values())}
    level = Level.ERROR if Level.ERROR in levels else Level.WARN
    text = " ".join([*said, reason_of(others)])
    found: E = _copied(event, False, severity(level), text, facts)
    return found


def _copied(
    event: AssetCheckResult | AssetCheckEvaluation,
    passed: bool,
    severity: AssetCheckSeverity,
    description: str | None,
    metadata: Mapping[str, Any],
) -> Any:
    kind: Any = type(event)
    return kind(
        asset_key=event.asset_key,
        check_name=event.check_name,
        passed=passed,
        severity=severity,
        description=description,
        metadata=metadata,
    )


def _failing(event: AssetCheckResult | AssetCheckEvaluation, key: AssetCheckKey) -> Verdict | None:
    """Return the verdict that stands until the next run of the bucket; None if none does.

    A changed schema is told once, by whichever run sees it first.
    """
    values = values_of(event)
    if event.passed or (key.name == SCHEMA_CHECK and not values.get(VALUES_NOT_FITTING)):
        return None
    facts = {name: one for name, one in values.items() if isinstance(one, int | str)}
    return Verdict(_level(event), event.description or "", facts)


def _level(event: AssetCheckResult | AssetCheckEvaluation) -> Level:
    if event.passed:
        return Level.OK
    return Level.WARN if event.severity is AssetCheckSeverity.WARN else Level.ERROR
