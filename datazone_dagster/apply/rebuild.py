"""A dataset made anew from the change log, beside the one that is there until it is done.

The rebuilt dataset stands in a lakehouse of its own below `_rebuild`, so runs and readers of
the dataset, and all other datasets, notice nothing. When it has applied as much as the dataset,
it takes over in one commit (`merge.takeover`). Whatever dies before that commit leaves the
dataset as it is: a rebuild that is run again starts over, in another place.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from datazone_dagster.api import Dataset, Transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.apply.run import ApplyRun
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.properties import generation_of
from datazone_dagster.dataset.swap import swap_in
from datazone_dagster.delta import open_table
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import ApplyReport, ChunkReport

SWAPS = 20
"""Attempts to take over: each time a run of the dataset was faster, the rest is applied."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did. `applied` is about the rebuilt table; `generation` counts rebuilds."""

    applied: ApplyReport
    generation: int
    attempts: int


class Rebuild:
    """One rebuild of one dataset.

    Args:
        transform: The transform that writes the dataset.
        dataset: The dataset.
        layout: The lakehouse.
        settings: Bounds of memory.
        clock: Tells the time.
        on_chunk: Called after each chunk.
        logger: Of what happens.
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
        self._dataset_id = dataset.id
        self._layout = layout
        self._settings = replace(settings, linger_seconds=0.0)
        self._clock = clock
        self._on_chunk = on_chunk
        self._logger = logger
        self._place = layout.rebuild(dataset.id, uuid.uuid4().hex)

    def run(self) -> RebuildReport:
        """Apply the whole change log, then take over.

        Raises:
            StorageError: The change log no longer has everything, there is nothing to rebuild,
                or the store failed. The dataset is as it was.
            ConcurrentWriterError: Another rebuild has taken over meanwhile, or runs of the
                dataset were faster time and again.
            TransformError: The function or its result can't be applied.
        """
        generation = self._check()
        for attempt in range(1, SWAPS + 1):
            try:
                applied = self._apply()
                taken = swap_in(
                    self._layout,
                    self._place,
                    self._dataset_id,
                    self._transform.source.name,
                    generation=generation,
                    now=self._clock(),
                )
            except StorageError as error:
                if self._generation() != generation:
                    raise self._overtaken() from error
                if not isinstance(error, ConcurrentWriterError):
                    raise
                self._logger.info("Rebuilding %s: %s", self._dataset_id, error)
                continue
            if taken:
                self._clean_up()
                return RebuildReport(applied, generation + 1, attempt)
            self._check()  # what is missing may have been removed meanwhile
        raise ConcurrentWriterError(
            f"Dataset {self._dataset_id!r}: runs were faster {SWAPS} times in a row.",
            safe="The dataset is as they left it; what was rebuilt is thrown away.",
            hint="Stop the sensor of its source, or wait for a quieter time, and rebuild again.",
        )

    def _overtaken(self) -> ConcurrentWriterError:
        return ConcurrentWriterError(
            f"Dataset {self._dataset_id!r}: another rebuild has taken over meanwhile.",
            safe="Its rows stand; what this one made is thrown away.",
            hint="Rebuild it again if that one was made with other code.",
        )

    def _check(self) -> int:
        """The generation of the dataset, if it can be rebuilt."""
        log = ChangeLog(self._layout, self._transform.source.name).open()
        generation = self._generation()
        if log is None or not log.head or generation is None:
            raise StorageError(
                f"Dataset {self._dataset_id!r} can't be rebuilt: "
                + ("it has no table." if generation is None else "nothing was landed yet."),
                safe="Nothing was written.",
                hint=f"A run of the job {self._transform.job_name} makes it.",
            )
        if log.forgotten:
            uri = self._layout.change_log(self._transform.source.name)
            raise StorageError(
                f"Dataset {self._dataset_id!r} can't be rebuilt: batches 1 to {log.forgotten} were "
                f"removed from the change log at {uri}.",
                safe="The dataset is as it was.",
                hint="Without them the rebuilt dataset would lack keys that have not changed "
                "since. A column of another type can be cast in the function, or be renamed.",
            )
        return generation

    def _generation(self) -> int | None:
        uri, options = self._layout.dataset(self._dataset_id), self._layout.storage_options
        table = open_table(uri, options, KIND)
        return None if table is None else generation_of(table, self._transform.source.name)

    def _apply(self) -> ApplyReport:
        application = ApplyRun(
            self._transform,
            self._layout,
            self._settings,
            self._clock,
            self._on_chunk,
            self._logger,
            only=self._dataset_id,
            target=self._place,
        )
        return application.run()[self._dataset_id]

    def _clean_up(self) -> None:
        """Remove what stood beside, also what earlier rebuilds left. It never fails a rebuild."""
        options = self._layout.storage_options
        try:
            TableStore(self._layout.rebuilds(self._dataset_id), options).delete_all()
        except OSError as error:
            self._logger.warning("What a rebuild left can't be removed: %s", error)
