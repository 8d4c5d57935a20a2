"""State of a dataset as its checks tell it: lag, quarantine, completeness, function, schema."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.dagster_glue.checks.first_backlogs import JudgeLag, as_it_is
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.observe.completeness import (
    Completeness,
    completeness,
    completeness_of_scan,
    states_unknown,
)
from datazone_dagster.observe.function_status import FunctionStatus, function_status
from datazone_dagster.observe.lag import LagStatus, lag_status
from datazone_dagster.observe.quarantine_level import QuarantineStatus, quarantine_status
from datazone_dagster.observe.schema_change import Columns, SchemaStatus, schema_status
from datazone_dagster.pipeline import (
    backlog,
    bucket_positions,
    function_facts,
    gap_notes,
    last_scan,
    records_waiting,
    snapshot_status,
)


@dataclass(frozen=True, slots=True)
class State:
    """State of a dataset that does not depend on the function: what a failed run reports, too.

    `lag` is None for a dataset without a stream, which nothing lags behind.
    """

    lag: LagStatus | None
    quarantine: QuarantineStatus
    complete: Completeness
    function: FunctionStatus


def state_of(
    transform: Transform,
    dataset: Dataset,
    layout: Layout,
    *,
    now: datetime,
    caught_up_at: datetime | None,
    judge: JudgeLag = as_it_is,
) -> State:
    """Return the state of a dataset as it is now; `judge` gives the lag its level.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    source = transform.source.name
    if not transform.source.stream_enabled:
        return State(
            None,
            _quarantine(transform, dataset, layout),
            completeness_of_scan(
                transform.source.table_name, last_scan(layout, dataset.id, source)
            ),
            _function(transform, dataset, layout),
        )
    lag = dataset_lag(transform, dataset, layout, now=now, caught_up_at=caught_up_at)
    return State(
        judge(dataset, lag),
        _quarantine(transform, dataset, layout),
        _completeness(transform.source.name, dataset, layout, lag.position),
        _function(transform, dataset, layout),
    )


def _function(transform: Transform, dataset: Dataset, layout: Layout) -> FunctionStatus:
    facts = function_facts(layout, dataset.id, transform.source.name)
    return function_status(
        facts.record,
        function_version(transform),
        position=facts.position,
        columns=facts.columns,
        dataset_id=dataset.id,
    )


def _completeness(source: str, dataset: Dataset, layout: Layout, position: int) -> Completeness:
    notes = gap_notes(source, layout)
    gaps = tuple(note.gap for note in notes if note.is_open)
    found = completeness(source, gaps, snapshot_status(source, layout), position)
    if dataset.mode == "history":
        found = replace(found, states_unknown=states_unknown(notes))
    return found


def schema_of(dataset: Dataset, before: Columns | None, report: ApplyReport) -> SchemaStatus:
    """Return the `schema` status of a dataset, compared with its last materialization."""
    return schema_status(
        before,
        report.columns,
        report.unexpected_columns,
        contract=dataset.contract,
        dataset_id=dataset.id,
        sibling_values=report.sibling_values,
        mismatches=report.mismatches,
        unfound_paths=report.unfound_paths,
        records=report.records,
        lacks_old_images=report.lacks_old_images,
    )


def _quarantine(transform: Transform, dataset: Dataset, layout: Layout) -> QuarantineStatus:
    return quarantine_status(
        records_waiting(transform.source.name, dataset.id, layout),
        threshold=dataset.quarantine_threshold,
        uri=layout.quarantine(dataset.id),
    )


def dataset_lag(
    transform: Transform,
    dataset: Dataset,
    layout: Layout,
    *,
    now: datetime,
    caught_up_at: datetime | None,
    never_read: bool = False,
    just_landed: int | None = None,
) -> LagStatus:
    """Return the lag of a dataset, by its position and the change log.

    `just_landed` is as for `backlog`.

    Raises:
        StorageError: The dataset or the change log can't be read.
    """
    unapplied = backlog(transform.source.name, dataset.id, layout, just_landed=just_landed)
    lag = lag_status(
        now=now,
        max_lag=dataset.max_lag,
        position=unapplied.position,
        head_batch=unapplied.head_batch,
        oldest_unapplied_event_time=unapplied.oldest_unapplied_event_time,
        caught_up_at=caught_up_at,
        never_read=never_read,
        pending_records=unapplied.records,
    )
    if dataset.buckets == 1:
        return lag
    return lag.of_buckets(
        bucket_positions(transform.source.name, dataset.id, layout, dataset.buckets)
    )
