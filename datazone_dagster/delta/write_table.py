"""Commits that delta-rs makes: rows appended, columns added, partitions dropped.

The handle is at the new version afterwards. None of these functions converts errors: callers
name the operation with `datazone_dagster.delta.guarded`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake

from datazone_dagster.errors import ConcurrentWriterError

WRITER = WriterProperties(compression="ZSTD", compression_level=1)

_REPLACED_FILES_HOURS = 24
"""Hours for which replaced files stay after `drop_partitions`, for readers of older versions."""


def append_rows(
    table: DeltaTable,
    rows: pa.Table,
    commit: CommitProperties | None = None,
    *,
    adds_columns: bool = False,
) -> None:
    """Append rows.

    Args:
        table: The table.
        rows: Rows in the table's schema, or with more columns if `adds_columns`.
        commit: Properties that the commit carries.
        adds_columns: Whether the table gets the columns that it lacks.
    """
    write_deltalake(
        table,
        rows,
        mode="append",
        schema_mode="merge" if adds_columns else None,
        writer_properties=WRITER,
        commit_properties=commit,
    )


def add_columns(table: DeltaTable, fields: Iterable[pa.Field]) -> None:
    """Add columns, which are null in the existing rows.

    delta-rs commits them after the commits of others, and its handle has these then: what was
    planned before must not be written with it.

    Raises:
        ConcurrentWriterError: Another commit came first; the columns are there all the same.
    """
    before = table.version()
    table.alter.add_columns(list(Schema.from_arrow(pa.schema(fields)).fields))
    if table.version() != before + 1:
        raise ConcurrentWriterError(
            f"Adding columns to {table.table_uri}: another commit came first, after version "
            f"{before}.",
            safe="The columns were added, and no row of this attempt is in the table; the other "
            "writer's commit is intact.",
            hint="This attempt lost the commit race; the next one continues from the new state.",
        )


def drop_partitions(table: DeltaTable, column: str, values: Iterable[str]) -> None:
    """Delete the rows of some partitions, and files that were replaced a while ago.

    Args:
        table: The table.
        column: Partition column; its name needs no quotes in SQL.
        values: Partition values that we generated ourselves: they become part of a predicate.
    """
    listed = ", ".join(f"'{value}'" for value in values)
    table.delete(f"{column} in ({listed})")
    table.vacuum(
        dry_run=False, retention_hours=_REPLACED_FILES_HOURS, enforce_retention_duration=False
    )


def delete_before(table: DeltaTable, column: str, time: datetime) -> None:
    """Delete the rows with an earlier time in a column, whose name needs no quotes in SQL."""
    text = time.astimezone(timezone.utc).isoformat()
    table.delete(f"{column} < arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')")
