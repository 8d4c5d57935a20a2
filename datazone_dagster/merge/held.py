"""Reads the rows that a table holds of given keys, whole, without decoding the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from datazone_dagster.delta import DataFile, data_files, filesystem
from datazone_dagster.merge.engine import MergeTarget
from datazone_dagster.model.columns import KEY, VERSION

_READ_ROWS = 16384


@dataclass(frozen=True)
class HeldRows:
    """Where the rows of some keys are.

    Args:
        places: Key, version and what else was asked for of each row, with the numbers of its
            file and row group.
        files: The files that the numbers count.
    """

    places: pa.Table
    files: tuple[DataFile, ...]


_FILE, _GROUP = "file", "row_group"


def find_rows(
    target: MergeTarget, keys: pa.ChunkedArray, columns: Sequence[str] = (KEY, VERSION)
) -> HeldRows:
    """Find the rows of these keys, reading a few columns only.

    Memory holds the keys given and found, not the files.

    Args:
        target: The table.
        keys: Whose rows are wanted.
        columns: What is read of them, the key among it; no partition columns.
    """
    wanted = pc.unique(keys.combine_chunks())
    read = pa.schema([target.schema.field(name) for name in columns])
    places = pa.schema([*read, (_FILE, pa.int32()), (_GROUP, pa.int32())])
    files = tuple(data_files(target.table))
    found = [places.empty_table()]
    store = filesystem(target.table, target.storage_options)
    for number, file in enumerate(files):
        with store.open_input_file(file.path) as handle:
            parquet = pq.ParquetFile(handle)
            present = [name for name in columns if name in parquet.schema_arrow.names]
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(_READ_ROWS, row_groups=[group], columns=present):
                    rows = in_schema(pa.Table.from_batches([batch]), file, read)
                    rows = rows.filter(pc.is_in(rows[KEY], wanted))
                    if len(rows):
                        found.append(_placed(rows, places, number, group))
    return HeldRows(pa.concat_tables(found), files)


def _placed(rows: pa.Table, places: pa.Schema, file: int, group: int) -> pa.Table:
    numbers = [pa.repeat(pa.scalar(one, pa.int32()), len(rows)) for one in (file, group)]
    return pa.table([*rows.columns, *numbers], schema=places)


def read_held(target: MergeTarget, held: HeldRows, wanted: pa.Table) -> pa.Table:
    """The rows with the given keys and versions, in the table's schema.

    Only row groups that hold one of them are decoded, some thousand rows at a time.

    Args:
        target: The table at the version at which `held` was found.
        held: Where the rows are.
        wanted: Key and version.
    """
    columns = [KEY, VERSION]
    hits = held.places.join(wanted.select(columns), keys=columns, join_type="left semi")
    parts = [target.schema.empty_table()]
    for rows in _row_groups(target, held.files, hits):
        here = rows.append_column("at", pa.array(range(len(rows)), pa.int64()))
        found = here.select([*columns, "at"]).join(
            wanted.select(columns), keys=columns, join_type="left semi"
        )
        parts.append(rows.take(found["at"].combine_chunks()))
    return pa.concat_tables(parts)


def _row_groups(
    target: MergeTarget, files: tuple[DataFile, ...], hits: pa.Table
) -> Iterator[pa.Table]:
    groups: dict[int, set[int]] = {}
    for file, group in zip(hits[_FILE].to_pylist(), hits[_GROUP].to_pylist(), strict=True):
        groups.setdefault(file, set()).add(group)
    store = filesystem(target.table, target.storage_options)
    for number in sorted(groups):
        yield from whole_rows(store, files[number], target.schema, sorted(groups[number]))


def whole_rows(
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
