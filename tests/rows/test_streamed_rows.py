"""Rows with large columns change by their small ones, and keep the others."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from datazone_dagster.delta import CHECKPOINT_EVERY, create_table, open_table, transaction
from datazone_dagster.delta.read_table import last_transaction
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.delta.write_table import append_rows
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.rows.streamed_rows import StreamedRows
from tests.tables import table_at

SCHEMA = pa.schema([("id", pa.string()), ("mark", pa.int64()), ("image", pa.string())])
FILES = (("a", "b"), ("c", "d"), ("e",))


def rows(*ids: str) -> pa.Table:
    return pa.Table.from_pylist([{"id": one, "mark": 0, "image": one * 9} for one in ids], SCHEMA)


def table(folder: Path, configuration: dict[str, str] | None = None) -> DeltaTable:
    made = create_table(str(folder), {}, "kind", SCHEMA, configuration=configuration)
    for ids in FILES:
        append_rows(made, rows(*ids))
    return made


def opened(folder: Path) -> tuple[DeltaTable, StreamedRows]:
    found = open_table(str(folder), {}, "kind")
    assert found is not None
    return found, StreamedRows(table_at(found), SCHEMA, ["id", "mark"])


def marked(stored: StreamedRows, marks: dict[str, int]) -> dict[str, pa.Array]:
    old = stored.rows.to_pylist()
    return {"mark": pa.array([marks.get(row["id"], row["mark"]) for row in old], pa.int64())}


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    _, stored = opened(folder)
    found = stored.read(pa.array(range(len(stored.rows)), pa.int64())).to_pylist()
    assert len(found) == len({row["id"] for row in found})
    return {row["id"]: (row["mark"], row["image"]) for row in found}


# Change data feed is a rule that our own commits do not follow: delta-rs writes the table then.
@pytest.mark.parametrize("configuration", [{}, {"delta.enableChangeDataFeed": "true"}])
def test_marks_change_and_rows_come_in_one_commit(
    tmp_path: Path, configuration: dict[str, str]
) -> None:
    table(tmp_path, configuration)
    handle, stored = opened(tmp_path)
    before = handle.version()
    paths = {file.path for file in read_snapshot(handle, {}).files}
    stored.replace(
        marked(stored, {"c": 7}),
        added=[batch for one in "fg" for batch in rows(one).to_batches()],
        commit=transaction("us", 3),
        doing="Marking",
    )
    handle, _ = opened(tmp_path)
    assert (handle.version(), last_transaction(handle, "us")) == (before + 1, 3)
    assert contents(tmp_path) == {one: (7 if one == "c" else 0, one * 9) for one in "abcdefg"}
    if not configuration:
        left = paths & {file.path for file in read_snapshot(handle, {}).files}
        assert len(left) == len(FILES) - 1  # only the file of c was rewritten


def test_rows_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    table(tmp_path)
    _, stored = opened(tmp_path)
    ids = stored.rows["id"].to_pylist()
    for wanted in ("eac", "ace", "", "d"):
        numbers = pa.array([ids.index(one) for one in wanted], pa.int64())
        assert stored.read(numbers)["image"].to_pylist() == [one * 9 for one in wanted]


def test_nothing_is_committed_if_nothing_changes(tmp_path: Path) -> None:
    table(tmp_path)
    handle, stored = opened(tmp_path)
    before = handle.version()
    stored.replace(marked(stored, {}), doing="Marking")
    assert handle.version() == before


@pytest.mark.parametrize("configuration", [{}, {"delta.enableChangeDataFeed": "true"}])
def test_another_commit_wins_the_race(tmp_path: Path, configuration: dict[str, str]) -> None:
    other = table(tmp_path, configuration)
    _, stored = opened(tmp_path)
    append_rows(other, rows("f"))
    with pytest.raises(ConcurrentWriterError, match="Marking"):
        stored.replace(marked(stored, {"a": 1}), doing="Marking")
    assert contents(tmp_path) == {one: (0, one * 9) for one in "abcdef"}


def test_the_log_gets_a_checkpoint(tmp_path: Path) -> None:
    table(tmp_path)
    for mark in range(1, CHECKPOINT_EVERY + 1):
        handle, stored = opened(tmp_path)
        stored.replace(marked(stored, {"a": mark}), doing="Marking")
    handle, _ = opened(tmp_path)
    since = handle.version() - (read_snapshot(handle, {}).checkpoint_version or 0)
    assert since < CHECKPOINT_EVERY
    assert contents(tmp_path)["a"] == (CHECKPOINT_EVERY, "a" * 9)
