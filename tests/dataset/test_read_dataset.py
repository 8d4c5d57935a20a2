"""Reading a dataset: every method shows the same rows, at one version, with deletion vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaProtocolError

from datazone_dagster import Dataset, Lakehouse
from datazone_dagster.errors import DefinitionError, StorageError
from tests.dataset.test_modes import Table, a


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    table = Table(tmp_path, partition_by=("status",))
    table.apply([a(n, ("new", n), key=f"k{n}") for n in range(1, 6)])
    table.apply([a(7, ("paid", 7), key="k1"), a(8, cause="user", key="k2")])
    return Lakehouse(uri=str(tmp_path))


EXPECTED = [("new", 3), ("new", 4), ("new", 5), ("paid", 7)]


def test_every_form_has_the_same_rows(lakehouse: Lakehouse) -> None:
    reader = lakehouse.read(Dataset("t"))
    assert reader.schema.names[:3] == ["status", "note", "_dz_key"]
    names = ["status", "note"]
    table = reader.arrow(columns=names).sort_by([("status", "ascending"), ("note", "ascending")])
    assert table.schema == pa.schema([("status", pa.string()), ("note", pa.int64())])
    assert [tuple(row.values()) for row in table.to_pylist()] == EXPECTED
    assert sorted(reader.pl(columns=names).rows()) == EXPECTED
    assert sorted(reader.lazy().select(names).collect().rows()) == EXPECTED
    assert sorted(reader.duckdb(columns=names).fetchall()) == EXPECTED
    assert sorted(map(tuple, reader.df(columns=names).to_numpy().tolist())) == EXPECTED
    assert pl.DataFrame(reader).height == 4
    assert sum(len(batch) for batch in reader.batches()) == 4


def test_columns_and_a_predicate(lakehouse: Lakehouse) -> None:
    found = lakehouse.read("t").arrow(columns=["note"], where="status = 'paid' and note > 1")
    assert found.to_pydict() == {"note": [7]}
    connection = duckdb.connect()
    relation = lakehouse.read("t").duckdb(connection, where="note > 100")
    assert relation.columns[0] == "status"
    assert relation.fetchall() == []


def test_a_reader_stays_at_its_version(lakehouse: Lakehouse, tmp_path: Path) -> None:
    now = lakehouse.read("t")
    Table(tmp_path, partition_by=("status",)).apply([a(9, ("new", 9), key="k9")])
    assert len(now.arrow()) == 4
    assert len(lakehouse.read("t").arrow()) == 5
    assert len(lakehouse.read("t", version=1).arrow()) == 5
    assert "k2" in lakehouse.read("t", version=1).arrow()["_dz_key"].to_pylist()


def test_a_failed_read_names_its_cause(lakehouse: Lakehouse) -> None:
    with pytest.raises(StorageError, match="no table"):
        lakehouse.read("other")
    with pytest.raises(StorageError, match="no version 99"):
        lakehouse.read("t", version=99)
    with pytest.raises(DefinitionError, match="no column 'price'"):
        lakehouse.read("t").arrow(columns=["price"])
    with pytest.raises(DefinitionError, match="where 'price > 1'"):
        lakehouse.read("t").arrow(where="price > 1")


READERS: dict[str, Callable[[str], int]] = {
    "scan": lambda uri: pa.table(DeltaTable(uri).scan()).num_rows,
    "query": lambda uri: pa.table(
        QueryBuilder().register("t", DeltaTable(uri)).execute("select count(*) as n from t")
    )["n"][0].as_py(),
    "polars scan": lambda uri: pl.scan_delta(uri).collect().height,
    "polars read": lambda uri: pl.read_delta(uri).height,
}
REFUSE: dict[str, Callable[[str], object]] = {
    "to_pyarrow_table": lambda uri: DeltaTable(uri).to_pyarrow_table(),
    "to_pyarrow_dataset": lambda uri: DeltaTable(uri).to_pyarrow_dataset(),
    "to_pandas": lambda uri: DeltaTable(uri).to_pandas(),
    "polars with pyarrow": lambda uri: pl.read_delta(uri, use_pyarrow=True),
}


@pytest.fixture
def hidden_rows(tmp_path: Path) -> str:
    table = Table(tmp_path, deletion_vectors=True)
    table.apply([a(n, ("new", n), key=f"k{n}") for n in range(10)])
    table.apply([a(20, ("paid", 1), key="k1"), a(21, cause="user", key="k2")])
    return table.table.uri


@pytest.mark.parametrize("reader", READERS)
def test_readers_that_apply_deletion_vectors(hidden_rows: str, reader: str) -> None:
    assert READERS[reader](hidden_rows) == 9


@pytest.mark.parametrize("reader", REFUSE)
def test_readers_that_refuse_deletion_vectors(hidden_rows: str, reader: str) -> None:
    with pytest.raises(DeltaProtocolError, match="deletionVectors"):
        REFUSE[reader](hidden_rows)


def test_count_ignores_deletion_vectors(hidden_rows: str) -> None:
    assert DeltaTable(hidden_rows).count() == 11
