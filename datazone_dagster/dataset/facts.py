"""Facts about a dataset's table, read from its Delta log; no data file is opened."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.table_commit import TableCommit


@dataclass(frozen=True, slots=True)
class TableFacts:
    """Facts about a dataset's table at one version.

    `row_count` counts the rows that readers see; `deleted_rows` counts those that deletion
    vectors hide until a compaction drops them. `unexpected` lists columns that the contract
    keeps out, with their type and the first batch that had them. `start` is the snapshot that the
    dataset begins with; None: it begins with the first change. `history` has the newest commits,
    as far as this process has read or made them.
    """

    version: int
    row_count: int
    deleted_rows: int
    files: int
    size_bytes: int
    deletion_vectors: bool
    columns: tuple[tuple[str, str], ...]
    partition_by: tuple[str, ...]
    unexpected: tuple[tuple[str, str, int], ...]
    start: SnapshotBase | None
    history: tuple[TableCommit, ...]


def facts_of(
    snapshot: Snapshot,
    schema: pa.Schema,
    unexpected: tuple[tuple[str, str, int], ...],
    start: SnapshotBase | None,
) -> TableFacts:
    """Return the facts of a table at one version.

    Args:
        snapshot: Snapshot of the table.
        schema: Schema of the table.
        unexpected: Columns that the contract keeps out: name, type and first batch.
        start: Snapshot that the dataset begins with.
    """
    return TableFacts(
        version=snapshot.version,
        row_count=snapshot.live_rows,
        deleted_rows=snapshot.deleted_rows,
        files=len(snapshot.files),
        size_bytes=sum(file.size_bytes for file in snapshot.files),
        deletion_vectors=snapshot.writes_vectors,
        columns=tuple((field.name, str(field.type)) for field in schema),
        partition_by=snapshot.partition_columns,
        unexpected=unexpected,
        start=start,
        history=snapshot.history,
    )
