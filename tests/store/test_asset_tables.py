"""Tables of assets in an object store: the same writes, reads and maintenance."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline.table_calls import asset_tables, load_table, maintain_asset_table
from datazone_dagster.tables import staged_rows
from tests.asset_tables.test_partitions import named
from tests.asset_tables.writing import NAME, people, put, rows

pytestmark = pytest.mark.store


@pytest.mark.parametrize("most_bytes", [staged_rows.IN_MEMORY_BYTES, -1])
def test_every_mode_in_s3(
    s3_lakehouse: Layout, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(staged_rows, "IN_MEMORY_BYTES", most_bytes)
    put(s3_lakehouse, people((1, "a"), (2, "b")))
    merge: dict[str, Any] = {"mode": "merge", "key": "id", "delete_where": "name = 'gone'"}
    put(s3_lakehouse, people((2, "B"), (3, "c"), (1, "gone")), deletion_vectors=True, **merge)
    for _ in range(2):
        put(s3_lakehouse, people((4, "d")), mode="append", step="run1/customers")
    assert rows(s3_lakehouse) == people((2, "B"), (3, "c"), (4, "d")).to_pylist()
    assert asset_tables(s3_lakehouse) == [NAME]
    report = maintain_asset_table(s3_lakehouse, NAME)
    assert report is not None
    assert (report.files, report.hidden_rows) == (1, 0)


def test_partitions_in_s3(s3_lakehouse: Layout) -> None:
    for key in ("it's", "b/c", "it's"):
        put(s3_lakehouse, pa.table({"at": [key], "n": [1]}), part=named(key), partition_expr="at")
    assert [row["at"] for row in rows(s3_lakehouse)] == ["b/c", "it's"]
    found = load_table(s3_lakehouse, NAME, pa.Table, parameter="x", part=named("b/c"))
    assert isinstance(found, pa.Table)
    assert found.num_rows == 1
