"""Partitions: a run replaces exactly its own rows, whatever the type of the column."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import pytest

from datazone_dagster.errors import DefinitionError, ResultError, SchemaChangeError
from datazone_dagster.model.asset_write import asset_write
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.partition_slice import PartitionSlice, PartitionValue, partition_slice
from datazone_dagster.pipeline import open_dataset
from datazone_dagster.pipeline.table_calls import load_table, write_table
from datazone_dagster.process import crash_points
from datazone_dagster.testing import at_point
from tests.asset_tables.writing import NAME, put, rows

UTC = timezone.utc


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lake"))


def day(*days: int, zone: Any = UTC) -> PartitionSlice:
    """The slice of days of January 2024."""
    return partition_slice(
        ["at"], [(f"2024-01-{one:02d}", [value(one, zone=zone)]) for one in days]
    )


def value(one: int, *, zone: Any = UTC) -> PartitionValue:
    start = datetime(2024, 1, one, tzinfo=zone)
    return PartitionValue(f"2024-01-{one:02d}", start, start + timedelta(days=1))


def named(*keys: str) -> PartitionSlice:
    return partition_slice(["at"], [(key, [PartitionValue(key)]) for key in keys])


def values_of(kind: pa.DataType, one: int) -> pa.Array:
    """First and last value of a day in a column of this type."""
    if pa.types.is_date(kind):
        return pa.array([date(2024, 1, one)] * 2, kind)
    if pa.types.is_timestamp(kind):
        start = datetime(2024, 1, one, tzinfo=UTC if kind.tz else None)
        return pa.array([start, start + timedelta(days=1, microseconds=-1)], kind)
    if pa.types.is_integer(kind):
        return pa.array([one] * 2, kind)
    return pa.array([f"2024-01-{one:02d}"] * 2, kind)


@pytest.mark.parametrize(
    "kind",
    [pa.date32(), pa.timestamp("us", "UTC"), pa.timestamp("ms"), pa.string(), pa.large_string()],
    ids=str,
)
def test_a_run_replaces_its_partition_and_no_other(layout: Layout, kind: pa.DataType) -> None:
    for one in (1, 2, 3):
        put(
            layout,
            pa.table({"at": values_of(kind, one), "n": [one, one]}),
            part=day(one),
            partition_expr="at",
        )
    written = put(
        layout,
        pa.table({"at": values_of(kind, 2), "n": [20, 21]}),
        part=day(2),
        partition_expr="at",
    )
    assert sorted(row["n"] for row in rows(layout)) == [1, 1, 3, 3, 20, 21]
    assert (written.rows_removed, written.rows_written, written.rows) == (2, 2, 6)
    empty = put(layout, pl.DataFrame(), part=day(1, 3), partition_expr="at")
    assert sorted(row["n"] for row in rows(layout)) == [20, 21]
    assert empty.rows_removed == 4
    folders = {path.name for path in Path(layout.table(NAME)).glob("at=*")}
    assert bool(folders) == (not pa.types.is_timestamp(kind))


def test_static_partitions_of_every_type(layout: Layout) -> None:
    for key, kind in (("7", pa.int64()), ("true", pa.bool_()), ("it's; --", pa.string())):
        place = Layout(f"{layout.uri}-{kind}")
        column = pa.array([key]).cast(kind)
        for _ in range(2):
            put(place, pa.table({"at": column, "n": [1]}), part=named(key), partition_expr="at")
        assert len(rows(place)) == 1
        loaded = load_table(place, NAME, pa.Table, parameter="x", part=named(key))
        assert isinstance(loaded, pa.Table)
        assert loaded.num_rows == 1
    with pytest.raises(DefinitionError, match="'x' is no value of the column 'at', which is int64"):
        put(layout, pa.table({"at": [1]}), part=named("x"), partition_expr="at")


def test_a_zone_of_its_own_moves_the_windows(layout: Layout) -> None:
    zone = ZoneInfo("America/New_York")
    inside = datetime(2024, 1, 2, 4, 59, tzinfo=UTC)
    put(layout, pa.table({"at": pa.array([inside])}), part=day(1, zone=zone), partition_expr="at")
    with pytest.raises(ResultError, match="in none of the partitions"):
        put(
            layout,
            pa.table({"at": pa.array([inside])}),
            part=day(2, zone=zone),
            partition_expr="at",
        )


@pytest.mark.parametrize("mode", [{}, {"mode": "append"}, {"mode": "merge", "key": "n"}])
def test_a_row_of_another_partition_is_refused(layout: Layout, mode: dict[str, Any]) -> None:
    put(layout, pa.table({"at": ["2024-01-01"], "n": [1]}), part=day(1), partition_expr="at")
    for other in ("2024-01-01", None):
        table = pa.table({"at": pa.array(["2024-01-02", other]), "n": [1, 2]})
        with pytest.raises(ResultError, match="none of the partitions of this run"):
            put(layout, table, part=day(2), partition_expr="at", **mode)
    assert len(rows(layout)) == 1


def test_partitions_shorter_than_the_column_can_tell_are_refused(layout: Layout) -> None:
    start = datetime(2024, 1, 1, 5, tzinfo=UTC)
    hour = PartitionValue("2024-01-01-05:00", start, start + timedelta(hours=1))
    part = partition_slice(["at"], [(hour.key, [hour])])
    with pytest.raises(DefinitionError, match="shorter than a day"):
        put(layout, pa.table({"at": [date(2024, 1, 1)]}), part=part, partition_expr="at")
    put(layout, pa.table({"at": [start], "n": [1]}), part=part, partition_expr="at")
    put(layout, pa.table({"at": [start], "n": [2]}), part=part, partition_expr="at")
    assert [row["n"] for row in rows(layout)] == [2]


def test_columns_that_are_missing_or_change_their_type(layout: Layout) -> None:
    with pytest.raises(ResultError, match="partition_expr names the column 'at'"):
        put(layout, pa.table({"n": [1]}), part=day(1), partition_expr="at")
    put(layout, pa.table({"at": ["2024-01-01"], "n": [1]}), part=day(1), partition_expr="at")
    with pytest.raises(SchemaChangeError, match="'at' is string in the table and date32"):
        put(layout, pa.table({"at": [date(2024, 1, 1)]}), part=day(1), partition_expr="at")
    assert len(rows(layout)) == 1


def test_new_columns_by_one_partition(layout: Layout) -> None:
    put(layout, pa.table({"at": ["2024-01-01"], "n": [1]}), part=day(1), partition_expr="at")
    new = pa.table({"at": ["2024-01-02"], "n": pa.array([2**40]), "more": ["x"]})
    put(layout, new, part=day(2), partition_expr="at")
    assert rows(layout) == [
        {"at": "2024-01-01", "n": 1, "more": None},
        {"at": "2024-01-02", "n": 2**40, "more": "x"},
    ]


DIMENSIONS = ("day", "region")


def multi(*pairs: tuple[int, str]) -> PartitionSlice:
    return partition_slice(
        ["at", "region"],
        [(f"{one}|{region}", [value(one), PartitionValue(region)]) for one, region in pairs],
    )


def test_partitions_with_two_dimensions_are_no_product(layout: Layout) -> None:
    write = asset_write(
        {"partition_expr": {"day": "at", "region": "region"}}, asset=NAME, dimensions=DIMENSIONS
    )

    def table(*pairs: tuple[int, str]) -> pa.Table:
        return pa.table(
            {
                "at": [date(2024, 1, one) for one, _ in pairs],
                "region": [region for _, region in pairs],
            }
        )

    every = [(one, region) for one in (1, 2) for region in ("eu", "us")]
    write_table(layout, NAME, write, table(*every), part=multi(*every))
    diagonal = [(1, "eu"), (2, "us")]
    written = write_table(layout, NAME, write, pl.DataFrame(), part=multi(*diagonal))
    assert written.rows_removed == 2
    assert {(row["at"].day, row["region"]) for row in rows(layout)} == {(1, "us"), (2, "eu")}
    found = load_table(layout, NAME, pl.LazyFrame, parameter="x", part=multi((1, "us"), (2, "us")))
    assert isinstance(found, pl.LazyFrame)
    assert found.collect()["region"].to_list() == ["us"]


def test_several_partitions_of_a_run_as_a_mapping(layout: Layout) -> None:
    def one(number: int) -> pa.Table:
        return pa.table({"at": [f"2024-01-{number:02d}"], "n": [number]})

    result = {"2024-01-01": one(1), "2024-01-02": one(2)}
    put(layout, result, part=day(1, 2), partition_expr="at")
    assert [row["n"] for row in rows(layout)] == [1, 2]
    with pytest.raises(ResultError, match="'2024-01-03', which is no partition of this run"):
        put(layout, {"2024-01-03": one(3)}, part=day(1, 2), partition_expr="at")


def test_two_partitions_at_a_time(layout: Layout) -> None:
    def write(number: int) -> None:
        table = pa.table({"at": [f"2024-01-{number:02d}"], "n": [number], f"c{number}": ["x"]})
        put(layout, table, part=day(number), partition_expr="at")

    write(1)
    with at_point(crash_points.BEFORE_LOG_ENTRY, lambda: write(2)):
        write(3)
    assert [row["n"] for row in rows(layout)] == [1, 2, 3]
    assert open_dataset(layout, NAME).schema.names == ["at", "n", "c1", "c2", "c3"]


@pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.string(), pa.date32()], ids=str)
def test_reads_of_partitions_leave_hidden_rows_out(layout: Layout, kind: pa.DataType) -> None:
    options: dict[str, Any] = {
        "partition_expr": "at",
        "mode": "merge",
        "key": "n",
        "deletion_vectors": True,
    }
    for one in (1, 2):
        numbers = pa.array(range(one, 200, 2))
        table = pa.table(
            {"at": values_of(kind, one).take(pa.array([0] * len(numbers))), "n": numbers}
        )
        put(layout, table, part=day(one), **options)
    moved = pa.table({"at": values_of(kind, 2)[:1], "n": [1]})
    put(layout, moved, part=day(2), **options)
    assert sum(file.deleted for file in open_dataset(layout, NAME)._table.at.files) == 1
    for wanted in (pa.Table, pl.DataFrame, pl.LazyFrame):
        for one, expected in ((1, [*range(3, 200, 2)]), (2, [1, *range(2, 200, 2)])):
            found: Any = load_table(
                layout, NAME, wanted, parameter="x", part=day(one), columns=["n"]
            )
            table = pl.DataFrame(found.collect() if isinstance(found, pl.LazyFrame) else found)
            assert table.columns == ["n"]
            assert sorted(table["n"].to_list()) == expected
    by_key = load_table(
        layout,
        NAME,
        dict[str, pa.Table],
        parameter="x",
        part=day(1, 2),
        by_key=[("a", day(1)), ("b", day(2))],
    )
    assert isinstance(by_key, dict)
    assert {key: one.num_rows for key, one in by_key.items()} == {"a": 99, "b": 100}


def test_other_folders_than_those_of_the_partitions(layout: Layout) -> None:
    table = pa.table({"at": [datetime(2024, 1, 1, tzinfo=UTC)] * 2, "region": ["eu", "us"]})
    put(layout, table, part=day(1), partition_expr="at", partition_by=["region"])
    written = put(layout, table, part=day(1), partition_expr="at", partition_by=["at"])
    assert len(list(Path(layout.table(NAME)).glob("region=*"))) == 2
    assert "no effect" in written.notes[0]
    with pytest.raises(ResultError, match="names every column"):
        put(Layout(f"{layout.uri}-2"), pa.table({"n": [1]}), partition_by=["n"])
    with pytest.raises(ResultError, match="empty text"):
        put(
            layout,
            pa.table({"at": [table["at"][0]], "region": [""]}),
            part=day(1),
            partition_expr="at",
        )
