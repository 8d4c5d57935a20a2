"""The size of a run's chunks: measurements of memory and time, for the size policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.model import size_policy
from datazone_dagster.model.memory_budget import MemoryBudget, check_budget, memory_budget
from datazone_dagster.model.size_policy import BatchMeasured, BatchSize, ChunkBounds
from datazone_dagster.process import container
from datazone_dagster.process.memory import (
    bound_arrow_threads,
    release_memory,
    release_memory_at_once,
    resident_bytes,
)
from datazone_dagster.rows.kept_indexes import KEPT_INDEXES
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """Bounds of one run.

    Args:
        chunk_bytes: Size of a chunk: decoded bytes of its changes, in the columns that may be
            read. A chunk ends with the batch in which it exceeds the size. None: the size follows
            throughput, commit cost and memory.
        memory_budget: Bytes that the process may take while it applies; DuckDB's limit, the
            largest chunk and the memory for key indexes follow from it. One batch of the change
            log always has to fit. None, the default, is 1 GiB, and half of the memory of the
            container or machine where that is less. A budget below 1 GiB makes the process return
            memory at once, which costs some speed.
        maintenance: When and how much a table is maintained after merges.
        linger_seconds: Time after its start in which a run still goes on with newly landed
            changes. 0: the run ends at the head of the change log that it found.
        idle_seconds: Time without changes after which a run ends that stays: one that the drain
            sensor has requested.
        max_run_minutes: Minutes after which a run that stays ends, and another one goes on.
        show_rows: Whether errors may show values of a row. `build_definitions(preview=False)` says
            no for all runs.

    Raises:
        DefinitionError: `memory_budget` is no number of bytes.
    """

    chunk_bytes: int | None = None
    memory_budget: int | None = None
    maintenance: MaintenanceSettings = MaintenanceSettings()
    linger_seconds: float = 60.0
    idle_seconds: float = 30.0
    max_run_minutes: float = 60.0
    show_rows: bool = True

    def __post_init__(self) -> None:
        """Check the budget."""
        check_budget("ApplySettings", self.memory_budget)

    @property
    def memory(self) -> MemoryBudget:
        """Memory budget of this process."""
        return memory_budget(
            "ApplySettings(memory_budget=...)",
            self.memory_budget,
            size_policy.APPLY_BUDGET_BYTES,
            container.memory_limit_bytes(),
        )


class ChunkSizes:
    """Chunk sizes of one run: with images in memory, and with images that are read later."""

    def __init__(self, settings: ApplySettings, logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._budget_bytes = container.reported(settings.memory, logger).bytes
        bound_arrow_threads()
        if self._budget_bytes < size_policy.APPLY_BUDGET_BYTES:
            release_memory_at_once()
        KEPT_INDEXES.limit(size_policy.key_index_bytes(self._budget_bytes))
        self._first_chunk = True
        working = self._working_bytes()
        self.frame_memory_bytes = size_policy.frame_memory_bytes(working)
        self._full = BatchSize.first(size_policy.full_chunk_limits(working))
        self._of_rows = BatchSize.first(size_policy.rows_chunk_limits())
        self._row_bytes: float | None = None

    def available_bytes(self) -> int:
        """Memory budget left after what the process retains between chunks, in bytes."""
        return size_policy.available_bytes(
            self._budget_bytes, self._retained_bytes(), first_chunk=self._first_chunk
        )

    def _working_bytes(self) -> int:
        return size_policy.working_bytes(self.available_bytes())

    @property
    def full_bytes(self) -> int:
        """Size of the next chunk with every change, in decoded bytes."""
        return self._settings.chunk_bytes or self._full.bytes

    def bounds(self, *, reads_later: bool, latest_only: bool) -> ChunkBounds:
        """Return the bounds of the next chunk that is read selectively."""
        size = self._of_rows if reads_later else self._full
        return size_policy.chunk_bounds(
            self._settings.chunk_bytes or size.bytes,
            self._row_bytes,
            self._working_bytes() if reads_later else None,
            latest_only=latest_only,
        )

    def joined_bytes(self, elapsed_seconds: float) -> int:
        """Return the memory for what remains of joined chunks, in bytes; 0: join no more of them.

        Args:
            elapsed_seconds: Time since the first of them began.
        """
        if self._settings.chunk_bytes is not None:
            return 0
        if not size_policy.joins_more(elapsed_seconds, self._full.commit_seconds):
            return 0
        return size_policy.joined_bytes(self._working_bytes())

    def learn(self, rows: Mapping[str, pa.Table], changes: int) -> None:
        """Measure the size of the function's rows for some changes."""
        self.expect(sum(table.nbytes for table in rows.values()) / max(changes, 1))

    def expect(self, row_bytes: float) -> None:
        """Expect this many bytes of rows per change, and never less than expected before."""
        self._row_bytes = max(self._row_bytes or 0.0, row_bytes)

    def measured(
        self, decoded_bytes: int, work_seconds: float, commit_seconds: float, *, reads_later: bool
    ) -> None:
        """Record the duration of a chunk, from its start to its last commit."""
        self._first_chunk = False
        size = self._of_rows if reads_later else self._full
        measured = BatchMeasured(
            decoded_bytes,
            work_seconds,
            commit_seconds,
            full=decoded_bytes >= size.bytes,
            # `ChunkBounds` limit the memory of such a chunk, regardless of its range.
            memory_pressure=0.0 if reads_later else self._pressure(),
        )
        if reads_later:
            self._of_rows = size.after(measured)
        else:
            self._full = size.after(measured)

    def _pressure(self) -> float:
        return self._retained_bytes() / self._budget_bytes

    def _retained_bytes(self) -> int:
        """Return the memory that the process retains between two chunks, in bytes.

        Freed memory counts as long as usage is low: the next chunk can reuse it.
        """
        if resident_bytes() > size_policy.RELEASE_ABOVE_SHARE * self._budget_bytes:
            release_memory()
        return resident_bytes()
