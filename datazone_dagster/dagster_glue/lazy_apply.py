"""The application of a transform, as the asset hands it to the IO manager.

A transform with several datasets is applied once: the first output that is handled does it,
the others take their report of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, ChunkReport
from datazone_dagster.observe.completeness import Completeness, completeness
from datazone_dagster.observe.lag import LagStatus, lag_status
from datazone_dagster.observe.quarantine_level import QuarantineStatus, quarantine_status
from datazone_dagster.observe.schema_change import Columns, SchemaStatus, schema_status
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    backlog,
    open_gaps,
    records_waiting,
)


@dataclass(frozen=True, slots=True)
class Applied:
    """What an application did to one dataset, and how the dataset is after it."""

    report: ApplyReport
    lag: LagStatus
    schema: SchemaStatus
    quarantine: QuarantineStatus
    complete: Completeness
    at: datetime


class LazyApply:
    """One application of a transform, done when its first result is asked for.

    Args:
        transform: What is applied.
        settings: Bounds of memory.
        caught_up_at: Tells when the stream was last read to its end.
        known_columns: Tells a dataset's columns as they were last shown.
        alive: Tells Dagster, within the block, that the run lives.
        preview: Whether metadata may show rows.
        clock: Tells the time.
    """

    def __init__(
        self,
        transform: Transform,
        settings: ApplySettings,
        caught_up_at: Callable[[], datetime | None],
        known_columns: Callable[[str], Columns | None],
        *,
        alive: Callable[[], AbstractContextManager[None]],
        preview: bool,
        clock: Clock,
    ) -> None:
        self.transform = transform
        self.preview = preview
        self._settings = settings
        self._caught_up_at = caught_up_at
        self._known_columns = known_columns
        self._alive = alive
        self._clock = clock
        self._applied: dict[str, Applied] | None = None

    def to_dataset(self, dataset_id: str, layout: Layout, logger: logging.Logger) -> Applied:
        """What was applied to one dataset; the first call applies the transform.

        Raises:
            TransformError: The function or its result can't be applied; nothing is lost.
            StorageError: The lakehouse can't be read or written.
        """
        if self._applied is None:
            with self._alive():
                self._applied = self._apply(layout, logger)
        return self._applied[dataset_id]

    def _apply(self, layout: Layout, logger: logging.Logger) -> dict[str, Applied]:
        def log_chunk(chunk: ChunkReport) -> None:
            logger.info(
                "Batches %d to %d of %d: %d changes, %d rows inserted, %d updated, %d deleted, "
                "%.2f s.",
                chunk.first_batch,
                chunk.last_batch,
                chunk.head,
                chunk.records,
                chunk.counts.inserted,
                chunk.counts.updated,
                chunk.counts.deleted,
                chunk.duration_seconds,
            )

        before = {
            dataset.id: self._known_columns(dataset.id)
            for dataset in self.transform.outputs.values()
        }
        reports = apply_transform(
            self.transform,
            layout,
            settings=self._settings,
            clock=self._clock,
            on_chunk=log_chunk,
            logger=logger,
        )
        now = self._clock()
        caught_up_at = self._caught_up_at()
        source = self.transform.source.name
        complete = completeness(source, open_gaps(source, layout))
        return {
            dataset.id: Applied(
                reports[dataset.id],
                dataset_lag(self.transform, dataset, layout, now=now, caught_up_at=caught_up_at),
                _schema(dataset, before[dataset.id], reports[dataset.id]),
                _quarantine(self.transform, dataset, layout),
                complete,
                now,
            )
            for dataset in self.transform.outputs.values()
        }


def _schema(dataset: Dataset, before: Columns | None, report: ApplyReport) -> SchemaStatus:
    return schema_status(
        before,
        report.columns,
        report.unexpected_columns,
        contract=dataset.contract,
        dataset_id=dataset.id,
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
) -> LagStatus:
    """How far a dataset is behind, by its position and the change log.

    Raises:
        StorageError: One of the two can't be read.
    """
    waiting = backlog(transform.source.name, dataset.id, layout)
    return lag_status(
        now=now,
        max_lag=dataset.max_lag,
        position=waiting.position,
        head_batch=waiting.head_batch,
        oldest_unapplied_event_time=waiting.oldest_unapplied_event_time,
        caught_up_at=caught_up_at,
    )


@dataclass(frozen=True, slots=True)
class DatasetWrite:
    """What an asset gives the IO manager for one of its datasets."""

    application: LazyApply
    dataset_id: str
