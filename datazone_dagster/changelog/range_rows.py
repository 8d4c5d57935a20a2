"""Rows of a range of batches, in the order of the change log; of one bucket of keys or of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from datazone_dagster.changelog import ranges
from datazone_dagster.changelog.row_groups import RowGroups
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.delta import guarded
from datazone_dagster.delta.read_rows import read_rows, read_sized_rows
from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.model.table_file import DataFile


def range_rows(
    store: TableStore,
    files: Sequence[DataFile],
    after_batch: int,
    through_batch: int,
    columns: Sequence[str],
    bucket: KeyBucket,
) -> Iterator[tuple[pa.Table, float]]:
    """Yield the rows of the batches in (after_batch, through_batch] that are of a bucket.

    Args:
        store: Folder of the change log.
        files: Files of the change log with batches of the range, in order.
        after_batch: Start of the range, exclusive.
        through_batch: End of the range, inclusive.
        columns: Columns to read.
        bucket: Bucket of the keys.

    Yields:
        Some thousand rows at a time, and the approximate bytes that a row's other columns would
        take.
    """
    if bucket.is_whole:
        schema = pa.schema([SCHEMA.field(name) for name in dict.fromkeys((*columns, Log.BATCH))])
        for file, rows, others in read_sized_rows(store, files, schema):
            selected = ranges.rows_between(rows, file, after_batch, through_batch)
            if len(selected):
                yield selected.select(list(columns)), others
        return
    with RowGroups(store, files, after_batch, through_batch, bucket) as row_groups:
        for row_group in row_groups:
            for rows in row_groups.pieces(row_group, columns):
                if len(rows):
                    all_bytes = row_group.decoded_bytes / row_group.rows
                    yield rows, max(0.0, all_bytes - rows.nbytes / len(rows))


def looked_up(
    store: TableStore, files: Sequence[DataFile], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield columns of these files, to look for records that may have arrived again.

    Raises:
        StorageError: The store failed.
    """
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    with guarded(store.uri, "Looking for records that arrived again"):
        for _, rows in read_rows(store, files, schema):
            yield rows
