"""Lookup finds every row of the keys and no other, whatever the layout of the files."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, WriterProperties, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.delta import create_table, transaction
from datazone_dagster.delta.transaction_log import Snapshot, read_snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from datazone_dagster.rows import key_columns, table_maintenance
from datazone_dagster.rows import locate as locate_module
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.engines import MergeOnReadEngine
from datazone_dagster.rows.kept_indexes import FILE_BYTES, KeptIndexes, RowGroup
from datazone_dagster.rows.key_columns import KeyColumns
from datazone_dagster.rows.key_index import ROW_BYTES
from datazone_dagster.rows.locate import (
    CHANGE_ROW,
    FILE,
    POSITION,
    existing_rows,
    locate,
    positions,
)
from datazone_dagster.rows.maintenance_plan import THOROUGH
from datazone_dagster.rows.table_maintenance import maintain
from datazone_dagster.testing import at_point
from tests.examples import examples
from tests.rows.engine_conformance import SCHEMA, batch_of, version
from tests.tables import table_at

KEYS = st.sampled_from(["", "a", "b", "ba", "k" * 70, "k" * 70 + "z", "\ue000", "\U0001f600"])
ROWS = st.lists(st.tuples(KEYS, st.integers(1, 9)), min_size=1, max_size=12)


def rows_of(records: list[tuple[str, int]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"value": at, "part": "ab"[at % 2], KEY: key, VERSION: version(number)}
            for at, (key, number) in enumerate(records)
        ],
        schema=SCHEMA,
    )


def by_brute_force(snapshot: Snapshot, keys: list[str]) -> set[tuple[int, int, int, str]]:
    found = set()
    for number, file in enumerate(snapshot.files):
        with snapshot.store.open(file.path) as handle:
            rows = pq.read_table(handle, columns=[KEY, VERSION]).to_pylist()
        deleted = snapshot.deleted_in(file)
        found |= {
            (number, at, keys.index(row[KEY]), row[VERSION])
            for at, row in enumerate(rows)
            if row[KEY] in keys and at not in deleted
        }
    return found


def as_set(found: pa.Table) -> set[tuple[Any, ...]]:
    names = [name for name in (FILE, POSITION, CHANGE_ROW, VERSION) if name in found.column_names]
    return {tuple(row.values()) for row in found.select(names).to_pylist()}


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.lists(ROWS, min_size=1, max_size=4),
    keys=st.sets(KEYS, min_size=1).map(list),
    group_rows=st.integers(1, 5),
    partitioned=st.booleans(),
    hide=st.sets(KEYS),
    changed_to_numbers=st.lists(st.integers(0, 10), min_size=8, max_size=8),
    many_files=st.sampled_from([0, locate_module.MANY_FILES]),
    at_once_rows=st.sampled_from([0, 2, locate_module.AT_ONCE_ROWS]),
    index_bytes=st.sampled_from([0, 3000, 1 << 20]),
)
def test_the_rows_found_are_those_of_a_full_read(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[str, int]]],
    keys: list[str],
    group_rows: int,
    partitioned: bool,
    hide: set[str],
    changed_to_numbers: list[int],
    many_files: int,
    at_once_rows: int,
    index_bytes: int,
) -> None:
    root = str(tmp_path_factory.mktemp("table") / "t")
    table = DeltaTable.create(root, SCHEMA, partition_by=["part"] if partitioned else None)
    small = WriterProperties(max_row_group_size=group_rows, write_batch_size=group_rows)
    for records in files:
        write_deltalake(table, rows_of(records), mode="append", writer_properties=small)
    if hide:
        target = MergeTarget("t", table_at(table), SCHEMA)
        keyed_changes = [(key, 99, ()) for key in hide]
        MergeOnReadEngine().merge(target, batch_of(keyed_changes), transaction("t", 1))
        table.update_incremental()
    snapshot = read_snapshot(table, {})
    expected = by_brute_force(snapshot, keys)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(locate_module, "MANY_FILES", many_files)
        patched.setattr(locate_module, "AT_ONCE_ROWS", at_once_rows)
        indexes = KeptIndexes(index_bytes)
        patched.setattr(locate_module, "KEPT_INDEXES", indexes)
        for _ in range(3):  # without an index, while it is made, with it
            found = locate(snapshot, pa.chunked_array([keys]))
            assert as_set(found) == expected
            assert indexes.size_bytes <= index_bytes
        changed_to = [version(number) for number in changed_to_numbers[: len(keys)]]
        where_it_matters = as_set(
            locate(snapshot, pa.chunked_array([keys]), changed_to=pa.chunked_array([changed_to]))
        )
    assert {row[:3] for row in where_it_matters} == {row[:3] for row in expected}
    for file, at, key, found_version in where_it_matters:
        assert found_version is None or (file, at, key, found_version) in expected
        if found_version is None:
            assert next(row for row in expected if row[:2] == (file, at))[3] < changed_to[key]
    rows = existing_rows(snapshot, found, SCHEMA).to_pylist()
    assert {(row[FILE], row[POSITION], row[KEY], row[VERSION]) for row in rows} == {
        (file, at, keys[key], row_version) for file, at, key, row_version in expected
    }
    assert all(row["part"] in ("a", "b") for row in rows)
    bitmaps = positions(found, snapshot.files)
    assert sum(map(len, bitmaps.values())) == len(expected)


def columns_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each column that is read of a row group."""
    read: list[str] = []
    column = KeyColumns.column

    def recorded(self: KeyColumns, group: RowGroup, name: str) -> Any:
        read.append(name)
        return column(self, group, name)

    monkeypatch.setattr(KeyColumns, "column", recorded)
    return read


