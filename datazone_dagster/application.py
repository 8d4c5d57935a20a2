"""One run of a transform: chunk by chunk from the change log into its datasets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster import crash_points
from datazone_dagster.api import Dataset, Transform
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot, Chunk, check_head
from datazone_dagster.decode.failure import DecodeFailure
from datazone_dagster.decode.images import image_failures
from datazone_dagster.decode.keys import key_column
from datazone_dagster.errors import ConcurrentWriterError, DatazoneError, TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.lookup import Lookup
from datazone_dagster.frame.result import rows_of, split_outputs
from datazone_dagster.frame.session import MalformedImageError
from datazone_dagster.merge.dataset import DatasetTable, read_table
from datazone_dagster.merge.quarantine import Quarantine
from datazone_dagster.model.columns import EVENT_TIME, KEY, VERSION, Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, ChunkReport, MergeCounts

PREVIEW_ROWS = 5

_KEYS_IN_AN_ERROR = 5


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """Bounds of one run.

    `chunk_bytes`: decoded bytes of changes that the function gets at once; a chunk ends
    with the batch in which it passes them.
    """

    chunk_bytes: int = 64 << 20


class Application:
    """One run of one transform."""

    def __init__(
        self,
        transform: Transform,
        layout: Layout,
        settings: ApplySettings,
        clock: Clock,
        on_chunk: Callable[[ChunkReport], None] | None,
        logger: logging.Logger,
    ) -> None:
        self._transform = transform
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._on_chunk = on_chunk
        self._logger = logger
        self._datasets: dict[str, Dataset] = dict(transform.outputs)
        self._tables = {
            output: _table_of(dataset, transform, layout)
            for output, dataset in self._datasets.items()
        }
        self._attributes = next(iter(self._tables.values())).attributes()
        self._reports = {
            output: ApplyReport(
                dataset_id=dataset.id,
                source=transform.source.name,
                uri=layout.dataset(dataset.id),
                position=self._tables[output].position(),
                head=0,
            )
            for output, dataset in self._datasets.items()
        }

    def run(self) -> dict[str, ApplyReport]:
        """Apply up to the head of the change log as it is now."""
        started_seconds = time.monotonic()
        log = ChangeLog(self._layout, self._transform.source.name).open()
        if log is not None:
            for output, report in self._reports.items():
                check_head(log, report.position)
                self._reports[output] = replace(report, head=log.head)
            try:
                self._apply_to_head(log)
            except ConcurrentWriterError as error:
                self._logger.info("This run of %s gives way: %s", self._transform.name, error)
        duration_seconds = time.monotonic() - started_seconds
        return {
            report.dataset_id: self._finished(output, report, duration_seconds)
            for output, report in self._reports.items()
        }

    def _apply_to_head(self, log: ChangeLogSnapshot) -> None:
        """Datasets that are behind catch up with the others first, then all go on together."""
        lookups: dict[str, pa.Table] | None = None
        while True:
            positions = sorted({report.position for report in self._reports.values()})
            start = positions[0]
            end = positions[1] if len(positions) > 1 else log.head
            if start >= log.head:
                return
            lookups = self._read_lookups() if lookups is None else lookups
            for chunk in log.chunks(start, end, self._settings.chunk_bytes):
                self._apply_chunk(chunk, lookups)
            self._skip_to(start, end)

    def _skip_to(self, start: int, end: int) -> None:
        """Batches without rows leave nothing to commit, only the report to move."""
        for output, report in self._reports.items():
            if start <= report.position < end:
                self._reports[output] = replace(report, position=end)

    def _read_lookups(self) -> dict[str, pa.Table]:
        lookups = {}
        for parameter, dataset in self._transform.lookups.items():
            rows = read_table(self._layout, dataset.id)
            if rows is None:
                raise TransformError(
                    f"Transform {self._transform.name!r} looks up dataset {dataset.id!r}, which "
                    "has no table yet.",
                    safe="Nothing was applied; the change log keeps the changes.",
                    hint=f"Run the transform that writes {dataset.id!r} first.",
                )
            lookups[parameter] = rows
        return lookups

    def _apply_chunk(self, chunk: Chunk, lookups: Mapping[str, pa.Table]) -> None:
        started_seconds = time.monotonic()
        now = self._clock()
        behind = {
            output: report
            for output, report in self._reports.items()
            if report.position < chunk.last_batch
        }
        changes, refused = keyed(chunk.rows)
        try:
            results = self._rows(behind, changes, lookups, chunk)
        except MalformedImageError:
            changes, unreadable = readable(changes)
            if not len(unreadable):
                raise
            refused = pa.concat_tables([refused, unreadable])
            results = self._rows(behind, changes, lookups, chunk)
        counts = MergeCounts()
        for output, report in behind.items():
            dataset = self._datasets[output]
            quarantined = Quarantine(self._layout, dataset.id).put(refused, now)
            crash_points.reach(crash_points.AFTER_QUARANTINE)
            rows = results[output]
            written = self._tables[output].apply(
                changes,
                rows,
                after_batch=report.position,
                through_batch=chunk.last_batch,
                now=now,
                attributes=self._attributes,
            )
            counts += written.counts
            self._reports[output] = _advanced(
                report,
                chunk,
                changes,
                rows,
                counts=written.counts,
                quarantined=quarantined,
                table_version=written.table_version,
                new_columns=written.added_columns,
            )
        if self._on_chunk is not None:
            self._on_chunk(
                ChunkReport(
                    transform=self._transform.name,
                    first_batch=chunk.first_batch,
                    last_batch=chunk.last_batch,
                    head=max(report.head for report in self._reports.values()),
                    records=len(chunk.rows),
                    counts=counts,
                    duration_seconds=time.monotonic() - started_seconds,
                )
            )

    def _rows(
        self,
        outputs: Iterable[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        chunk: Chunk,
    ) -> dict[str, pa.Table]:
        """What the function makes of one chunk for these outputs."""
        returned = self._call(changes, lookups, chunk)
        return {
            output: rows_of(
                returned[output],
                dataset_id=self._datasets[output].id,
                mode=self._datasets[output].mode,
            )
            for output in outputs
        }

    def _call(
        self, changes: pa.Table, lookups: Mapping[str, pa.Table], chunk: Chunk
    ) -> dict[str, object]:
        """Call the user's function on one chunk."""
        frame = Frame.of_changes(changes, lookups=lookups, attributes=self._attributes)
        arguments: dict[str, object] = {self._transform.stream_parameter: frame}
        arguments |= {name: Lookup.of_table(name, rows) for name, rows in lookups.items()}
        try:
            returned = self._transform.function(**arguments)
            self._attributes = frame.attributes
            names = [(output, dataset.id) for output, dataset in self._datasets.items()]
            return dict(zip(self._datasets, split_outputs(returned, names), strict=True))
        except DatazoneError:
            raise
        except Exception as error:
            keys = ", ".join(changes[KEY].slice(0, _KEYS_IN_AN_ERROR).to_pylist())
            raise TransformError(
                f"The function of transform {self._transform.name!r} raised "
                f"{type(error).__name__}: {error} (batches {chunk.first_batch} to "
                f"{chunk.last_batch}, {len(changes)} changes, first keys: {keys}).",
                safe="Nothing of this chunk was applied; the change log keeps it and the next "
                "run tries again.",
                hint="Mend the function and run it again.",
            ) from error

    def _finished(self, output: str, report: ApplyReport, duration_seconds: float) -> ApplyReport:
        facts = self._tables[output].facts()
        if facts is None:
            return replace(report, duration_seconds=duration_seconds)
        return replace(
            report,
            row_count=facts.row_count,
            table_version=facts.version,
            columns=facts.columns,
            duration_seconds=duration_seconds,
        )


