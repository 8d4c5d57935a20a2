"""Rows of the files of a table that has no deletion vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.delta import rows_at_a_time
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.table_file import DataFile


def read_rows(
    store: TableStore, files: Iterable[DataFile], schema: pa.Schema
) -> Iterator[tuple[DataFile, pa.Table]]:
    """Yield the rows of these files, file by file in the given order, some thousand at a time.

    Args:
        store: Folder of the table that has the files; without deletion vectors.
        files: Files to read.
        schema: Columns to decode, none of them a partition column. Files store strings in
            several Arrow types; the rows have the types of this schema.
    """
    for file, rows, _ in read_sized_rows(store, files, schema):
        yield file, rows


def read_sized_rows(
    store: TableStore, files: Iterable[DataFile], schema: pa.Schema
) -> Iterator[tuple[DataFile, pa.Table, float]]:
    """As `read_rows`, with the approximate bytes that the other columns of a row would take."""
    for file in files:
        with store.open(unquote(file.path), file.size_bytes) as handle:
            parquet = pq.ParquetFile(handle, pre_buffer=not store.is_local)
            for group in range(parquet.num_row_groups):
                facts = parquet.metadata.row_group(group)
                size, others = rows_at_a_time(facts), _row_bytes_of_others(facts, schema)
                for batch in parquet.iter_batches(size, row_groups=[group], columns=schema.names):
                    read = filled(pa.Table.from_batches([batch]), file.constants)
                    rows = read.select(schema.names).cast(schema)
                    yield file, rows, others


def filled(rows: pa.Table, constants: Mapping[str, Any]) -> pa.Table:
    """Return the rows of a file with the values of columns that the log has for all of them."""
    for name, value in constants.items():
        at = rows.schema.get_field_index(name)
        if at >= 0:
            kind = rows.schema.field(at).type
            rows = rows.set_column(at, name, pa.repeat(pa.scalar(value, kind), len(rows)))
    return rows


def _row_bytes_of_others(group: pq.RowGroupMetaData, schema: pa.Schema) -> float:
    columns = map(group.column, range(group.num_columns))
    others = (
        int(column.total_uncompressed_size)
        for column in columns
        if column.path_in_schema not in schema.names
    )
    return sum(others) / max(int(group.num_rows), 1)
