"""Existence checks of rows agree with what the table's readers see."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from datazone_dagster.delta import transaction
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.engines import CopyOnWriteEngine, MergeOnReadEngine, RowEngine
from datazone_dagster.rows.versions import has_rows
from tests.dataset.test_overtaken import NOW, appending, chunk
from tests.tables import table_at


def deleted_by_another(uri: str, version: str, engine: RowEngine) -> None:
    table = table_at(DeltaTable(uri))
    target = MergeTarget("t", table, table.schema)
    removed = pa.table({KEY: ["k"], VERSION: [version]})
    engine.replace(target, removed, chunk(1)[1][:0], transaction("another", 1))


def test_deleted_rows_do_not_exist_whatever_the_engine(tmp_path: Path) -> None:
    for name, engine in (("v", MergeOnReadEngine()), ("w", CopyOnWriteEngine())):
        table = appending(tmp_path / name)
        one, two = chunk(1), chunk(2)
        changes, rows = (pa.concat_tables(both) for both in zip(one, two, strict=True))
        table.apply(changes, rows, after_batch=0, through_batch=2, now=NOW)
        wanted = pa.concat_tables([chunk(n)[1] for n in (1, 2, 3)])
        assert has_rows(read_snapshot(DeltaTable(table.uri), {}), wanted).to_pylist() == [
            True,
            True,
            False,
        ]
        deleted_by_another(table.uri, wanted[VERSION][1].as_py(), engine)
        assert has_rows(read_snapshot(DeltaTable(table.uri), {}), wanted).to_pylist() == [
            True,
            False,
            False,
        ]
        assert has_rows(read_snapshot(DeltaTable(table.uri), {}), wanted[:0]).to_pylist() == []
