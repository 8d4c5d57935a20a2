"""Replacement of datasets by a scan of their table, for a source without a stream.

A run is a rebuild with another input. The scan lands in a change log of its own below `_rebuild`,
the function's rows go to tables next to it, and one commit per dataset swaps them in
(`dataset.swap`). A run that fails or is killed before that leaves the dataset as it was. It removes
its files; what a killed run leaves, the next run that ends well removes.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.progress import with_table
from datazone_dagster.apply.run import ApplyRun
from datazone_dagster.apply.tables import dataset_table, open_lookups, read_lookups
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.scanned_dataset import ScannedState, create_like, scanned_state
from datazone_dagster.dataset.stored_state import FunctionState
from datazone_dagster.dataset.swap import swap_in
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import ConcurrentWriterError, SourceMismatchError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, ChunkReport
from datazone_dagster.model.scan_facts import ScanFacts

SWAPS = 5
"""Attempts to swap a dataset in while its maintenance commits first."""

CopyTable = Callable[[Layout, int], ScanFacts]
"""Lands the items of the table in a new change log of a lakehouse, with an epoch."""


class Replacement:
    """One run of a transform whose source has no stream.

    Args:
        transform: The transform.
        layout: The lakehouse.
        settings: Bounds of the run.
        clock: Returns the current time.
        on_chunk: Called after each chunk.
        logger: Logger for progress and warnings.
        only: Ids of the datasets to replace; None: all.
    """

    def __init__(
        self,
        transform: Transform,
        layout: Layout,
        settings: ApplySettings,
        clock: Clock,
        on_chunk: Callable[[ChunkReport], None] | None,
        logger: logging.Logger,
        *,
        only: Collection[str] | None = None,
    ) -> None:
        self._transform = transform
        self._source = transform.source.name
        self._datasets = tuple(
            one for one in transform.outputs.values() if only is None or one.id in only
        )
        self._layout = layout
        self._settings = replace(settings, linger_seconds=0.0)
        self._memory_bytes = ChunkSizes(settings, logger).frame_memory_bytes
        self._clock = clock
        self._on_chunk = on_chunk
        self._logger = logger
        self._target = layout.rebuild(self._datasets[0].id, uuid.uuid4().hex)
        self._scan: ScanFacts | None = None
        self._change_log = ChangeLog(self._target, transform.source)

    def run(self, copy: CopyTable) -> dict[str, ApplyReport]:
        """Scan the table, apply the function, swap the datasets in.

        Raises:
            SourceError: The table can't be read.
            SourceMismatchError: A dataset has the rows of another table.
            TransformError: The function or its result can't be applied.
            ConcurrentWriterError: Another run swapped its rows in meanwhile, or keys were erased.
            StorageError: A dataset is made from a stream, or the store failed.
        """
        started_seconds = time.monotonic()
        found = {
            one.id: scanned_state(self._layout, one.id, self._source) for one in self._datasets
        }
        open_lookups(self._transform, self._layout)  # a missing one is noticed before the scan
        try:
            facts = copy(self._target, max(one.generation for one in found.values()) + 1)
            self._scan = facts
            _check_table(found, facts)
            reports = self._applied(found)
            for dataset_id, state in found.items():
                self._swap(dataset_id, state, facts)
            done = self._finished(reports, facts, time.monotonic() - started_seconds)
        except StorageError as error:
            self._remove(self._target.uri)
            overtaken = self._overtaken(found)
            if overtaken is None:
                raise
            raise overtaken from error
        except BaseException:
            self._remove(self._target.uri)
            raise
        for dataset in self._datasets:
            self._remove(self._layout.rebuilds(dataset.id))
        return done

    def _overtaken(self, found: Mapping[str, ScannedState]) -> ConcurrentWriterError | None:
        """Return the error of a run that another one was faster than, and has cleaned up after."""
        for dataset_id, before in found.items():
            now = scanned_state(self._layout, dataset_id, self._source)
            if now.generation > before.generation and now.scan != self._scan:
                return ConcurrentWriterError(
                    f"Dataset {dataset_id!r}: another run has replaced it meanwhile.",
                    safe="The dataset has the rows of that run; those of this one are discarded.",
                    hint="The pool of the transform has a limit of 1 by default: leave it there.",
                )
        return None

    def _applied(self, found: Mapping[str, ScannedState]) -> dict[str, ApplyReport]:
        """Apply the copy to new tables."""
        for dataset in self._datasets:
            if any(policy != "evolve" for _, policy in dataset.contract.policies):
                # The contract protects the columns that readers know from earlier runs.
                create_like(self._layout, self._target, dataset.id, self._source)
        run = ApplyRun(
            self._transform,
            self._layout,
            self._settings,
            self._clock,
            self._on_chunk,
            self._logger,
            only=[one.id for one in self._datasets],
            target=self._target,
            change_log=self._change_log,
        )
        reports = run.run()
        for dataset in self._datasets:
            report = reports[dataset.id]
            if report.position < report.head:
                raise ConcurrentWriterError(
                    f"Dataset {dataset.id!r}: another process writes to the files of this run.",
                    safe="The dataset is as it was.",
                    hint="Run it again.",
                )
            if not report.head:
                self._without_items(dataset, found[dataset.id])
        return reports

    def _without_items(self, dataset: Dataset, state: ScannedState) -> None:
        """Make the new table of an empty table: the columns are known, or the function says."""
        if state.exists:
            create_like(self._layout, self._target, dataset.id, self._source)
            return
        limit = self._memory_bytes
        function = Function(self._transform, FunctionState(), limit, self._logger)
        lookups = read_lookups(self._transform, self._layout).tables
        output = next(name for name, one in self._transform.outputs.items() if one == dataset)
        result = function.evaluate(
            [output], CHANGES_SCHEMA.empty_table(), lookups, "a table without items"
        )
        dataset_table(dataset, self._transform, self._target, limit).apply(
            result.changes,
            result.rows[output],
            after_batch=0,
            through_batch=0,
            now=self._clock(),
            state=function.state,
            version=function_version(self._transform),
        )

    def _swap(self, dataset_id: str, state: ScannedState, facts: ScanFacts) -> None:
        for attempts_left in reversed(range(SWAPS)):
            try:
                swap_in(
                    self._layout,
                    self._target,
                    dataset_id,
                    self._source,
                    generation=state.generation,
                    erasures=state.erasures,
                    now=self._clock(),
                    scan=facts,
                )
            except ConcurrentWriterError as error:
                now = scanned_state(self._layout, dataset_id, self._source)
                overtaken = (now.generation, now.erasures) != (state.generation, state.erasures)
                if overtaken or not attempts_left:
                    raise
                self._logger.info("Replacing %s: %s", dataset_id, error)
            else:
                return

    def _finished(
        self, reports: Mapping[str, ApplyReport], facts: ScanFacts, duration_seconds: float
    ) -> dict[str, ApplyReport]:
        """Return the reports with the datasets as they are after the swap."""
        done = {}
        for dataset in self._datasets:
            report = replace(
                reports[dataset.id],
                uri=self._layout.dataset(dataset.id),
                scan=facts,
                duration_seconds=duration_seconds,
            )
            table = dataset_table(dataset, self._transform, self._layout, self._memory_bytes)
            state = table.facts()
            done[dataset.id] = report if state is None else with_table(report, state)
        return done

    def _remove(self, uri: str) -> None:
        """Remove files of this or earlier runs. Never fails a run."""
        try:
            TableStore(uri, self._layout.storage_options).delete_all()
        except OSError as error:
            self._logger.warning("Files of a run can't be removed: %s", error)


def _check_table(found: Mapping[str, ScannedState], facts: ScanFacts) -> None:
    for dataset_id, state in found.items():
        before = state.scan
        if before is None or before.table_arn == facts.table_arn:
            continue
        if before.table_arn and facts.table_arn:
            raise SourceMismatchError(
                f"Dataset {dataset_id!r} has the items of {before.table_arn}, but this run has "
                f"read {facts.table_arn}.",
                safe="The dataset is as it was.",
                hint="Correct region, endpoint or credentials of the source, or give the dataset "
                "of the other table a new id.",
            )
