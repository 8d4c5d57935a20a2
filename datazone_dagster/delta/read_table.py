"""Facts of an open table's handle, and scans of its rows by delta-rs.

A scan applies deletion vectors, unlike delta-rs's other readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from deltalake import DeltaTable

from datazone_dagster.delta import guarded


def schema_of(table: DeltaTable) -> pa.Schema:
    """Return the table's schema in the Arrow types that we write."""
    return pa.schema(table.schema().to_arrow())


def properties_of(table: DeltaTable) -> Mapping[str, str]:
    """Return the table properties."""
    return table.metadata().configuration


def partition_columns_of(table: DeltaTable) -> list[str]:
    """Return the partition columns, in the order of the table."""
    return table.metadata().partition_columns


def last_transaction(table: DeltaTable, app_id: str) -> int:
    """Return the version last committed for an application id; 0 if none was.

    Raises:
        StorageError: The log can't be read.
    """
    with guarded(table.table_uri, "Reading the Delta log"):
        return table.transaction_version(app_id) or 0


def load_version(table: DeltaTable, version: int) -> None:
    """Move the handle to another version of its table.

    Raises:
        DeltaError: The log has no such version, or can't be read.
        OSError: The store failed.
    """
    table.load_as_version(version)


def scanned(
    table: DeltaTable, columns: Sequence[str] | None = None, where: str | None = None
) -> pa.RecordBatchReader:
    """Return the rows as a stream of batches; their strings have several Arrow types.

    Args:
        table: The table.
        columns: Names of the columns to read; None: all.
        where: SQL predicate (DataFusion's dialect) that selects the rows.

    Raises:
        DeltaError: The predicate can't be used, or a file can't be read.
        OSError: The store failed.
    """
    names = None if columns is None else list(columns)
    return pa.RecordBatchReader.from_stream(table.scan(columns=names, predicate=where))
