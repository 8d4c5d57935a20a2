"""Identity of changes: key and version count together, a null has none."""

from __future__ import annotations

import pyarrow as pa

from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.version import row_version
from datazone_dagster.rows.change_ids import are_among, change_ids

SCHEMA = pa.schema([(KEY, pa.string()), (VERSION, pa.string())])


def changes(*identities: tuple[str | None, int]) -> pa.Table:
    batches = [
        pa.RecordBatch.from_pylist([{KEY: key, VERSION: row_version(1, number)}], schema=SCHEMA)
        for key, number in identities
    ]
    return pa.Table.from_batches(batches, SCHEMA)


def test_a_change_is_among_others_by_key_and_version() -> None:
    asked = changes(("a", 1), ("a", 2), ("b", 1), (None, 1))
    others = changes(("b", 1), ("a", 2), ("c", 1))
    assert are_among(asked, others).to_pylist() == [False, True, True, False]
    assert are_among(asked, changes()).to_pylist() == [False] * 4
    assert are_among(changes(), others).to_pylist() == []


def test_ids_are_unique_although_keys_end_in_digits() -> None:
    identities = [("1", 11), ("11", 1), ("", 111), ("111", 0)]
    assert len(change_ids(changes(*identities)).unique()) == len(identities)
