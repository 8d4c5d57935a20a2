"""Rebuild of a dataset from the change log, next to the existing table until the swap.

The rebuilt table is in a separate lakehouse below `_rebuild`, so runs and readers of the dataset
are not affected, nor are other datasets. Once its position equals the dataset's, one commit swaps
it in (`dataset.swap`). A crash before that commit leaves the dataset as it was: the next rebuild
starts over, at another path.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.apply.dataset_start import keeps_the_past, start_of
from datazone_dagster.apply.prove_rebuild import proven
from datazone_dagster.apply.rebuild_fence import RebuildFence
from datazone_dagster.apply.run import ApplyRun
from datazone_dagster.apply.tables import require_stream
from datazone_dagster.changelog.followed_log import require_followed
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.dataset.bucket_positions import apply_app_ids
from datazone_dagster.dataset.dataset_progress import require_changes
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import erasures_of, generation_of
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.rebuild_proof import RebuildProof
from datazone_dagster.dataset.stale_keys import count_stale
from datazone_dagster.dataset.stored_state import stored_state
from datazone_dagster.dataset.swap import swap_in
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, ChunkReport

SWAPS = 20
"""Attempts to swap: each time a run of the dataset is faster, the rebuild applies the rest."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """Result of a rebuild.

    `applied` is about the rebuilt table; `generation` counts rebuilds; `proof` is the comparison
    with the change log that was made before the swap. `unshown_keys` counts keys with rows that
    neither the last resync nor a change since has shown: the function left them out then, so
    nobody asked whether they were deleted while changes were lost.
    """

    applied: ApplyReport
    generation: int
    attempts: int
    proof: RebuildProof
    unshown_keys: int = 0


class Rebuild:
    """One rebuild of one dataset.

    Args:
        transform: The transform that writes the dataset.
        dataset: The dataset.
        layout: The lakehouse.
        settings: Bounds of the run.
        clock: Returns the current time.
        on_chunk: Called after each chunk.
        logger: Logger for progress and warnings.
    """

    def __init__(
        self,
        transform: Transform,
        dataset: Dataset,
        layout: Layout,
        *,
        settings: ApplySettings,
        clock: Clock,
        on_chunk: Callable[[ChunkReport], None] | None = None,
        logger: logging.Logger = _logger,
    ) -> None:
        self._transform = transform
        self._dataset = dataset
        self._dataset_id = dataset.id
        self._layout = layout
        self._settings = replace(settings, linger_seconds=0.0)
        self._clock = clock
        self._on_chunk = on_chunk
        self._logger = logger
        self._target = layout.rebuild(dataset.id, uuid.uuid4().hex)
        self._fence = RebuildFence(layout, dataset.id, transform.source.name, clock, logger)

    def run(self) -> RebuildReport:
        """Apply the full change log, or that since a snapshot, then swap the tables.

        Raises:
            DefinitionError: The source has no stream.
            StorageError: The change log was truncated, there is nothing to rebuild, the rebuilt
                table contradicts the change log, or the store failed. The dataset is as it was.
            ConcurrentWriterError: Another rebuild was swapped in meanwhile, or runs of the
                dataset were faster each time.
            TransformError: The function or its result can't be applied.
        """
        require_stream(self._transform, self._dataset_id, "rebuilt")
        began = self._check()
        try:
            for attempt in range(1, SWAPS + 1):
                found = self._attempt(began)
                if found is not None:
                    applied, proof, unshown_keys = found
                    self._mark_taken(applied)
                    self._clean_up()
                    return RebuildReport(applied, began[0] + 1, attempt, proof, unshown_keys)
        except BaseException:
            self._fence.lower()
            raise
        self._fence.lower()
        raise ConcurrentWriterError(
            f"Dataset {self._dataset_id!r}: others were faster {SWAPS} times in a row.",
            safe="The dataset is as those runs left it; the rebuilt table is discarded.",
            hint="Find out who writes to it beside its runs, which waited for the rebuild; or wait "
            "for a quieter time, and rebuild again.",
        )

    def _mark_taken(self, applied: ApplyReport) -> None:
        """Mark the quarantined records that the swapped rows have; a redrive would do it as well.

        Otherwise they would be reported as waiting, and changes of an append table would wait
        behind a change that the table has.
        """
        quarantine, rebuilt = (
            Quarantine(layout, self._dataset_id) for layout in (self._layout, self._target)
        )
        start = applied.start.batch if applied.start else 0
        try:
            quarantine.mark_rebuilt(rebuilt, start, applied.position, self._clock())
        except ConcurrentWriterError as error:
            self._logger.info("The next redrive will mark the records of the rebuild: %s", error)

    def _unshown_keys(self) -> int:
        """Return `RebuildReport.unshown_keys`; others begin with the snapshot that shows all."""
        log = ChangeLog(self._layout, self._transform.source).open()
        base = None if log is None or log.snapshot is None else log.snapshot.base
        if base is None or not base.repairs or not keeps_the_past(self._dataset):
            return 0
        name = self._transform.source.name
        return count_stale(name, self._dataset_id, self._target, base.epoch).keys

    def _attempt(self, began: tuple[int, int]) -> tuple[ApplyReport, RebuildProof, int] | None:
        """Apply what is missing, and swap; return None if a run was faster.

        Args:
            began: Counts of rebuilds and erasures when the rebuild began.
        """
        generation, erasures = began
        try:
            self._fence.begin_attempt()
            applied = self._apply()
            self._fence.renew()
            proof = proven(
                self._transform,
                self._dataset,
                self._layout,
                self._target,
                applied.position,
                after_batch=applied.start.batch if applied.start else 0,
            )
            unshown_keys = self._unshown_keys()
            self._fence.renew()
            swapped = swap_in(
                self._layout,
                self._target,
                self._dataset_id,
                self._transform.source.name,
                generation=generation,
                erasures=erasures,
                now=self._clock(),
            )
        except StorageError as error:
            if self._state() != began:
                raise self._overtaken() from error
            if not isinstance(error, ConcurrentWriterError):
                raise
            self._logger.info("Rebuilding %s: %s", self._dataset_id, error)
            return None
        if swapped:
            return applied, proof, unshown_keys
        self._check()  # the missing batches may have been truncated meanwhile
        return None

    def _chunk_applied(self, report: ChunkReport) -> None:
        self._fence.renew()
        if self._on_chunk is not None:
            self._on_chunk(report)

    def _table(self) -> Table | None:
        return opened(self._layout.dataset(self._dataset_id), self._layout.storage_options, KIND)

    def _overtaken(self) -> ConcurrentWriterError:
        return ConcurrentWriterError(
            f"Dataset {self._dataset_id!r}: another rebuild was swapped in, or keys were erased, "
            "meanwhile.",
            safe="The dataset has the rows of that rebuild; those of this one are discarded.",
            hint="Rebuild again if keys were erased, or if the other rebuild ran other code.",
        )

    def _check(self) -> tuple[int, int]:
        """Return the counts of rebuilds and erasures, if the dataset can be rebuilt."""
        state = self._state()
        log = ChangeLog(self._layout, self._transform.source).open()
        if log is None or not log.head or state is None:
            raise StorageError(
                f"Dataset {self._dataset_id!r} can't be rebuilt: "
                + ("it has no table." if state is None else "nothing was landed yet."),
                safe="Nothing was written.",
                hint=f"A run of the job {self._transform.job_name} creates it.",
            )
        self._require_followed(log)
        start = start_of(log.snapshot, log.truncated_through, self._dataset, rebuilds=True)
        if log.truncated_through and start is None:
            uri = self._layout.change_log(self._transform.source.name)
            oldest = log.oldest_event_time_after(log.truncated_through)
            since = "" if oldest is None else f", made since {oldest:%Y-%m-%d %H:%M} UTC"
            raise StorageError(
                f"Dataset {self._dataset_id!r} can't be rebuilt: batches 1 to "
                f"{log.truncated_through} were removed from the change log at {uri}. It still has "
                f"the {log.record_count():,} changes of batches {log.truncated_through + 1} to "
                f"{log.head}{since}.",
                safe="The dataset is as it was.",
                hint="Without them the rebuilt dataset would lack keys that have not changed "
                "since. " + self._other_ways(),
            )
        return state

    def _other_ways(self) -> str:
        resync = f"datazone-dagster resync {self._transform.source.name}"
        if keeps_the_past(self._dataset):
            return (
                "Cast a column of another type in the function, or rename it. A dataset with a new "
                f"id can start from a new snapshot ({resync}); it lacks what was before."
            )
        return f"With a new snapshot it can be rebuilt from there: {resync}, then rebuild again."

    def _state(self) -> tuple[int, int] | None:
        table = self._table()
        if table is None:
            return None
        source = self._transform.source.name
        require_changes(table.at, source)  # not its position: a restored table may have none
        return generation_of(table.at, source), erasures_of(table.at, source)

    def _require_followed(self, log: ChangeLogSnapshot) -> None:
        table, source = self._table(), self._transform.source.name
        if table is not None:
            position = max(map(table.transaction, apply_app_ids(table.at, source)), default=0)
            made_from = stored_state(table.at, source).change_log
            require_followed(log, table.uri, position, made_from)

    def _apply(self) -> ApplyReport:
        apply_run = ApplyRun(
            self._transform,
            self._layout,
            self._settings,
            self._clock,
            self._chunk_applied,
            self._logger,
            only=[self._dataset_id],
            target=self._target,
        )
        return apply_run.run()[self._dataset_id]

    def _clean_up(self) -> None:
        """Remove the files of this and earlier rebuilds. Never fails a rebuild."""
        options = self._layout.storage_options
        try:
            TableStore(self._layout.rebuilds(self._dataset_id), options).delete_all()
        except OSError as error:
            self._logger.warning("Files of a rebuild can't be removed: %s", error)
