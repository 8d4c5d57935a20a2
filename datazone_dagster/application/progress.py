"""What one more chunk makes of the report of a run."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog.log import Chunk
from datazone_dagster.model.columns import EVENT_TIME, Log
from datazone_dagster.model.report import ApplyReport, MergeCounts

PREVIEW_ROWS = 5


def advanced(
    report: ApplyReport,
    chunk: Chunk,
    changes: pa.Table,
    rows: pa.Table,
    *,
    counts: MergeCounts,
    quarantined: int,
    table_version: int,
    new_columns: tuple[str, ...],
) -> ApplyReport:
    """The report after a chunk was committed to its dataset."""
    span = pc.min_max(changes[EVENT_TIME]).as_py()
    return replace(
        report,
        position=chunk.last_batch,
        chunks=report.chunks + 1,
        first_batch=report.first_batch or chunk.first_batch,
        last_batch=chunk.last_batch,
        records=report.records + len(chunk.rows),
        record_bytes=report.record_bytes + (pc.sum(chunk.rows[Log.SIZE_BYTES]).as_py() or 0),
        quarantined=report.quarantined + quarantined,
        counts=report.counts + counts,
        table_version=table_version,
        event_time_min=_earlier(report.event_time_min, span["min"]),
        event_time_max=_later(report.event_time_max, span["max"]),
        new_columns=report.new_columns + new_columns,
        preview=tuple(rows.slice(0, PREVIEW_ROWS).to_pylist()) or report.preview,
    )


def _earlier(known: datetime | None, other: object) -> datetime | None:
    return min((time for time in (known, cast("datetime | None", other)) if time), default=None)


def _later(known: datetime | None, other: object) -> datetime | None:
    return max((time for time in (known, cast("datetime | None", other)) if time), default=None)
