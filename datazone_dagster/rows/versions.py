"""Versions of given keys in a table."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.change_ids import are_among
from datazone_dagster.rows.key_filter import KeyFilter
from datazone_dagster.rows.locate import CHANGE_ROW, LOOKED_UP_ROWS, locate

HIGHEST = f"{VERSION}_max"
"""Column with the highest version of a key."""

_SCHEMA = pa.schema([(KEY, pa.string()), (VERSION, pa.string())])


def versions_in(snapshot: Snapshot, files: Iterable[LiveFile], keys: pa.ChunkedArray) -> pa.Table:
    """Return the keys that occur in files of a table, each with its highest version there.

    The keys given and found are in memory, the files are not.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    wanted = pa.array(keys.combine_chunks())
    found = [_SCHEMA.empty_table()]
    if len(wanted):
        key_filter = KeyFilter(wanted)
        candidates: list[pa.Table] = []
        for file in files:
            for batch in live_batches(snapshot, file, _SCHEMA, snapshot.deleted_in(file)):
                passing = pa.array(key_filter.passing(batch.column(KEY)))
                candidates.append(pa.table(batch).take(passing))
                if sum(map(len, candidates)) >= LOOKED_UP_ROWS:
                    found.append(_among(wanted, candidates))
                    candidates = []
        found.append(_among(wanted, [found[0], *candidates]))
    return pa.concat_tables(found).group_by(KEY).aggregate([(VERSION, "max")])


def _among(keys: pa.Array, rows: list[pa.Table]) -> pa.Table:
    together = pa.concat_tables(rows)
    return together.filter(pc.is_in(together[KEY], keys))


def highest_versions(tables: Iterable[pa.Table]) -> dict[str, str]:
    """Return the highest version of each key of some tables, which are small."""
    highest: dict[str, str] = {}
    for one in tables:
        for key, version in zip(one[KEY].to_pylist(), one[VERSION].to_pylist(), strict=True):
            highest[key] = max(version, highest.get(key, ""))
    return highest


def with_highest(keyed_changes: pa.Table, existing: pa.Table) -> pa.Table:
    """Return the keyed changes whose keys exist, each with the highest existing version."""
    return keyed_changes.join(existing, keys=KEY, join_type="inner")


def has_rows(snapshot: Snapshot, rows: pa.Table) -> pa.ChunkedArray:
    """Return per row whether readers of the table see a row of the same key and version.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    keys = pa.chunked_array([rows[KEY].unique()])
    found = locate(snapshot, keys)
    existing = pa.table({KEY: keys.take(found[CHANGE_ROW]), VERSION: found[VERSION]})
    return are_among(rows, existing)
