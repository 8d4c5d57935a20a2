"""Result of writing one chunk into a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

from datazone_dagster.model.report import DeleteCounts, MergeCounts


@dataclass(frozen=True)
class ChunkWritten:
    """Result of writing one chunk: the changes to the dataset and the table's new state."""

    counts: MergeCounts
    table_version: int
    added_columns: tuple[str, ...]
    quarantined: int = 0
    deletes: DeleteCounts = field(default_factory=DeleteCounts)
