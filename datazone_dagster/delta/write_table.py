"""Commits that delta-rs makes: rows appended or replaced, columns added, partitions dropped.

The handle is at the new version afterwards. None of these functions converts errors: callers
name the operation with `datazone_dagster.delta.guarded`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake

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


def overwrite_rows(table: DeltaTable, rows: pa.Table, commit: CommitProperties) -> None:
    """Replace all rows of a table by rows in its schema."""
    write_deltalake(
        table, rows, mode="overwrite", writer_properties=WRITER, commit_properties=commit
    )


def upsert_rows(
    table: DeltaTable, rows: pa.Table, *, on: str, replaced_columns: Sequence[str]
) -> int:
    """Add the rows that the table does not have; of the others, replace some columns only.

    Args:
        table: The table.
        rows: Rows in the table's schema, each value of `on` once.
        on: Column that identifies a row; its name needs no quotes in SQL.
        replaced_columns: Columns to replace in existing rows; their names need no quotes.

    Returns:
        The number of rows added.
    """
    merged: dict[str, Any] = (
        table.merge(
            rows,
            predicate=f"t.{on} = s.{on}",
            source_alias="s",
            target_alias="t",
            # Streamed execution can't prune: it scans every file of the target.
            streamed_exec=False,
            writer_properties=WRITER,
        )
        .when_matched_update({name: f"s.{name}" for name in replaced_columns})
        .when_not_matched_insert_all()
        .execute()
    )
    return int(merged["num_target_rows_inserted"])


def add_columns(table: DeltaTable, fields: Iterable[pa.Field]) -> None:
    """Add columns, which are null in the existing rows."""
    table.alter.add_columns(list(Schema.from_arrow(pa.schema(fields)).fields))


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
