"""Conversion of plain values to Dagster's metadata values and check results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    AssetMaterialization,
    MetadataValue,
    TableColumn,
    TableColumnDep,
    TableColumnLineage,
    TableColumnLineageMetadataValue,
    TableSchema,
)

from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.applied import Applied
from datazone_dagster.dagster_glue.checks.dataset_checks import State
from datazone_dagster.dagster_glue.names import (
    COMPLETE_CHECK,
    FUNCTION_CHECK,
    LAG_CHECK,
    QUARANTINE_CHECK,
    SCHEMA_CHECK,
    SMALL_FILES_CHECK,
    expectation_check_name,
)
from datazone_dagster.model.report import DrainReport
from datazone_dagster.observe.column_texts import column_texts
from datazone_dagster.observe.expectation_status import ExpectationStatus, expectation_metadata
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import (
    Plain,
    apply_metadata,
    completeness_metadata,
    drain_metadata,
    lag_metadata,
)
from datazone_dagster.observe.preview import preview_markdown
from datazone_dagster.observe.schema_change import schema_change_markdown
from datazone_dagster.observe.shard_picture import shards_markdown
from datazone_dagster.observe.table_history import history_markdown
from datazone_dagster.observe.table_status import small_files_status

FEW_COLUMNS = 100
"""Columns up to which every materialization shows the schema, as the asset's page shows the last
one's. A wider schema takes 200 bytes a column of the event log and comes when it has changed."""

VALUES_NOT_FITTING = "values_not_fitting"
"""Metadata of the check `schema`: values of the run that did not fit their column or path."""

MEMORY_BUDGET = "memory_budget"
"""Metadata of materializations: the budget, where it is not the one that somebody may expect."""

Event = AssetMaterialization | AssetCheckEvaluation

RawMetadata = dict[str, int | float | str | MetadataValue[Any]]


def rendered(plain: Mapping[str, Plain]) -> RawMetadata:
    """Return plain values for Dagster: times as timestamps, numbers and texts unchanged."""
    return {
        key: MetadataValue.timestamp(value) if isinstance(value, datetime) else value
        for key, value in plain.items()
    }


def dataset_metadata(
    applied: Applied, keys: AssetKeys, *, preview: bool, history: bool = True
) -> RawMetadata:
    """Return the metadata of a materialization of a dataset.

    Args:
        applied: What was applied, and the state after it.
        keys: Keys of the assets.
        preview: Whether it shows rows.
        history: Whether it shows the newest commits of the table: once in a run, at its end.
    """
    report = applied.report
    found = rendered(apply_metadata(report, applied.state.lag, now=applied.at))
    found["records_waiting"] = applied.state.quarantine.waiting
    found |= rendered(completeness_metadata(applied.state.complete))
    if applied.memory_note:
        found[MEMORY_BUDGET] = applied.memory_note
    if applied.expectations:
        found["rows_violating"] = sum(one.count.violations for one in applied.expectations)
    if report.columns and not (len(report.columns) > FEW_COLUMNS and applied.schema.shown_before):
        sources = dict(report.sources)
        texts = column_texts(applied.contract, sources)
        columns = [TableColumn(name, str(kind), texts.get(name)) for name, kind in report.columns]
        found["dagster/column_schema"] = MetadataValue.table_schema(TableSchema(columns))
        if sources:
            found["dagster/column_lineage"] = _lineage(keys.change_log(report.source), sources)
    difference = schema_change_markdown(applied.schema.changes)
    if difference:
        found["schema_change"] = MetadataValue.md(difference)
    commits = history_markdown(report.history) if history else ""
    if commits:
        found["table_history"] = MetadataValue.md(commits)
    markdown = preview_markdown(report.preview) if preview else ""
    if markdown:
        found["preview"] = MetadataValue.md(markdown)
    return found


def change_log_metadata(
    report: DrainReport,
    uri: str,
    now: datetime,
    *,
    since_seconds: float,
    sensor_link: str | None,
    memory_note: str = "",
) -> RawMetadata:
    """Return the metadata of a materialization of a change log, with a picture of its shards."""
    found = rendered(drain_metadata(report, uri, now=now, since_seconds=since_seconds))
    picture = shards_markdown(report.shards)
    if picture:
        found["shards"] = MetadataValue.md(picture)
    if memory_note:
        found[MEMORY_BUDGET] = memory_note
    return {**linked_sensor(sensor_link), **found}


def linked_sensor(link: str | None) -> RawMetadata:
    """Return the metadata that leads to a sensor; empty without a link."""
    return {} if link is None else {"sensor": MetadataValue.url(link)}


def _lineage(
    log: AssetKey, sources: Mapping[str, Sequence[str]]
) -> TableColumnLineageMetadataValue:
    return MetadataValue.column_lineage(
        TableColumnLineage(
            {
                column: [TableColumnDep(asset_key=log, column_name=path) for path in paths]
                for column, paths in sources.items()
            }
        )
    )


