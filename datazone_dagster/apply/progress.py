"""The report of a run, updated by each chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.chunk import ChunkFacts, ReadReport
from datazone_dagster.dataset.facts import TableFacts
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import (
    ApplyReport,
    ChunkReport,
    DeleteCounts,
    MergeCounts,
    PathMismatch,
    RuleCount,
)

PREVIEW_ROWS = 5


def first_report(
    dataset: Dataset, transform: Transform, layout: Layout, position: int
) -> ApplyReport:
    """Return the report of a dataset before a run has applied anything to it."""
    return ApplyReport(
        dataset_id=dataset.id,
        source=transform.source.name,
        uri=layout.dataset(dataset.id),
        position=position,
        head=0,
    )


def advanced(
    report: ApplyReport,
    chunk: ChunkFacts,
    rows: pa.Table,
    *,
    counts: MergeCounts,
    deletes: DeleteCounts,
    quarantined: int,
    table_version: int,
    new_columns: tuple[str, ...],
    read: ReadReport,
    expectations: tuple[RuleCount, ...] = (),
) -> ApplyReport:
    """Return the report after a chunk was committed to its dataset."""
    return replace(
        report,
        position=chunk.last_batch,
        chunks=report.chunks + 1,
        first_batch=report.first_batch or chunk.first_batch,
        last_batch=chunk.last_batch,
        records=report.records + chunk.records,
        record_bytes=report.record_bytes + chunk.record_bytes,
        quarantined=report.quarantined + quarantined,
        counts=report.counts + counts,
        deletes=report.deletes + deletes,
        table_version=table_version,
        event_time_min=_earlier(report.event_time_min, chunk.event_time_min),
        event_time_max=_later(report.event_time_max, chunk.event_time_max),
        new_columns=report.new_columns + new_columns,
        sibling_values=added_values(report.sibling_values, read, rows),
        mismatches=added(report.mismatches, read.mismatches),
        expectations=added_counts(report.expectations, expectations),
        unfound_paths=read.unfound_paths,
        lacks_old_images=report.lacks_old_images or read.lacks_old_images,
        sources=tuple(
            (name, read.sources[name]) for name in rows.column_names if read.sources.get(name)
        )
        or report.sources,
        preview=tuple(rows.slice(0, PREVIEW_ROWS).to_pylist()) or report.preview,
    )


def chunk_report(
    transform: str, chunk: ChunkFacts, head: int, counts: MergeCounts, duration_seconds: float
) -> ChunkReport:
    """Return the report of one chunk."""
    return ChunkReport(
        transform=transform,
        first_batch=chunk.first_batch,
        last_batch=chunk.last_batch,
        head=head,
        records=chunk.records,
        counts=counts,
        duration_seconds=duration_seconds,
    )


def added_values(
    before: Iterable[tuple[str, int]], read: ReadReport, rows: pa.Table
) -> tuple[tuple[str, int], ...]:
    """Return the sums of the values by sibling column, for the columns that the rows have."""
    counted = Counter(dict(before))
    more = read.sibling_values
    counted.update({name: more[name] for name in rows.column_names if name in more})
    return tuple(counted.items())


def added(before: Iterable[PathMismatch], more: Iterable[PathMismatch]) -> tuple[PathMismatch, ...]:
    """Return the sums of the changes by path and descriptor."""
    sums: dict[PathMismatch, int] = {}
    for one in (*before, *more):
        group = replace(one, changes=0)
        sums[group] = sums.get(group, 0) + one.changes
    return tuple(replace(group, changes=changes) for group, changes in sums.items())


def added_counts(before: Iterable[RuleCount], more: Iterable[RuleCount]) -> tuple[RuleCount, ...]:
    """Return the sums of the counts by expectation."""
    sums: dict[str, RuleCount] = {}
    for one in (*before, *more):
        sums[one.rule] = sums.get(one.rule, RuleCount(one.rule)) + one
    return tuple(sums.values())


def with_table(report: ApplyReport, facts: TableFacts) -> ApplyReport:
    """Return the report with the state of the dataset's table."""
    return replace(
        report,
        row_count=facts.row_count,
        table_version=facts.version,
        columns=facts.columns,
        unexpected_columns=facts.unexpected,
        deletion_vectors=facts.deletion_vectors,
        rows_hidden=facts.deleted_rows,
        files=facts.files,
        size_bytes=facts.size_bytes,
        start=facts.start,
        history=facts.history,
    )


def _earlier(known: datetime | None, other: datetime | None) -> datetime | None:
    return min((time for time in (known, other) if time), default=None)


def _later(known: datetime | None, other: datetime | None) -> datetime | None:
    return max((time for time in (known, other) if time), default=None)
