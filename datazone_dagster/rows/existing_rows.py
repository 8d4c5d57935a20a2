"""Reads the rows that a table holds of given keys, whole, without decoding the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from datazone_dagster.delta import DataFile, guarded
from datazone_dagster.delta.transaction_log import Snapshot, read_snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.locate import CHANGE_ROW, FILE, POSITION, existing_rows, locate

_READ_ROWS = 16384


@dataclass(frozen=True)
class ExistingRows:
    """Where the rows of some keys are.

    Args:
        places: Key, version and what else was asked for of each row, with the number of its
            file and its position there.
        snapshot: The table that they were found in; its files are what the numbers count.
    """

    places: pa.Table
    snapshot: Snapshot


def find_rows(
    target: MergeTarget, keys: pa.ChunkedArray, columns: Sequence[str] = (KEY, VERSION)
) -> ExistingRows:
    """Find the rows of these keys, reading a few columns only.

    Memory holds the keys given and found, not the files.

    Args:
        target: The table.
        keys: Whose rows are wanted.
        columns: What is read of them, the key among it; no partition columns.
    """
    keys = pa.chunked_array([keys.unique()])
    schema = pa.schema([target.schema.field(name) for name in columns])
    with guarded(target.uri, f"Reading dataset {target.dataset_id!r}"):
        snapshot = read_snapshot(target.table, target.storage_options)
        found = locate(snapshot, keys)
        if set(columns) <= {KEY, VERSION}:
            held = {KEY: keys.take(found[CHANGE_ROW]), VERSION: found[VERSION]}
            rows = pa.table(
                [*(held[name] for name in columns), found[FILE], found[POSITION]],
                names=[*columns, FILE, POSITION],
            )
        else:
            rows = existing_rows(snapshot, found, schema).select([*columns, FILE, POSITION])
    return ExistingRows(rows, snapshot)


def read_existing(target: MergeTarget, held: ExistingRows, wanted: pa.Table) -> pa.Table:
    """The rows with the given keys and versions, in the table's schema.

    Only row groups that hold one of them are decoded, some thousand rows at a time.

    Args:
        target: The table at the version at which `held` was found.
        held: Where the rows are.
        wanted: Key and version.
    """
    columns = [KEY, VERSION]
    hits = held.places.join(wanted.select(columns), keys=columns, join_type="left semi")
    with guarded(target.uri, f"Reading dataset {target.dataset_id!r}"):
        return existing_rows(held.snapshot, hits, target.schema).select(target.schema.names)


def full_rows(
    store: pafs.FileSystem,
    file: DataFile,
    schema: pa.Schema,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pa.Table]:
    """A file's rows as the table's, some thousand at a time.

    Columns that the table got later are null, partition values are filled in.
    """
    with store.open_input_file(file.path) as handle:
        parquet = pq.ParquetFile(handle)
        groups = range(parquet.num_row_groups) if row_groups is None else row_groups
        for batch in parquet.iter_batches(_READ_ROWS, row_groups=list(groups)):
            yield in_schema(pa.Table.from_batches([batch]), file, schema)


def in_schema(rows: pa.Table, file: DataFile, schema: pa.Schema) -> pa.Table:
    """Rows of a file in a schema: what the file lacks is a partition value, or null."""
    columns = []
    for field in schema:
        if field.name in rows.column_names:
            columns.append(rows[field.name].cast(field.type))
        else:
            value = pa.scalar(file.partition.get(field.name), field.type)
            columns.append(pa.chunked_array([pa.repeat(value, len(rows))]))
    return pa.Table.from_arrays(columns, schema=schema)
