"""What a dataset's table is, as its Delta log tells it; no data file is opened."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from datazone_dagster.delta.transaction_log import Snapshot


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the Delta log says of a dataset's table.

    `row_count` counts the rows that readers see; `deleted_rows` those that deletion vectors
    hide, until a compaction drops them. `unexpected` names columns that the contract keeps
    out, with their type and the batch in which they first came.
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


def facts_of(
    snapshot: Snapshot, schema: pa.Schema, unexpected: tuple[tuple[str, str, int], ...]
) -> TableFacts:
    """The facts of a table at one version.

    Args:
        snapshot: The table.
        schema: Its schema.
        unexpected: Columns that its contract keeps out.
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
    )