def keyed(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The changes with their hidden columns, and the rows that have no usable key.

    The second table keeps the change log's columns; its `reason` says what is wrong.
    """
    malformed = pc.is_valid(rows[Log.REASON])
    refused = rows.filter(malformed)
    rows = rows.filter(pc.invert(malformed))
    keys, failures = key_column(rows[Log.KEYS])
    rows = (
        rows.append_column(KEY, keys)
        .append_column(VERSION, rows[Log.VERSION])
        .append_column(EVENT_TIME, rows[Log.EVENT_TIME])
    )
    if not failures:
        return rows, refused
    unkeyed = _refused(rows, failures)
    return rows.filter(pc.is_valid(rows[KEY])), pa.concat_tables([refused, unkeyed])


def readable(changes: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The changes whose images can be read, and the others with a `reason`, as `keyed`."""
    failures = image_failures(changes)
    failed = {failure.row for failure in failures}
    kept = pa.array([row not in failed for row in range(len(changes))], pa.bool_())
    return changes.filter(kept), _refused(changes, failures)


def _refused(changes: pa.Table, failures: Iterable[DecodeFailure]) -> pa.Table:
    reasons = {failure.row: failure.reason for failure in failures}
    rows = sorted(reasons)
    refused = changes.take(pa.array(rows, pa.int64())).drop_columns([KEY, VERSION, EVENT_TIME])
    texts = pa.array([reasons[row] for row in rows], pa.string())
    return refused.set_column(refused.column_names.index(Log.REASON), Log.REASON, texts)


def _table_of(dataset: Dataset, transform: Transform, layout: Layout) -> DatasetTable:
    return DatasetTable(
        layout,
        dataset.id,
        transform.source.name,
        mode=dataset.mode,
        partition_by=tuple(dataset.partition_by),
        description=dataset.description,
    )


def _advanced(
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
