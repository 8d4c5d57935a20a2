"""Which versions a table holds of given keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from datazone_dagster.delta import DataFile, read_rows
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.key_filter import KeyFilter
from datazone_dagster.rows.locate import CHANGE_ROW, LOOKED_UP_ROWS, locate

HIGHEST = f"{VERSION}_max"
"""Column of the highest version of a key."""

_SCHEMA = pa.schema([(KEY, pa.string()), (VERSION, pa.string())])


def versions_in(
    table: DeltaTable,
    storage_options: Mapping[str, str],
    files: Iterable[DataFile],
    keys: pa.ChunkedArray,
) -> pa.Table:
    """The keys that occur in the files, each with its highest version there.

    Memory holds the keys given and found, not the files.
    """
    wanted = pa.array(keys.combine_chunks())
    held = [_SCHEMA.empty_table()]
    if len(wanted):
        key_filter = KeyFilter(wanted)
        may_be: list[pa.Table] = []
        for _, rows in read_rows(table, storage_options, files, _SCHEMA):
            may_be.append(rows.take(pa.array(key_filter.passing(rows[KEY].combine_chunks()))))
            if sum(map(len, may_be)) >= LOOKED_UP_ROWS:
                held.append(_among(wanted, may_be))
                may_be = []
        held.append(_among(wanted, [held[0], *may_be]))
    return pa.concat_tables(held).group_by(KEY).aggregate([(VERSION, "max")])


def _among(keys: pa.Array, rows: list[pa.Table]) -> pa.Table:
    together = pa.concat_tables(rows)
    return together.filter(pc.is_in(together[KEY], keys))


def with_highest(keyed_changes: pa.Table, held: pa.Table) -> pa.Table:
    """The claims whose keys are held, with the highest held version beside their own."""
    return keyed_changes.join(held, keys=KEY, join_type="inner")


def has_rows(
    table: DeltaTable, storage_options: Mapping[str, str], rows: pa.Table
) -> pa.ChunkedArray:
    """For each row, whether readers of the table see one of the same key and version.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    keys = pa.chunked_array([rows[KEY].unique()])
    found = locate(read_snapshot(table, storage_options), keys)
    held = pa.table({KEY: keys.take(found[CHANGE_ROW]), VERSION: found[VERSION]})
    return pc.is_in(_places(rows), _places(held).combine_chunks())


def _places(rows: pa.Table) -> pa.ChunkedArray:
    """Version and key in one text; versions are of one length."""
    return pc.binary_join_element_wise(rows[VERSION], rows[KEY], "")
