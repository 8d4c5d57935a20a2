"""A table's rows once more, in other types: one commit, some thousand rows in memory.

delta-rs 1.6.6 neither creates nor enables the Delta feature `typeWidening` (measured: the
property is refused, the feature has no name), and readers of tables that have it are few. A
table whose files all have the new type is read by every reader, so the files are rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake

from datazone_dagster.delta import guarded
from datazone_dagster.rows.align import aligned

WRITER = WriterProperties(compression="ZSTD", compression_level=1)

READ_ROWS = 16_384


def rewritten(table: DeltaTable, schema: pa.Schema, *, doing: str) -> None:
    """Replace all rows by themselves in the types of `schema`; columns it adds are null.

    The position and everything else that the table's log keeps stay as they are. Readers see
    the table before or after, nothing in between; the version before can still be read.

    Args:
        table: The handle that the caller has judged; it is at the new version afterwards.
        schema: Every column of the table, in types that hold the old ones.
        doing: What this is, for errors.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was written.
        StorageError: The store failed.
    """
    with guarded(table.table_uri, doing):
        replace_rows(
            table,
            _row_groups(table, schema),
            schema,
            CommitProperties(max_commit_retries=0),
            partition_by=table.metadata().partition_columns,
        )


def replace_rows(
    table: DeltaTable,
    parts: Iterator[pa.Table],
    schema: pa.Schema,
    commit: CommitProperties,
    *,
    partition_by: Sequence[str],
) -> None:
    """Put other rows, and their schema, in the place of all that a table has, in one commit."""
    # delta-rs reads what it is given on its own threads, and can't be called from there.
    with elsewhere(parts) as made:
        batches = (batch for part in made for batch in part.to_batches())
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(schema, batches),
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=list(partition_by) or None,
            writer_properties=WRITER,
            commit_properties=commit,
        )


def _row_groups(table: DeltaTable, schema: pa.Schema) -> Iterator[pa.Table]:
    for batch in table_batches(table):
        yield aligned(batch, schema)


def table_batches(table: DeltaTable) -> Iterator[pa.Table]:
    """All rows of a table, some thousand at a time; deletion vectors are taken into account."""
    for batch in pa.RecordBatchReader.from_stream(table.scan()):
        rows = pa.Table.from_batches([batch])
        for start in range(0, len(rows), READ_ROWS):
            yield rows.slice(start, READ_ROWS)


@contextmanager
def elsewhere(parts: Iterator[pa.Table]) -> Iterator[Iterator[pa.Table]]:
    """The same parts, each made by another thread while this one waits for it."""
    with ThreadPoolExecutor(1, thread_name_prefix="datazone-rewrite") as pool:

        def taken() -> Iterator[pa.Table]:
            while (part := pool.submit(next, parts, None).result()) is not None:
                yield part

        yield taken()
