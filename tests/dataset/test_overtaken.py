"""Another run commits between two commits of this run, which moves the handle past that commit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Schema, Transaction

from datazone_dagster.dataset import widening_fence
from datazone_dagster.dataset.dataset_table import DatasetTable
from datazone_dagster.dataset.table_shape import change_schema
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.delta.write_table import add_columns
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
from datazone_dagster.rows.conform import Conformed
from datazone_dagster.rows.engine import MergeTarget, RowChanges
from datazone_dagster.rows.engines import CopyOnWriteEngine, merged
from datazone_dagster.rows.merge_batch import KEYED_CHANGES_SCHEMA, MergeBatch
from datazone_dagster.rows.row_changes import Removal, change_rows
from tests.dataset.test_modes import CHANGES, ROWS
from tests.tables import table_at

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
NAIVE = pa.array([datetime(2026, 1, 1)], pa.timestamp("us"))


def version(number: int) -> str:
    return f"1-{number:040d}"


def chunk(number: int) -> tuple[pa.Table, pa.Table]:
    hidden = {"_dz_key": "k", "_dz_version": version(number), "_dz_event_time": NOW}
    changes = [{**hidden, "event_name": "MODIFY"}]
    rows = [{**hidden, "status": "paid", "note": number}]
    return pa.Table.from_pylist(changes, schema=CHANGES), pa.Table.from_pylist(rows, schema=ROWS)


def appending(root: Path) -> DatasetTable:
    return DatasetTable(Layout(str(root)), "t", "source", mode="append")


def apply(table: DatasetTable, number: int, rows: pa.Table | None = None) -> None:
    changes, plain = chunk(number)
    table.apply(
        changes,
        plain if rows is None else rows,
        after_batch=number - 1,
        through_batch=number,
        now=NOW,
    )


def alter_columns(table: Table) -> None:
    with table.by_delta_rs() as handle:
        handle.alter.add_columns(list(Schema.from_arrow(pa.schema([("x", pa.string())])).fields))


def alter_properties(table: Table) -> None:
    set_properties(table, {"some.property": "1"})


def overtaken_by_another(
    root: Path, monkeypatch: pytest.MonkeyPatch, moves: Callable[[Table], None]
) -> DatasetTable:
    """Return a table at batch 1 whose batch 2 another run applies first; its handle then moves."""
    slow, fast = appending(root), appending(root)
    apply(slow, 1)
    calls = itertools.count()

    def overtaken(table: Table, conformed: Conformed, dataset_id: str) -> tuple[pa.Field, ...]:
        if next(calls) == 0:  # the slow run; the fast one comes in between
            apply(fast, 2)
            moves(table)
        return change_schema(table, conformed, dataset_id)

    monkeypatch.setattr(widening_fence, "change_schema", overtaken)
    return slow


@pytest.mark.parametrize(
    ("moves", "error"), [(alter_columns, "applied"), (alter_properties, "is taken")]
)
def test_an_event_is_not_appended_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: Callable[[Table], None], error: str
) -> None:
    """delta-rs silently commits its change of the table after the other run's append."""
    slow = overtaken_by_another(tmp_path, monkeypatch, moves)
    with pytest.raises(ConcurrentWriterError, match=error):
        apply(slow, 2)
    assert pa.table(DeltaTable(slow.uri).scan()).num_rows == 2


def test_a_column_that_is_added_ahead_does_not_hide_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = overtaken_by_another(tmp_path, monkeypatch, lambda _: None)
    with pytest.raises(ConcurrentWriterError):
        apply(slow, 2, chunk(2)[1].append_column("at", NAIVE))
    assert pa.table(DeltaTable(slow.uri).scan()).num_rows == 2


@pytest.mark.parametrize("mode", ["merge", "history"])
def test_columns_that_delta_rs_adds_before_rows_do_not_hide_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Literal["merge", "history"]
) -> None:
    """In a table with a rule of its own, the rows of a new key would be inserted again."""
    slow, fast = (
        DatasetTable(Layout(str(tmp_path)), "t", "source", mode=mode) for _ in ("slow", "fast")
    )
    none = chunk(1)[0].slice(0, 0), chunk(1)[1].slice(0, 0)
    slow.apply(*none, after_batch=0, through_batch=1, now=NOW)
    DeltaTable(slow.uri).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    calls = itertools.count()

    def overtaken(handle: DeltaTable, fields: Iterable[pa.Field]) -> None:
        if next(calls) == 0:
            apply(fast, 2)
        add_columns(handle, fields)

    monkeypatch.setattr("datazone_dagster.rows.delta_rs_engine.add_columns", overtaken)
    with_column = chunk(2)[1].append_column("extra", pa.array(["x"]))
    with pytest.raises(ConcurrentWriterError, match="came first"):
        apply(slow, 2, with_column)
    assert next(calls) == 1
    rows = pa.table(DeltaTable(slow.uri).scan())
    assert rows["_dz_key"].to_pylist() == ["k"]
    changes, plain = chunk(3)
    extra = plain.append_column("extra", pa.array(["x"]))
    slow.apply(changes, extra, after_batch=2, through_batch=3, now=NOW)
    assert slow.position() == 3


def test_a_merge_that_enables_vectors_detects_that_another_run_did_its_work(
    tmp_path: Path,
) -> None:
    """The commit that enables vectors carries no position: losing its race is no evidence."""
    dataset = DatasetTable(
        Layout(str(tmp_path)), "t", "source", mode="merge", deletion_vectors=False
    )
    apply(dataset, 1)
    batch = MergeBatch(
        pa.Table.from_pylist(
            [{"_dz_key": "k", "_dz_version": version(2), "cause": None}],
            schema=KEYED_CHANGES_SCHEMA,
        ),
        chunk(2)[1],
    )

    def target() -> MergeTarget:
        table = table_at(DeltaTable(dataset.uri))
        return MergeTarget("t", table, table.schema)

    def applied(through: int) -> CommitProperties:
        transactions = [Transaction(dataset.app_id, through)]
        return CommitProperties(app_transactions=transactions, max_commit_retries=0)

    attempts = 0

    def overtaken(snapshot: Snapshot, changes: RowChanges, merges_left: float) -> Removal:
        nonlocal attempts
        attempts += 1
        CopyOnWriteEngine().merge(target(), batch, applied(3))
        return Removal.VECTORS

    with pytest.raises(ConcurrentWriterError, match="applied the same changes"):
        change_rows(target(), lambda table: merged(table, batch), applied(2), overtaken)
    assert attempts == 1
    assert dataset.position() == 3