def applied_events(
    dataset_id: str,
    applied: Applied,
    keys: AssetKeys,
    *,
    preview: bool,
    more: Mapping[str, int] | None = None,
    changed: bool = True,
    history: bool = False,
    partition: str | None = None,
) -> Iterator[Event]:
    """Yield a materialization of a dataset and its check evaluations, as a run reports them.

    Args:
        dataset_id: Id of the dataset.
        applied: What was applied, and the state after it.
        keys: Keys of the assets.
        preview: Whether the materialization shows rows.
        more: Further metadata of the materialization.
        changed: Whether rows changed; if not, there is no materialization.
        history: As for `dataset_metadata`.
        partition: Partition of the run.
    """
    key = keys.dataset(dataset_id)
    if changed:
        metadata = dataset_metadata(applied, keys, preview=preview, history=history)
        yield AssetMaterialization(key, metadata={**metadata, **(more or {})}, partition=partition)
    yield from as_evaluations(check_results(key, applied))


def as_evaluations(results: Iterable[AssetCheckResult]) -> Iterator[AssetCheckEvaluation]:
    """Yield results of checks as events, for checks of any step."""
    for result in results:
        assert result.asset_key is not None, "each of ours names its dataset"
        yield AssetCheckEvaluation(
            asset_key=result.asset_key,
            check_name=result.check_name or "",
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=result.metadata,
        )


def as_results(evaluations: Iterable[AssetCheckEvaluation]) -> Iterator[AssetCheckResult]:
    """Yield events of checks as results, for checks of the own step."""
    for one in evaluations:
        yield AssetCheckResult(
            asset_key=one.asset_key,
            check_name=one.check_name,
            passed=one.passed,
            severity=one.severity,
            description=one.description,
            metadata=one.metadata,
        )


def severity(level: Level) -> AssetCheckSeverity:
    """Return the severity of a failed check of this level."""
    return AssetCheckSeverity.WARN if level is Level.WARN else AssetCheckSeverity.ERROR


def check_results(key: AssetKey, applied: Applied) -> Iterator[AssetCheckResult]:
    """Yield the check results of a dataset that a run reports."""
    yield from state_check_results(key, applied.state)
    schema = applied.schema
    yield _result(
        key,
        SCHEMA_CHECK,
        schema,
        {
            "columns_changed": len(schema.changes),
            "columns_kept_out": len(schema.unexpected),
            VALUES_NOT_FITTING: schema.values_not_fitting,
        },
    )
    small = small_files_status(applied.report.files, applied.report.size_bytes)
    yield _result(key, SMALL_FILES_CHECK, small, rendered(small.plain))
    yield from expectation_results(key, applied.expectations)


def expectation_results(
    key: AssetKey, statuses: Iterable[ExpectationStatus]
) -> Iterator[AssetCheckResult]:
    """Yield the results of the checks of a dataset's expectations."""
    for one in statuses:
        name = expectation_check_name(one.count.rule)
        yield _result(key, name, one, rendered(expectation_metadata(one)))


def state_check_results(key: AssetKey, state: State) -> Iterator[AssetCheckResult]:
    """Yield the check results of a dataset that do not depend on the function."""
    lag, quarantine, complete = state.lag, state.quarantine, state.complete
    if lag is not None:
        yield _result(key, LAG_CHECK, lag, rendered(lag_metadata(lag)))
    yield _result(key, QUARANTINE_CHECK, quarantine, {"records_waiting": quarantine.waiting})
    yield _result(key, COMPLETE_CHECK, complete, rendered(completeness_metadata(complete)))
    yield _result(
        key,
        FUNCTION_CHECK,
        state.function,
        {
            "batches_of_other_versions": state.function.other_batches,
            "columns_lost": state.function.columns_lost,
            "function_version": state.function.version,
        },
    )


class _Status(Protocol):
    """Level of a check, and the reason for it."""

    @property
    def level(self) -> Level: ...

    @property
    def reason(self) -> str: ...


def _result(
    key: AssetKey, check_name: str, status: _Status, metadata: RawMetadata
) -> AssetCheckResult:
    return AssetCheckResult(
        asset_key=key,
        check_name=check_name,
        passed=status.level.passed,
        severity=severity(status.level),
        description=status.reason,
        metadata=metadata,
    )


def evaluation(
    key: AssetCheckKey,
    level: Level,
    reason: str,
    plain: Mapping[str, Plain],
    *,
    sensor_link: str | None = None,
) -> AssetCheckEvaluation:
    """Return a check evaluation that a sensor reports, outside any run."""
    return AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=level.passed,
        severity=severity(level),
        description=reason,
        metadata={**linked_sensor(sensor_link), **rendered(plain)},
    )
