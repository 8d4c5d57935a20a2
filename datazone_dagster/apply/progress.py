"""The report of a run, updated by each chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from datazone_dagster.apply.chunk import ChunkFacts
from datazone_dagster.model.report import ApplyReport, DeleteCounts, MergeCounts

PREVIEW_ROWS = 5


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
    sibling_values: Mapping[str, int],
) -> ApplyReport:
    """Return the report after a chunk was committed to its dataset."""
    counted = Counter(dict(report.sibling_values))
    counted.update(
        {name: sibling_values[name] for name in rows.column_names if name in sibling_values}
    )
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
        sibling_values=tuple(counted.items()),
        preview=tuple(rows.slice(0, PREVIEW_ROWS).to_pylist()) or report.preview,
    )


def _earlier(known: datetime | None, other: datetime | None) -> datetime | None:
    return min((time for time in (known, other) if time), default=None)


def _later(known: datetime | None, other: datetime | None) -> datetime | None:
    return max((time for time in (known, other) if time), default=None)
