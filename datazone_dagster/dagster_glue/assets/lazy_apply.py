"""Deferred apply of a transform, passed from its asset to the IO manager.

A transform with several datasets is applied once, for the first output that the IO manager
handles. The other outputs get their reports of the same apply.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.assets.chunk_log import LOG_EVERY_SECONDS, ChunkLog
from datazone_dagster.dagster_glue.checks.applied import Applied
from datazone_dagster.dagster_glue.checks.dataset_checks import State, schema_of, state_of
from datazone_dagster.dagster_glue.checks.first_backlogs import JudgeLag, as_it_is
from datazone_dagster.dagster_glue.names import pool_name
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, RuleCount
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.model.turns import Turn
from datazone_dagster.observe.expectation_status import ExpectationStatus, expectation_statuses
from datazone_dagster.observe.schema_change import Columns
from datazone_dagster.pipeline import (
    ApplySettings,
    SnapshotSettings,
    dataset_report,
    follow_changes,
    replace_from_table,
)
from datazone_dagster.pipeline.shared_log import SharedLog, apply_in_turns


class LazyApply:
    """One apply of a transform, done on the first call of `to_dataset`.

    Args:
        transform: Transform to apply.
        keys: Keys of its assets.
        settings: Bounds of the run.
        caught_up_at: Function that returns when the stream was last read to its end.
        known_columns: Function from dataset id to the columns of its last materialization.
        known_expectations: Function from dataset to the counts of the last checks of its
            expectations.
        heartbeats: Factory of the context manager that sends heartbeats during the apply.
        table_client: Factory of the client that scans the table of a source without a stream.
        snapshot_settings: Bounds of that scan.
        preview: Whether metadata may show rows.
        clock: Function that returns the time in UTC.
        only: Ids of the datasets to apply to; None: all of the transform. The others stay where
            they are.
        bucket: Bucket whose changes are applied.
        judge: Function from the current time to what gives the lags of the datasets their levels.
    """

    def __init__(
        self,
        transform: Transform,
        keys: AssetKeys,
        settings: ApplySettings,
        caught_up_at: Callable[[], datetime | None],
        known_columns: Callable[[str], Columns | None],
        known_expectations: Callable[[Dataset], tuple[RuleCount, ...]],
        *,
        heartbeats: Callable[[], AbstractContextManager[None]],
        table_client: Callable[[], TableClient],
        snapshot_settings: SnapshotSettings,
        preview: bool,
        clock: Clock,
        only: Collection[str] | None = None,
        bucket: KeyBucket = WHOLE,
        judge: Callable[[datetime], JudgeLag] = lambda _: as_it_is,
    ) -> None:
        self.datasets = tuple(
            one for one in transform.outputs.values() if only is None or one.id in only
        )
        self.transform = transform
        self.keys = keys
        self.preview = preview
        self._settings = settings
        self._caught_up_at = caught_up_at
        self._known_columns = known_columns
        self._known_expectations = known_expectations
        self._heartbeats = heartbeats
        self._table_client = table_client
        self._snapshot_settings = snapshot_settings
        self._clock = clock
        self.partition = None if bucket.is_whole else bucket.name
        self._bucket = bucket
        self._judge = judge
        self._applied: dict[str, Applied] | None = None

    @property
    def pool(self) -> str:
        """Pool of the runs of the transform."""
        return pool_name(self.transform, self.keys.prefix)

    def to_dataset(self, dataset_id: str, layout: Layout, logger: logging.Logger) -> Applied:
        """Return what was applied to one dataset; the first call applies the transform.

        Raises:
            TransformError: The function or its result can't be applied; nothing is lost.
            StorageError: The lakehouse can't be read or written.
        """
        if self._applied is None:
            for _ in self.progress(layout, logger):
                pass  # what was applied before a failure: the caller wants all of it, or the error
        assert self._applied is not None
        return self._applied[dataset_id]

    def progress(
        self,
        layout: Layout,
        logger: logging.Logger,
        told_to_end: Callable[[], bool] | None = None,
    ) -> Iterator[dict[str, Applied]]:
        """Apply what waits and, if there is `told_to_end`, what lands while there is traffic.

        Yields what was applied since the last time, by dataset id, also before an error. What is
        applied at the end comes from `to_dataset`, as always.

        Raises:
            TransformError: As in `to_dataset`; so do the others.
            StorageError: The lakehouse can't be read or written.
        """
        with self._heartbeats():
            before, earlier = self._columns_before(), dict[str, Applied]()
            if not self.datasets:
                self._applied = {}
                return
            if not self.transform.source.stream_enabled:
                self._applied = self._applied_by(self._replaced(layout, logger), before, layout)
                return
            log = ChunkLog(logger, LOG_EVERY_SECONDS if told_to_end else 0.0)
            for report in follow_changes(
                self.transform,
                layout,
                told_to_end=told_to_end,
                settings=self._settings,
                clock=self._clock,
                on_chunk=log.take,
                logger=logger,
                only=self._ids,
                bucket=self._bucket,
            ):
                log.finish()
                applied = self._applied_by(report.datasets, before, layout, earlier)
                if report.ended:
                    self._applied = applied
                else:
                    yield applied
                    before, earlier = self._columns_before(), applied

    def turns(
        self,
        shared: SharedLog,
        logger: logging.Logger,
        must_end: Callable[[], bool] | None,
    ) -> Generator[dict[str, Applied] | Turn, None, bool]:
        """Apply as `progress` does, in turns with other transforms: see `apply_in_turns`.

        The heartbeats are the caller's. Returns whether another run came first, which ends it; what
        was applied is yielded then, too.

        Raises:
            TransformError: As in `to_dataset`; so do the others.
            StorageError: The lakehouse can't be read or written.
        """
        before, earlier = self._columns_before(), dict[str, Applied]()
        every_seconds = LOG_EVERY_SECONDS if must_end else 0.0
        log = ChunkLog(logger, every_seconds, transform=self.transform.name)
        lost_race = False
        for report in apply_in_turns(
            self.transform,
            shared,
            must_end=must_end,
            settings=self._settings,
            clock=self._clock,
            on_chunk=log.take,
            logger=logger,
            only=self._ids,
        ):
            if isinstance(report, Turn):
                yield report
                continue
            log.finish()
            applied = self._applied_by(report.datasets, before, shared.layout, earlier)
            if not report.ended or report.lost_race:
                yield applied
                before, earlier = self._columns_before(), applied
            lost_race = report.lost_race
            if lost_race:  # all is told
                applied = {one: self.looked(one, shared.layout) for one in self._ids}
            if report.ended:
                self._applied = applied
        return lost_race

    @property
    def done(self) -> Mapping[str, Applied]:
        """What `to_dataset` returns without applying anything, by dataset id."""
        return self._applied or {}

    def states(self, layout: Layout) -> dict[str, State]:
        """Return the state of each dataset as it is now, by id.

        Raises:
            StorageError: The lakehouse can't be read.
        """
        now, caught_up_at = self._clock(), self._caught_up_at()
        return {
            dataset.id: state_of(
                self.transform,
                dataset,
                layout,
                now=now,
                caught_up_at=caught_up_at,
                judge=self._judge(now),
            )
            for dataset in self.datasets
        }

    def looked(self, dataset_id: str, layout: Layout) -> Applied:
        """Return a dataset as it is, for its checks; nothing is applied.

        Raises:
            StorageError: The lakehouse can't be read.
        """
        dataset = next(one for one in self.transform.outputs.values() if one.id == dataset_id)
        now, before = self._clock(), self._known_columns(dataset_id)
        state = state_of(
            self.transform,
            dataset,
            layout,
            now=now,
            caught_up_at=self._caught_up_at(),
            judge=self._judge(now),
        )
        report = dataset_report(self.transform, dataset_id, layout)
        schema = schema_of(dataset, before, report)
        known = expectation_statuses(dataset, self._known_expectations(dataset))
        return Applied(report, state, schema, now, dataset.contract, known)

    @property
    def _ids(self) -> list[str]:
        return [one.id for one in self.datasets]

    def _columns_before(self) -> dict[str, Columns | None]:
        """Return the columns of the last materialization of each dataset, by id."""
        return {dataset.id: self._known_columns(dataset.id) for dataset in self.datasets}

    def _applied_by(
        self,
        reports: Mapping[str, ApplyReport],
        before: Mapping[str, Columns | None],
        layout: Layout,
        earlier: Mapping[str, Applied] = MappingProxyType({}),
    ) -> dict[str, Applied]:
        """Return what was applied; what `schema` told earlier stands until more is applied."""
        now, states = self._clock(), self.states(layout)
        applied = {}
        for dataset in self.datasets:
            report = reports[dataset.id]
            stands = earlier.get(dataset.id) if not report.chunks else None
            schema = stands.schema if stands else schema_of(dataset, before[dataset.id], report)
            applied[dataset.id] = Applied(
                report,
                states[dataset.id],
                schema,
                now,
                dataset.contract,
                stands.expectations if stands else self._expectations(dataset, report),
                self._settings.memory.note,
            )
        return applied

    def _expectations(self, dataset: Dataset, report: ApplyReport) -> tuple[ExpectationStatus, ...]:
        """Return the expectations after a report; what an earlier one told stands without rows."""
        has_rows = report.chunks or report.scan is not None
        return expectation_statuses(
            dataset, report.expectations if has_rows else self._known_expectations(dataset)
        )

    def _replaced(self, layout: Layout, logger: logging.Logger) -> dict[str, ApplyReport]:
        """Replace the datasets of a source without a stream by a scan."""
        return replace_from_table(
            self.transform,
            self._table_client(),
            layout,
            settings=self._settings,
            snapshot_settings=self._snapshot_settings,
            clock=self._clock,
            on_chunk=ChunkLog(logger).take,
            logger=logger,
            only=self._ids,
        )


@dataclass(frozen=True, slots=True)
class DatasetWrite:
    """Value of an asset's output: the dataset to write, and the apply that writes it."""

    lazy_apply: LazyApply
    dataset_id: str
