"""How much one chunk of a run may be: by the memory budget, and by what chunks took so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.apply.read_latest import Bounds
from datazone_dagster.model.batch_size import BatchMeasured, BatchSize, SizeLimits
from datazone_dagster.process.memory import release_memory, release_memory_at_once, resident_bytes
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings

MEMORY_BUDGET = 1 << 30

_LEAST_WORKING_BYTES = 192 << 20
"""What a run takes at least, even where the process alone is near the budget."""

_WHOLE_SHARE = 1 / 16
"""Of the working memory, the decoded bytes of a whole chunk: it is held as it was read, as what
the function makes of it, and as what the merge makes of that."""

_KEPT_SHARE = 1 / 7
"""Of the working memory, what the latest changes and their rows take before they are merged."""

_LOADED_BYTES = 120 << 20
"""What comes into the process with its first chunk and stays: libraries that are loaded then, and
what their allocators keep (measured)."""

_FRAME_SHARE = 1 / 4
"""Of the working memory, what DuckDB may use for intermediate results; more spills to disk."""

_LEAST_FRAME_BYTES = 512 << 20
"""Less than this is no bound but a failure: `items()` of one batch of the largest items holds it
six to eight times (measured), and a run that can't take a batch would never get past it."""

_SMALLEST_BYTES = 8 << 20
_LARGEST_COLLAPSED_BYTES = 8 << 30
_TARGET_SECONDS = 5.0

_ROOMY_SHARE = 0.5
"""Of the budget: while the process holds no more, freed memory is not given back."""


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """Bounds of one run.

    Args:
        chunk_bytes: Decoded bytes of changes that a chunk covers, of the columns that may be
            read; it ends with the batch in which it passes them. None: it follows throughput,
            commit cost and memory.
        memory_budget: Bytes that the process may take while it applies; DuckDB's limit and the
            largest chunk follow from it. One batch of the change log always has to fit. Less than
            the default makes the whole process give memory back at once, which costs some speed.
        maintenance: When merges are followed by maintenance of the table, and how much of it.
        linger_seconds: How long after its start a run still goes on with changes that have
            landed since. 0: it ends at the head that it found.
    """

    chunk_bytes: int | None = None
    memory_budget: int = MEMORY_BUDGET
    maintenance: MaintenanceSettings = MaintenanceSettings()
    linger_seconds: float = 60.0


class ChunkSizes:
    """The sizes of one run: of chunks that are read whole, and of those that collapse first."""

    def __init__(self, settings: ApplySettings) -> None:
        self._settings = settings
        if settings.memory_budget < MEMORY_BUDGET:
            release_memory_at_once()
        self._loading_bytes = _LOADED_BYTES
        working = self._working_bytes()
        self.frame_memory_bytes = max(int(working * _FRAME_SHARE), _LEAST_FRAME_BYTES)
        self._whole = _first(int(working * _WHOLE_SHARE))
        self._collapsed = _first(_LARGEST_COLLAPSED_BYTES)
        self._row_bytes: float | None = None

    def left_bytes(self) -> int:
        """Of the budget, beside what stays in the process between two chunks."""
        return max(self._settings.memory_budget - self._existing_bytes() - self._loading_bytes, 0)

    def _working_bytes(self) -> int:
        return max(self.left_bytes(), _LEAST_WORKING_BYTES)

    @property
    def full_bytes(self) -> int:
        """Decoded bytes of the next chunk of which every change is read."""
        return self._settings.chunk_bytes or self._whole.bytes

    @property
    def row_bytes(self) -> float | None:
        """What the function's rows of one change take, as far as was seen."""
        return self._row_bytes

    def bounds(self) -> Bounds:
        """Of the next chunk that collapses first."""
        decoded_bytes = self._settings.chunk_bytes or self._collapsed.bytes
        retained_bytes = int(self._working_bytes() * _KEPT_SHARE)
        return Bounds(decoded_bytes, retained_bytes, retained_bytes * 3 // 2, self._row_bytes)

    def learn(self, rows: Mapping[str, pa.Table], changes: int) -> None:
        """See what the function's rows of some changes take."""
        self.expect(sum(table.nbytes for table in rows.values()) / max(changes, 1))

    def expect(self, row_bytes: float) -> None:
        """Count on that many bytes of rows per change, and on no less than was seen before."""
        self._row_bytes = max(self._row_bytes or 0.0, row_bytes)

    def measured(
        self, decoded_bytes: int, work_seconds: float, commit_seconds: float, *, collapsed: bool
    ) -> None:
        """See what a chunk took from its start to its last commit."""
        self._loading_bytes = 0
        size = self._collapsed if collapsed else self._whole
        measured = BatchMeasured(
            decoded_bytes,
            work_seconds,
            commit_seconds,
            full=decoded_bytes >= size.bytes,
            # What a chunk keeps is bounded by itself where it collapses, whatever it covers.
            memory_pressure=0.0 if collapsed else self._pressure(),
        )
        if collapsed:
            self._collapsed = size.after(measured)
        else:
            self._whole = size.after(measured)

    def _pressure(self) -> float:
        return self._existing_bytes() / self._settings.memory_budget

    def _existing_bytes(self) -> int:
        """What stays in the process between two chunks.

        Freed memory counts where there is much room: what the next chunk needs is at hand then.
        """
        if resident_bytes() > _ROOMY_SHARE * self._settings.memory_budget:
            pa.default_memory_pool().release_unused()
            release_memory()
        return resident_bytes()


def _first(largest_bytes: int) -> BatchSize:
    limits = SizeLimits(_SMALLEST_BYTES, max(largest_bytes, _SMALLEST_BYTES), _TARGET_SECONDS)
    return BatchSize.first(limits)
