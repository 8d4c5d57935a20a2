"""New data files: their statistics are true, and delta-rs reads the same rows back."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap64

from datazone_dagster.delta.commit import FileActions, commit_files
from datazone_dagster.delta.data_file import (
    above_prefix,
    by_partition,
    wide_bounds,
    write_data_file,
)
from datazone_dagster.delta.read_file import live_batches, rows_at
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import read_snapshot
from tests.examples import examples

UTC = timezone.utc
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int8(), st.integers(-128, 127)),
    "number": (pa.float64(), st.floats(allow_infinity=True, allow_nan=True)),
    "exact": (
        pa.decimal128(38, 9),
        st.decimals(-(10**28), 10**28, places=9, allow_nan=False),
    ),
    "yes": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates(date(1970, 1, 1))),
    "at": (pa.timestamp("us", tz="UTC"), TIMES.map(lambda time: time.replace(tzinfo=UTC))),
    "text": (
        pa.string(),
        st.text(max_size=5)
        | st.text("a\ud7ff\uffff\U0010ffff\U0001f600", min_size=30, max_size=60),
    ),
    "raw": (pa.binary(), st.binary(max_size=3)),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(0, 5), max_size=3)),
    "nested": (
        pa.struct([("x", pa.int64()), ("t", pa.string())]),
        st.fixed_dictionaries({"x": st.integers(0, 9), "t": st.text(max_size=3)}),
    ),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in VALUES.items()])
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in VALUES.items()}),
    min_size=1,
    max_size=6,
)


def utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


@given(st.text(max_size=40), st.text(max_size=4))
def test_the_bound_above_a_prefix_is_above_all_that_begin_with_it(prefix: str, rest: str) -> None:
    bound = above_prefix(prefix)
    if bound is None:
        assert all(char in "\ud7ff\uffff\U0010ffff" for char in prefix)
    else:
        assert bound.encode() > (prefix + rest).encode()
        assert utf16(bound) > utf16(prefix + rest)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(records=ROWS)
def test_statistics_are_bounds_of_every_value(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    store = TableStore(f"file://{tmp_path_factory.mktemp('table')}/", {})
    rows = pa.Table.from_pylist(records, schema=SCHEMA)
    add = write_data_file(store, SCHEMA, {}, rows.to_batches())
    assert add is not None
    stats = json.loads(add["stats"], parse_float=Decimal)
    assert stats["numRecords"] == len(records)
    assert stats["tightBounds"] is True
    for name in SCHEMA.names:
        column = [record[name] for record in records]
        if name in stats["nullCount"] and name != "nested":
            assert stats["nullCount"][name] == column.count(None)
        for value in column:
            low, high = stats["minValues"].get(name), stats["maxValues"].get(name)
            if value is None or name in ("list", "nested", "raw"):
                continue
            if isinstance(value, float) and value != value:  # NaN
                assert low is None
                assert high is None
            for bound, side in ((low, -1), (high, 1)):
                if bound is not None:
                    assert_bound(value, bound, side)
    nested = [record["nested"] for record in records if record["nested"] is not None]
    if nested:
        assert stats["minValues"]["nested"]["x"] == min(one["x"] for one in nested)
        assert stats["nullCount"]["nested"]["x"] == len(records) - len(nested)


def assert_bound(value: Any, bound: Any, side: int) -> None:
    if isinstance(value, datetime):
        other: Any = datetime.fromisoformat(bound.replace("Z", "+00:00"))
    elif isinstance(value, date):
        other = date.fromisoformat(bound)
    elif isinstance(value, str):
        assert len(bound) <= 32
        other, value = bound.encode(), value.encode()
    elif isinstance(value, float):
        other = float(bound)
    else:
        other = bound
    assert other <= value if side < 0 else other >= value


PARTITIONS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["plain", "a b/%=:é'\"\\\n#?{}~+&", "", None, "__HIVE"]),
    (pa.int64(), [-5, 0, None]),
    (pa.float64(), [1.0, 0.1, 2.5e30]),
    (pa.bool_(), [True, False, None]),
    (pa.date32(), [date(2020, 1, 2), date(1969, 12, 31)]),
    (pa.timestamp("us", tz="UTC"), [datetime(2020, 1, 2, 3, 4, 5, 123456, UTC), None]),
    (pa.decimal128(10, 2), [Decimal("12.50"), Decimal("0.00"), Decimal("7")]),
]


@pytest.mark.parametrize(("kind", "values"), PARTITIONS, ids=lambda one: str(one)[:12])
def test_partition_values_are_those_that_delta_rs_writes_and_reads(
    tmp_path: Path, kind: pa.DataType, values: list[Any]
) -> None:
    schema = pa.schema([("n", pa.int64()), ("p", kind)])
    rows = pa.table([pa.array(range(len(values))), pa.array(values, kind)], schema=schema)
    theirs, ours = str(tmp_path / "theirs"), str(tmp_path / "ours")
    write_deltalake(theirs, rows, partition_by=["p"])
    table = DeltaTable.create(ours, schema, partition_by=["p"])
    snapshot = read_snapshot(table, {})
    adds = [
        write_data_file(snapshot.store, schema, spelled, of_partition.to_batches())
        for spelled, of_partition in by_partition(rows, ("p",))
    ]
    commit_files(
        snapshot,
        FileActions([add for add in adds if add], []),
        operation="WRITE",
        parameters={},
        metrics={},
    )
    table.update_incremental()
    assert read(table) == [
        {"n": n, "p": None if value == "" else value} for n, value in enumerate(values)
    ]
    if kind != pa.float64():  # delta-rs spells 1.0 as 1
        expected = {value or None for value in spellings(DeltaTable(theirs))}
        assert set(spellings(table)) == expected
    snapshot = read_snapshot(table, {})
    batches = [
        batch
        for file in snapshot.files
        for batch in live_batches(snapshot, file, schema, snapshot.deleted_in(file))
    ]
    again = pa.Table.from_batches(batches, schema).sort_by("n").to_pylist()
    assert again == read(table)


def spellings(table: DeltaTable) -> list[str | None]:
    return [file.partition_values["p"] for file in read_snapshot(table, {}).files]


def read(table: DeltaTable) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.table(table.scan()).to_pylist()
    return sorted(rows, key=lambda row: row["n"])


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(records=ROWS, data=st.data())
def test_rows_are_read_back_completely_and_by_position(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], data: st.DataObject
) -> None:
    root = str(tmp_path_factory.mktemp("table") / "t")
    table = DeltaTable.create(root, SCHEMA)
    snapshot = read_snapshot(table, {})
    rows = pa.Table.from_pylist(records, schema=SCHEMA)
    add = write_data_file(snapshot.store, SCHEMA, {}, rows.to_batches(), plain_columns=("text",))
    assert add is not None
    commit_files(snapshot, FileActions([add], []), operation="W", parameters={}, metrics={})
    table.update_incremental()
    scanned = pa.table(table.scan()).cast(SCHEMA)
    assert repr(scanned.to_pylist()) == repr(rows.to_pylist())
    snapshot = read_snapshot(table, {})
    (file,) = snapshot.files
    positions = BitMap64(data.draw(st.sets(st.integers(0, len(records) - 1))))
    at = rows_at(snapshot, file, SCHEMA, positions)
    assert repr(at.to_pylist()) == repr([rows.to_pylist()[position] for position in positions])
    others = pa.Table.from_batches(live_batches(snapshot, file, SCHEMA, positions), SCHEMA)
    expected = [row for position, row in enumerate(rows.to_pylist()) if position not in positions]
    assert repr(others.to_pylist()) == repr(expected)


@pytest.mark.parametrize("partition_by", [[], ["at"]])
def test_the_first_and_the_last_possible_times(tmp_path: Path, partition_by: list[str]) -> None:
    """Year 1 and the end of 9999: many systems write them for "none" and "forever"."""
    times = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    rows = pa.table({"at": pa.array(times, pa.timestamp("us", tz="UTC")), "n": [1, 2]})
    table = DeltaTable.create(str(tmp_path), rows.schema, partition_by=partition_by)
    snapshot = read_snapshot(table, {})
    adds = [
        write_data_file(snapshot.store, rows.schema, values, of_partition.to_batches())
        for values, of_partition in by_partition(rows, tuple(partition_by))
    ]
    written = FileActions([add for add in adds if add is not None], [])
    commit_files(snapshot, written, operation="WRITE", parameters={}, metrics={})
    if not partition_by:
        (stats,) = (json.loads(add["stats"]) for add in written.adds)
        assert stats["minValues"]["at"] == "0001-01-01T00:00:00.000Z"
        assert "at" not in stats["maxValues"]
    table.update_incremental()
    read = pa.table(table.scan()).sort_by("n")
    assert read["at"].cast(rows.schema.field("at").type).to_pylist() == times
    found = (
        QueryBuilder()
        .register("t", table)
        .execute("select n from t where at < timestamp '1970-01-01T00:00:00Z'")
    )
    assert pa.table(found.read_all())["n"].to_pylist() == [1]


@pytest.mark.parametrize("microseconds", [2**63 - 1, -(2**63) + 1, 253_402_300_800_000_000])
def test_times_beyond_python_have_no_bounds(tmp_path: Path, microseconds: int) -> None:
    """Milliseconds taken for seconds produce such times: no reason to fail permanently."""
    kind = pa.timestamp("us", tz="UTC")
    rows = pa.table({"at": pa.array([microseconds, 0]).cast(kind), "n": [1, 2]})
    table = DeltaTable.create(str(tmp_path), rows.schema)
    snapshot = read_snapshot(table, {})
    add = write_data_file(snapshot.store, rows.schema, {}, rows.to_batches())
    assert add is not None
    stats = json.loads(add["stats"])
    assert "at" not in stats["minValues"]
    assert "at" not in stats["maxValues"]
    assert stats["nullCount"]["at"] == 0
    commit_files(snapshot, FileActions([add], []), operation="WRITE", parameters={}, metrics={})
    table.update_incremental()
    read = pa.table(table.scan()).sort_by("n")
    assert read["at"].cast(pa.int64()).to_pylist() == [microseconds, 0]


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    store = TableStore(f"file://{tmp_path}/", {})
    assert write_data_file(store, SCHEMA, {}, SCHEMA.empty_table().to_batches()) is None
    assert list(tmp_path.iterdir()) == []
    assert list(by_partition(SCHEMA.empty_table(), ("day",))) == []


def test_small_batches_share_a_row_group_and_large_ones_do_not(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string())])
    small = [pa.record_batch([["x"] * 3], schema=schema)] * 1000
    large = [pa.record_batch([["y" * 40_000] * 1000], schema=schema)] * 3
    store = TableStore(f"file://{tmp_path}/", {})
    add = write_data_file(store, schema, {}, [*small, *large])
    assert add is not None
    footer = pq.ParquetFile(tmp_path / add["path"]).metadata
    groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    assert groups == [4000, 1000, 1000]
    assert json.loads(add["stats"])["numRecords"] == 6000


def test_only_columns_that_repeat_get_a_dictionary(tmp_path: Path) -> None:
    """A dictionary of distinct values makes files larger, and slower to read and to write."""
    count = 5000
    rows = pa.table(
        {
            "each": [f"key {n}" for n in range(count)],
            "few": [f"city {n % 7}" for n in range(count)],
            "rare": [n if n % 100 == 0 else None for n in range(count)],
            "none": pa.nulls(count, pa.int64()),
            "list": [[n % 3] for n in range(count)],
            "map": pa.array(
                [[("k", [{"x": "y"}])]] * count,
                pa.map_(pa.string(), pa.list_(pa.struct([("x", pa.string())]))),
            ),
            "known": ["x"] * count,
        }
    )
    store = TableStore(f"file://{tmp_path}/", {})
    batches = rows.to_batches(1000)
    add = write_data_file(store, rows.schema, {}, batches, plain_columns=("known",))
    assert add is not None
    group = pq.read_metadata(tmp_path / add["path"]).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    encoded = {column.path_in_schema: "RLE_DICTIONARY" in column.encodings for column in columns}
    assert encoded == {
        "each": False,
        "few": True,
        "rare": False,
        "none": False,
        "list.list.element": True,
        "map.key_value.key": True,
        "map.key_value.value.list.element.x": True,
        "known": False,
    }
    assert pq.read_table(tmp_path / add["path"]).cast(rows.schema).equals(rows)


def test_wide_bounds_preserve_every_digit() -> None:
    exact = '{"numRecords":1,"minValues":{"n":12345678901234567890.123456789},"tightBounds":true}'
    wide = wide_bounds(exact, 7)
    assert "12345678901234567890.123456789" in wide
    assert json.loads(wide)["numRecords"] == 7
    assert json.loads(wide)["tightBounds"] is False
    assert json.loads(wide_bounds(None, 3)) == {"numRecords": 3, "tightBounds": False}
