"""Plain facts as Dagster's metadata values and check results."""

from __future__ import annotations

from collections.abc import Mapping
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

from datazone_dagster.dagster_glue.names import lag_check_key
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.observe.lag import LagStatus
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import Plain, apply_metadata, lag_metadata
from datazone_dagster.observe.preview import preview_markdown

RawMetadata = dict[str, int | float | str | MetadataValue[Any]]


def rendered(plain: Mapping[str, Plain]) -> RawMetadata:
    """Plain values for Dagster: numbers and texts as they are, times as timestamps."""
    return {
        key: MetadataValue.timestamp(value) if isinstance(value, datetime) else value
        for key, value in plain.items()
    }


def dataset_metadata(
    report: ApplyReport, lag: LagStatus, *, now: datetime, preview: bool
) -> RawMetadata:
    """Everything that a materialization of a dataset shows."""
    found = rendered(apply_metadata(report, lag, now=now))
    if report.columns:
        columns = [TableColumn(name, str(kind)) for name, kind in report.columns]
        found["dagster/column_schema"] = MetadataValue.table_schema(TableSchema(columns))
    markdown = preview_markdown(report.preview) if preview else ""
    if markdown:
        found["preview"] = MetadataValue.md(markdown)
    return found


def severity(level: Level) -> AssetCheckSeverity:
    """The severity that a failed check of this level has."""
    return AssetCheckSeverity.WARN if level is Level.WARN else AssetCheckSeverity.ERROR


def lag_result(dataset_id: str, lag: LagStatus) -> AssetCheckResult:
    """The `lag` check of a dataset, as a run reports it."""
    key = lag_check_key(dataset_id)
    return AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=lag.level.passed,
        severity=severity(lag.level),
        description=lag.reason,
        metadata=rendered(lag_metadata(lag)),
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
