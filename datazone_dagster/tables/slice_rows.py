"""The rows of a slice in a table: their files and positions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyroaring import BitMap64

from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.read_file import numbered_batches, partition_scalar
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.tables.slice_filter import Test, Tests, decided_by_folder, inside

_POSITION = "_dz_position"


def all_rows_of(snapshot: Snapshot, file: LiveFile) -> BitMap64:
    """Return the positions of all live rows of a file."""
    every = BitMap64()
    every.add_range(0, snapshot.rows_in(file))
    return every - snapshot.deleted_in(file)


def rows_in_slice(snapshot: Snapshot, tests: Tests) -> dict[str, BitMap64]:
    """Return the positions of the live rows that pass, by path of their file.

    Only the columns of the tests are read, and no file whose folder or bounds decide.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    keep = inside(tests)
    columns = dict.fromkeys(test.column for all_of in tests for test in all_of)
    schema = pa.schema([snapshot.schema.field(name) for name in columns])
    by_folder = decided_by_folder(tests, snapshot.partition_columns)
    found: dict[str, BitMap64] = {}
    for file in snapshot.files:
        if by_folder:
            if len(keep(_values_of(file, schema))):
                found[file.path] = all_rows_of(snapshot, file)
            continue
        if not any(all(_may_pass(file, test) for test in all_of) for all_of in tests):
            continue
        inside_file = BitMap64()
        for positions, batch in numbered_batches(snapshot, file, schema):
            rows = pa.Table.from_batches([batch]).append_column(_POSITION, pa.array(positions))
            inside_file |= BitMap64(keep(rows)[_POSITION].to_pylist())
        if inside_file:
            found[file.path] = inside_file
    return found


def _values_of(file: LiveFile, schema: pa.Schema) -> pa.Table:
    """Return one row with the partition values of a file."""
    values = [partition_scalar(file.partition_values.get(one.name), one.type) for one in schema]
    columns = [pa.repeat(value, 1) for value in values]
    return pa.Table.from_arrays(columns, schema=schema)


def _may_pass(file: LiveFile, test: Test) -> bool:
    """Return whether the bounds of a file leave room for a row within the ranges of a test."""
    low, high = file.minimum.get(test.column), file.maximum.get(test.column)
    if not test.ranges or low is None or high is None:
        return True
    kind = test.ranges[0][0].type
    least, most = _bound(low, kind), _bound(high, kind)
    return any(start.as_py() <= most and least < end.as_py() for start, end in test.ranges)


def _bound(value: Any, kind: pa.DataType) -> Any:
    return partition_scalar(str(value), kind).as_py()
