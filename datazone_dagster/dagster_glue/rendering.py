"""Plain facts as Dagster's metadata values and check results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    MetadataValue,
    TableColumn,
    TableSchema,
)

from datazone_dagster.dagster_glue.lazy_apply import Applied
from datazone_dagster.dagster_glue.names import (
    COMPLETE_CHECK,
    LAG_CHECK,
    QUARANTINE_CHECK,
    SCHEMA_CHECK,
    dataset_check_keys,
)
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import (
    Plain,
    apply_metadata,
    completeness_metadata,
    lag_metadata,
)
from datazone_dagster.observe.preview import preview_markdown
from datazone_dagster.observe.schema_change import schema_change_markdown

RawMetadata = dict[str, int | float | str | MetadataValue[Any]]


def rendered(plain: Mapping[str, Plain]) -> RawMetadata:
    """Plain values for Dagster: numbers and texts as they are, times as timestamps."""
    return {
        key: MetadataValue.timestamp(value) if isinstance(value, datetime) else value
        for key, value in plain.items()
    }


def dataset_metadata(applied: Applied, *, preview: bool) -> RawMetadata:
    """Everything that a materialization of a dataset shows."""
    report = applied.report
    found = rendered(apply_metadata(report, applied.lag, now=applied.at))
    found["records_waiting"] = applied.quarantine.waiting
    found |= rendered(completeness_metadata(applied.complete))
    if report.columns:
        columns = [TableColumn(name, str(kind)) for name, kind in report.columns]
        found["dagster/column_schema"] = MetadataValue.table_schema(TableSchema(columns))
    difference = schema_change_markdown(applied.schema.changes)
    if difference:
        found["schema_change"] = MetadataValue.md(difference)
    markdown = preview_markdown(report.preview) if preview else ""
    if markdown:
        found["preview"] = MetadataValue.md(markdown)
    return found


def severity(level: Level) -> AssetCheckSeverity:
    """The severity that a failed check of this level has."""
    return AssetCheckSeverity.WARN if level is Level.WARN else AssetCheckSeverity.ERROR


def check_results(dataset_id: str, applied: Applied) -> Iterator[AssetCheckResult]:
    """The checks of a dataset, as a run reports them."""
    lag, schema, quarantine = applied.lag, applied.schema, applied.quarantine
    found: dict[str, tuple[Level, str, RawMetadata]] = {
        LAG_CHECK: (lag.level, lag.reason, rendered(lag_metadata(lag))),
        SCHEMA_CHECK: (
            schema.level,
            schema.reason,
            {
                "columns_changed": len(schema.changes),
                "columns_kept_out": len(schema.unexpected),
            },
        ),
        QUARANTINE_CHECK: (
            quarantine.level,
            quarantine.reason,
            {"records_waiting": quarantine.waiting},
        ),
        COMPLETE_CHECK: (
            applied.complete.level,
            applied.complete.reason,
            rendered(completeness_metadata(applied.complete)),
        ),
    }
    for key in dataset_check_keys(dataset_id):
        level, reason, metadata = found[key.name]
        yield AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=level.passed,
            severity=severity(level),
            description=reason,
            metadata=metadata,
        )


def evaluation(
    key: AssetCheckKey, level: Level, reason: str, plain: Mapping[str, Plain]
) -> AssetCheckEvaluation:
    """A check as a sensor reports it, outside of any run."""
    return AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=level.passed,
        severity=severity(level),
        description=reason,
        metadata=rendered(plain),
    )