@pytest.mark.parametrize("many_files", [0, locate_module.MANY_FILES])
def test_files_that_bounds_rule_out_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many_files: int
) -> None:
    monkeypatch.setattr(locate_module, "MANY_FILES", many_files)
    table = DeltaTable.create(str(tmp_path), SCHEMA)
    groups = WriterProperties(max_row_group_size=10, write_batch_size=10)
    for start in (0, 100, 200):
        records = [(f"k{start + n:04d}", 1) for n in range(50)]
        write_deltalake(table, rows_of(records), mode="append", writer_properties=groups)
    read = columns_read(monkeypatch)
    snapshot = read_snapshot(table, {})
    keys = pa.chunked_array([["k0112", "k0113", "k0999", "x"]])

    def versions(*numbers: int) -> list[str | None]:
        changed_to = pa.chunked_array([[version(number) for number in numbers]])
        found: list[str | None] = locate(snapshot, keys, changed_to=changed_to)[VERSION].to_pylist()
        return found

    assert versions(2, 2, 1, 1) == [None] * 2
    assert read == [KEY], "one row group, and no version, since those of its keys are lower"
    read.clear()
    assert versions(2, 1, 2, 2) == [version(1)] * 2
    assert read == [VERSION], "the key column of a small row group is read once"


def test_keys_are_read_twice_and_no_more_as_long_as_the_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate_module, "AT_ONCE_ROWS", 50)
    table = DeltaTable.create(str(tmp_path), SCHEMA)
    write_deltalake(table, rows_of([(f"k{n}", 1) for n in range(100)]), mode="append")
    write_deltalake(table, rows_of([(f"k{n}", 2) for n in range(90, 110)]), mode="append")
    snapshot = read_snapshot(table, {})
    read = columns_read(monkeypatch)

    def found() -> int:
        read.clear()
        keys, newer = (pa.chunked_array([of]) for of in (["k95", "k99", "x"], [version(3)] * 3))
        return len(locate(snapshot, keys, changed_to=newer))

    assert (found(), read) == (4, [KEY, KEY]), "the small file gets its index at once"
    assert (found(), read) == (4, [KEY])
    assert (found(), read) == (4, [])
    large = next(file for file in snapshot.files if file.num_records == 100)
    rows = pq.read_table(tmp_path / large.path)
    pq.write_table(rows.slice(96), tmp_path / large.path)
    assert (found(), read) == (3, [KEY]), "another file of the same name"


def test_many_keys_and_many_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_columns, "READ_ROWS", 7)
    monkeypatch.setattr(locate_module, "LOOKED_UP_ROWS", 50)
    monkeypatch.setattr(locate_module, "AT_ONCE_ROWS", 0)
    table = DeltaTable.create(str(tmp_path), SCHEMA)
    write_deltalake(table, rows_of([(f"k{n}", 1) for n in range(1000)]), mode="append")
    snapshot = read_snapshot(table, {})
    keys = [f"k{n}" for n in range(0, 2000, 3)]
    for _ in range(3):
        found = locate(snapshot, pa.chunked_array([keys]))
        assert as_set(found) == by_brute_force(snapshot, keys)


@pytest.mark.parametrize("overtaken", [False, True])
def test_an_index_follows_the_rows_that_maintenance_rewrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken: bool
) -> None:
    table = create_table(str(tmp_path / "t"), {}, KIND, SCHEMA)
    write_deltalake(table, rows_of([(f"k{n}", 1) for n in range(100)]), mode="append")
    write_deltalake(table, rows_of([(f"k{n}", 2) for n in range(90, 110)]), mode="append")
    indexes = KeptIndexes(1 << 20)
    for module in (locate_module, table_maintenance):
        monkeypatch.setattr(module, "KEPT_INDEXES", indexes)
    read = columns_read(monkeypatch)

    def found() -> int:
        read.clear()
        snapshot = read_snapshot(DeltaTable(tmp_path / "t"), {})
        keys, newer = (pa.chunked_array([of]) for of in (["k95", "k99", "x"], [version(3)] * 3))
        rows = locate(snapshot, keys, changed_to=newer)
        assert as_set(rows.drop([VERSION])) == {
            row[:3] for row in by_brute_force(snapshot, keys.to_pylist())
        }
        return len(rows)

    assert (found(), read) == (4, [KEY, KEY])

    def overtake() -> None:
        if overtaken:
            DeltaTable(tmp_path / "t").delete()

    with at_point(crash_points.AFTER_DATA_FILES, overtake):
        maintain(Layout(str(tmp_path)), "t", THOROUGH, datetime.now(timezone.utc))
    assert (found(), read) == (0 if overtaken else 4, [])
    assert indexes.size_bytes == (0 if overtaken else FILE_BYTES + 120 * ROW_BYTES)
