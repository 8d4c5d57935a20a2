"""Rewrite of a table in other types, in one commit, with a few thousand rows in memory.

delta-rs 1.6.6 neither creates nor enables the Delta feature `typeWidening` (measured: the
property is refused, the feature has no name), and few readers support tables that have it.
Every reader supports a table whose files all have the new type, so the files are rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from datazone_dagster.delta import guarded
from datazone_dagster.delta.read_table import scanned
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.write_table import WRITER
from datazone_dagster.rows.align import aligned

READ_ROWS = 16_384


def rewritten(table: Table, schema: pa.Schema, *, doing: str) -> None:
    """Rewrite all rows in the types of `schema`; columns that it adds are null.

    The position and everything else in the table's log stay as they are. Readers see the table
    before or after, nothing in between; the version before can still be read.

    Args:
        table: Table at the version that the caller has checked; it is at the new one afterwards.
        schema: Schema with every column of the table, in types that hold the old ones.
        doing: Description of the operation, for errors.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was written.
        StorageError: The store failed.
    """
    with guarded(table.uri, doing), table.by_delta_rs() as handle:
        replace_rows(
            handle,
            _row_groups(handle, schema),
            schema,
            CommitProperties(max_commit_retries=0),
            partition_by=table.partition_columns,
        )


def replace_rows(
    table: DeltaTable,
    pieces: Iterator[pa.Table],
    schema: pa.Schema,
    commit: CommitProperties,
    *,
    partition_by: Sequence[str],
) -> None:
    """Replace all rows of a table, and its schema, in one commit."""
    # delta-rs reads its input on its own threads and can't be called from them.
    with elsewhere(pieces) as made:
        batches = (batch for piece in made for batch in piece.to_batches())
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(schema, batches),
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=list(partition_by),  # None would keep those of the table
            writer_properties=WRITER,
            commit_properties=commit,
        )


def _row_groups(table: DeltaTable, schema: pa.Schema) -> Iterator[pa.Table]:
    for batch in table_batches(table):
        yield aligned(batch, schema)


def table_batches(table: DeltaTable) -> Iterator[pa.Table]:
    """Yield all rows of a table, `READ_ROWS` at a time, with deletion vectors applied."""
    for batch in scanned(table):
        rows = pa.Table.from_batches([batch])
        for start in range(0, len(rows), READ_ROWS):
            yield rows.slice(start, READ_ROWS)


@contextmanager
def elsewhere(pieces: Iterator[pa.Table]) -> Iterator[Iterator[pa.Table]]:
    """Provide the same pieces, each made by another thread while this one waits for it."""
    with ThreadPoolExecutor(1, thread_name_prefix="datazone-rewrite") as pool:

        def taken() -> Iterator[pa.Table]:
            while (piece := pool.submit(next, pieces, None).result()) is not None:
                yield piece

        yield taken()
