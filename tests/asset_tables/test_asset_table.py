"""Tables of assets: what may be returned, the modes, the schema, empty results, other tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped,unused-ignore]  # has no types
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.delta import table_state
from datazone_dagster.delta.commit import LostRaceError
from datazone_dagster.delta.table import created
from datazone_dagster.delta.table_state import forget
from datazone_dagster.delta.transaction_log import newest_snapshot
from datazone_dagster.errors import (
    ConcurrentWriterError,
    DefinitionError,
    OutOfMemoryError,
    ResultError,
    SchemaChangeError,
    StorageError,
    UnrecognisedTableError,
)
from datazone_dagster.model.layout import ASSET_KIND, DATASET_KIND, Layout, asset_table_name
from datazone_dagster.pipeline import open_dataset
from datazone_dagster.pipeline.table_calls import asset_tables, maintain_asset_table
from datazone_dagster.rows import row_changes
from datazone_dagster.rows.engines import AutoEngine
from datazone_dagster.tables import asset_table, staged_rows
from datazone_dagster.tables.key_table import KeyTable
from tests.asset_tables.writing import NAME, people, put, rows

TWO = people((1, "a"), (2, "b"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lake"))


@pytest.fixture
def files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of any size are written as results that are larger than memory are."""
    monkeypatch.setattr(staged_rows, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(staged_rows, "FILE_BYTES", 1)
    monkeypatch.setattr(staged_rows, "BUFFERED_BYTES", 1)


RESULTS: dict[str, Callable[[], object]] = {
    "table": lambda: TWO,
    "reader": TWO.to_reader,
    "batch": lambda: TWO.to_batches()[0],
    "iterator of batches": lambda: iter(TWO.to_batches(1)),
    "list of tables": lambda: [TWO.slice(0, 1), TWO.slice(1)],
    "polars": lambda: pl.DataFrame(TWO),
    "lazy": lambda: pl.LazyFrame(TWO),
    "pandas": TWO.to_pandas,
    "named index": lambda: TWO.to_pandas().set_index("id"),
    "duckdb": lambda: duckdb.from_arrow(TWO),
    "iterator of frames": lambda: map(pl.DataFrame, [TWO.slice(0, 1), TWO.slice(1)]),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_what_an_asset_may_return(layout: Layout, kind: str) -> None:
    written = put(layout, RESULTS[kind]())
    assert rows(layout) == TWO.to_pylist()
    assert (written.rows, written.rows_written, written.columns_before) == (2, 2, None)
    assert written.columns == (("id", "int64"), ("name", "string"))


@pytest.mark.parametrize("wrong", [None, 5, "text", {"id": 1}, [{"id": 1}]])
def test_what_it_may_not_return(layout: Layout, wrong: object) -> None:
    with pytest.raises(ResultError, match="customers"):
        put(layout, wrong)
    assert not Path(layout.uri).exists()


def test_batches_with_other_columns_are_refused(layout: Layout) -> None:
    put(layout, TWO)
    other = pa.table({"id": [3], "name": [4]})
    with pytest.raises(ResultError, match=r"'name' \(int64\), 'name' \(string\)"):
        put(layout, iter([TWO, other]))
    assert rows(layout) == TWO.to_pylist()


def test_an_index_without_a_name_is_left_out_and_named(layout: Layout) -> None:
    frame = TWO.to_pandas()
    assert put(layout, frame.loc[[1]]).notes == ()
    written = put(layout, frame.set_index(pd.Index(["x", "y"])))
    assert rows(layout) == TWO.to_pylist()
    assert "index" in written.notes[0]


def test_overwrite_replaces_all_rows(layout: Layout) -> None:
    put(layout, TWO)
    written = put(layout, people((3, "c")))
    assert rows(layout) == [{"id": 3, "name": "c"}]
    assert (written.rows_written, written.rows_removed) == (1, 2)
    assert open_dataset(layout, NAME, 1).arrow().num_rows == 2


def test_large_tables_get_no_deletion_vectors_by_an_overwrite(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asset_table, "engine_for", lambda _: AutoEngine(rewrite_bytes=1))
    put(layout, TWO)
    put(layout, TWO)
    assert "deletionVectors" not in (
        DeltaTable(layout.table(NAME)).protocol().writer_features or ()
    )


@pytest.mark.usefixtures("files_only")
def test_a_result_that_does_not_fit_in_memory_is_several_files(layout: Layout) -> None:
    written = put(layout, iter(TWO.to_batches(1)))
    assert (written.files, rows(layout)) == (2, TWO.to_pylist())


def test_code_that_fails_halfway_changes_nothing(layout: Layout, files_only: None) -> None:
    put(layout, TWO)
    files = set(Path(layout.table(NAME)).glob("*.parquet"))

    def failing() -> Iterator[pa.Table]:
        yield people((3, "c"))
        yield people((4, "d"))
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        put(layout, failing())
    assert rows(layout) == TWO.to_pylist()
    assert len(set(Path(layout.table(NAME)).glob("*.parquet")) - files) <= 1  # the open one


@pytest.mark.parametrize("large", [False, True])
def test_a_first_write_that_fails_leaves_no_table(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(staged_rows, "IN_MEMORY_BYTES", -1)

    def failing() -> Iterator[pa.Table]:
        yield people((3, "c"))
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        put(layout, failing(), partition_by="name")
    with pytest.raises(ResultError, match="'id' is null"):
        put(layout, pa.table({"id": pa.array([None], pa.int64())}), mode="merge", key="id")
    assert asset_tables(layout) == []
    text = pa.table({"id": ["x", "y"], "tags": [[["a"]], None], "at": [None, datetime(2026, 1, 1)]})
    assert put(layout, text).rows == 2
    assert [row["id"] for row in rows(layout)] == ["x", "y"]


def test_a_first_write_that_can_not_make_its_table_leaves_no_file(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, files_only: None
) -> None:
    def down(*_: object, **__: object) -> None:
        raise OSError("the store is down")

    with monkeypatch.context() as patched:
        patched.setattr(asset_table.AssetTable, "_create", down)
        with pytest.raises(StorageError):
            put(layout, TWO)
    assert not list(Path(layout.uri).rglob("*.parquet"))


def test_memory_does_not_grow_with_the_result(layout: Layout) -> None:
    seen: list[int] = []
    start = pa.total_allocated_bytes()
    values = pa.array(range(1 << 17), pa.int64())

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(250):  # a quarter of a gigabyte
            seen.append(pa.total_allocated_bytes() - start)
            yield pa.record_batch({"n": pa.concat_arrays([values])})

    assert put(layout, batches()).rows == 250 << 17
    assert max(seen) < 200 << 20


# --- schema


def test_new_columns_are_added_and_missing_ones_are_null_and_named(layout: Layout) -> None:
    put(layout, TWO)
    written = put(layout, pa.table({"id": [1], "total": [1.5]}), mode="append")
    assert rows(layout, "id", "total")[-1] == {"id": 2, "name": "b", "total": None}
    assert {"id": 1, "name": None, "total": 1.5} in rows(layout)
    assert written.columns_missing == ("name",)
    assert dict(written.columns)["total"] == "double"
    assert written.columns_before == (("id", "int64"), ("name", "string"))


@pytest.mark.parametrize("mode", [{"mode": "append"}, {"mode": "merge", "key": "id"}, {}])
def test_columns_are_widened(layout: Layout, mode: dict[str, Any]) -> None:
    put(layout, pa.table({"id": pa.array([1], pa.int32()), "n": pa.array([1], pa.int16())}))
    put(layout, pa.table({"id": pa.array([2**40]), "n": [Decimal("2.5")]}), **mode)
    kept = [] if not mode else [{"id": 1, "n": Decimal("1.0")}]
    assert rows(layout) == [*kept, {"id": 2**40, "n": Decimal("2.5")}]


@pytest.mark.parametrize("mode", [{"mode": "append"}, {"mode": "merge", "key": "id"}, {}])
def test_a_type_that_does_not_fit_is_refused(layout: Layout, mode: dict[str, Any]) -> None:
    put(layout, pa.table({"id": [1], "price": [1]}))
    with pytest.raises(SchemaChangeError, match="'price' is int64 in the table and double") as e:
        put(layout, pa.table({"id": [1], "price": [1.5]}), **mode)
    assert "schema_mode" in e.value.hint
    assert rows(layout) == [{"id": 1, "price": 1}]


def test_the_way_out_replaces_the_schema(layout: Layout) -> None:
    put(layout, pa.table({"id": [1], "price": [1], "gone": ["x"]}))
    written = put(layout, pa.table({"id": [1], "price": [1.5]}), schema_mode="overwrite")
    assert rows(layout) == [{"id": 1, "price": 1.5}]
    assert written.columns == (("id", "int64"), ("price", "double"))
    assert open_dataset(layout, NAME, 1).arrow()["price"].to_pylist() == [1]


def test_a_replaced_schema_keeps_the_columns_of_the_folders(layout: Layout) -> None:
    first = pa.table({"id": [1], "region": ["eu"]})
    put(layout, first, partition_by="region")
    for result in (pa.table({"id": [2]}), pa.table({"id": [2], "Region": ["us"]})):
        with pytest.raises(ResultError, match="partitioned by 'region', which the res") as caught:
            put(layout, result, schema_mode="overwrite")
        assert "move the folder of the table away" in caught.value.hint
    with pytest.raises(ResultError, match="and the result has no others"):
        put(layout, first.select(["region"]), schema_mode="overwrite")
    assert rows(layout) == first.to_pylist()
    other = pa.table({"region": pa.array([None], pa.string()), "nr": [2]})
    put(layout, other, schema_mode="overwrite")
    assert rows(layout) == other.to_pylist()


def test_names_that_differ_in_case_and_names_that_delta_refuses(layout: Layout) -> None:
    put(layout, TWO)
    with pytest.raises(SchemaChangeError, match="'ID', the table has 'id'"):
        put(layout, pa.table({"ID": [1]}))
    with pytest.raises(ResultError, match="'order id'"):
        put(layout, pa.table({"order id": [1]}))
    with pytest.raises(ResultError, match="two columns"):
        put(layout, pa.table({"a": [1], "A": [1]}))


def test_types_that_delta_does_not_have(layout: Layout) -> None:
    frame = pl.DataFrame(
        {
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
            "at": [datetime(2024, 1, 1), None],
            "unknown": [None, None],
            "size": pl.Series([1, 2], dtype=pl.UInt32),
        }
    )
    written = put(layout, frame)
    at = datetime(2024, 1, 1, tzinfo=timezone.utc)
    assert rows(layout)[0] == {"kind": "a", "at": at, "size": 1}
    assert (written.columns_untyped, written.times_as_utc) == (("unknown",), ("at",))
    with pytest.raises(ResultError, match="'span' can't be written"):
        put(layout, frame.with_columns(span=pl.duration(hours=1)))
    put(layout, pa.table({"kind": pa.nulls(1)}))  # nulls of a known column have its type
    assert rows(layout) == [{"kind": None, "at": None, "size": None}]


# --- empty results


def test_an_empty_result_empties_the_table_and_nothing_else(layout: Layout) -> None:
    written = put(layout, pd.DataFrame())
    assert written.table_version is None
    assert "no table yet" in written.notes[0]
    put(layout, TWO)
    for empty in (pd.DataFrame(), pd.DataFrame({"id": [], "name": []}), iter(()), TWO[:0]):
        put(layout, TWO)
        written = put(layout, empty)
        assert (written.rows, written.rows_removed) == (0, 2)
        assert written.columns == (("id", "int64"), ("name", "string"))
    put(layout, TWO)
    modes: list[dict[str, Any]] = [{"mode": "append"}, {"mode": "merge", "key": "id"}]
    for mode in modes:
        assert put(layout, pd.DataFrame(), **mode).rows == 2


def test_a_first_result_without_rows_makes_the_columns(layout: Layout) -> None:
    assert put(layout, TWO[:0]).columns == (("id", "int64"), ("name", "string"))
    assert rows(layout) == []


# --- whose table it is


def test_tables_of_others_are_never_written(layout: Layout) -> None:
    created(layout.table(NAME), {}, DATASET_KIND, TWO.schema)
    with pytest.raises(UnrecognisedTableError, match="but its dataset table"):
        put(layout, TWO)
    layout = Layout(f"{layout.uri}-2")
    write_deltalake(layout.table(NAME), TWO)
    with pytest.raises(UnrecognisedTableError, match="is no asset table"):
        put(layout, people((3, "c")), schema_mode="overwrite")
    assert DeltaTable(layout.table(NAME)).version() == 0


def test_names_of_tables(layout: Layout) -> None:
    assert layout.table(asset_table_name(["sales", "orders"])) == f"{layout.uri}/sales.orders"
    for wrong in (["_changelog", "x"], ["a/b"], ["a.b"], ["..", "x"], [""], []):
        with pytest.raises(DefinitionError):
            asset_table_name(wrong)


def test_a_table_with_rules_of_its_own_is_refused(layout: Layout) -> None:
    put(layout, TWO)
    handle = DeltaTable(layout.table(NAME))
    handle.alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(StorageError, match="CHECK constraints"):
        put(layout, TWO)


# --- maintenance


def test_maintenance_finds_the_tables_of_assets(layout: Layout) -> None:
    created(layout.dataset("orders"), {}, DATASET_KIND, TWO.schema)
    write_deltalake(f"{layout.uri}/foreign", TWO)
    Path(layout.uri, "_changelog").mkdir()
    for number in range(10):
        put(layout, people((number, "x")), mode="append")
    assert asset_tables(layout) == [NAME]
    assert open_dataset(layout, NAME).arrow().num_rows == 10
    report = maintain_asset_table(layout, NAME)
    assert report is not None
    assert (report.files, report.rows) == (1, 10)
    assert DeltaTable(layout.table(NAME)).metadata().configuration["datazone.kind"] == ASSET_KIND
    assert maintain_asset_table(layout, "orders") is None


def test_writes_maintain_their_table_by_themselves(layout: Layout) -> None:
    for number in range(20):
        written = put(layout, people((number, "x")), mode="append")
    assert written.files < 12
    log = Path(layout.table(NAME), "_delta_log")
    assert list(log.glob("*.checkpoint.parquet"))


def test_the_log_of_an_asset_table_is_read_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(layout, people((1, "a")))
    forget(layout.table(NAME))  # as in a new process
    reads: list[str] = []

    def counted(store: Any) -> Any:
        reads.append(store.uri)
        return newest_snapshot(store)

    monkeypatch.setattr(table_state, "newest_snapshot", counted)
    for _ in range(3):
        assert len(open_dataset(layout, NAME).arrow()) == 1
    assert len(reads) == 1
    with pytest.raises(DefinitionError, match="Asset 'customers' has no column 'nr'"):
        open_dataset(layout, NAME).arrow(columns=["nr"])


def test_an_asset_is_not_called_a_dataset_when_its_keys_need_too_much_memory(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise duckdb.OutOfMemoryException("failed to allocate")

    monkeypatch.setattr(KeyTable, "add", exhausted)
    with pytest.raises(OutOfMemoryError, match="the keys of asset 'customers'") as caught:
        put(layout, people((1, "a")), key="id", mode="merge")
    assert "Nothing of this result is in the table." in str(caught.value)
    assert "chunk" not in str(caught.value)


def test_an_asset_is_not_called_a_dataset_when_another_writer_is_first(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise LostRaceError("another commit came first")

    put(layout, people((1, "a")))
    monkeypatch.setattr(row_changes, "_attempt", late)
    with pytest.raises(ConcurrentWriterError, match="Changing rows of asset 'customers'") as caught:
        put(layout, people((2, "b")))
    assert "asset 'customers' has one writer" in caught.value.hint
