"""Commits of writers that share a table, each with rows of its own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.delta import transaction
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.transaction_log import Snapshot, read_snapshot
from datazone_dagster.errors import ConcurrentWriterError

SCHEMA = pa.schema([("n", pa.int64())])


@pytest.fixture
def start(tmp_path: Path) -> Snapshot:
    """A table with two files, of the rows 1 and 2."""
    snapshot = read_snapshot(DeltaTable.create(str(tmp_path / "t"), SCHEMA), {})
    for number in (1, 2):
        snapshot = put(snapshot, "start", [number])
    return snapshot


def put(
    snapshot: Snapshot,
    app_id: str | None,
    rows: list[int],
    removed: tuple[int, ...] = (),
    *,
    data_change: bool = True,
    independent: frozenset[str] | None = None,
) -> Snapshot:
    """Replace the files of some rows by one of others; the app ids given have other rows."""
    table = pa.table({"n": rows}, schema=SCHEMA)
    add = write_data_file(snapshot.store, SCHEMA, {}, table.to_batches(), data_change=data_change)
    assert add is not None
    return commit_files(
        snapshot,
        FileActions(
            [add],
            [file for file in snapshot.files if file.minimum["n"] in removed],
            [add["path"]],
            data_change,
        ),
        operation="WRITE",
        parameters={},
        metrics={},
        properties=None if app_id is None else transaction(app_id, 1),
        independent=None if independent is None else independent.__contains__,
    )


def numbers(snapshot: Snapshot) -> list[int]:
    handle = DeltaTable(snapshot.store.uri)
    return sorted(pa.table(handle.scan())["n"].to_pylist())


B = frozenset({"b", "maintain/cleaned_at"})


def test_a_commit_comes_after_those_of_other_rows(start: Snapshot) -> None:
    put(put(start, "b", [20], (2,)), "b", [30])
    after = put(start, "a", [10], (1,), independent=B)
    assert after.version == start.version + 3
    assert numbers(after) == [10, 20, 30]
    assert {file.minimum["n"] for file in after.files} == {10, 20, 30}
    assert dict(after.transactions) == {"start": 1, "a": 1, "b": 1}
    # The snapshot that it returns is the table as a reader finds it, and takes the next commit.
    assert put(after, "a", [40]).version == after.version + 1


def test_a_commit_is_planned_again_if_its_files_are_gone(start: Snapshot) -> None:
    put(start, None, [1], (1,), data_change=False)
    with pytest.raises(LostRaceError):
        put(start, "a", [10], (1,), independent=B)
    assert numbers(start) == [1, 2]


def test_a_commit_comes_after_maintenance_of_other_files(start: Snapshot) -> None:
    put(start, None, [2], (2,), data_change=False)
    assert numbers(put(start, "a", [10], (1,), independent=B)) == [2, 10]


def test_a_commit_is_planned_again_after_rows_of_a_stranger(start: Snapshot) -> None:
    handle = DeltaTable(start.store.uri)
    write_deltalake(handle, pa.table({"n": [9]}, schema=SCHEMA), mode="append")
    with pytest.raises(LostRaceError):
        put(start, "a", [10], (1,), independent=B)


def test_a_commit_is_planned_again_after_a_search_for_files_without_a_version(
    start: Snapshot,
) -> None:
    """Its own files are such files: a commit that waited longer than the retention has none."""
    commit_files(
        start,
        FileActions([], []),
        operation="VACUUM END",
        parameters={},
        metrics={},
        properties=transaction("maintain/cleaned_at", 1),
    )
    with pytest.raises(LostRaceError):
        put(start, "a", [10], (1,), independent=B)
    assert numbers(start) == [1, 2]


@pytest.mark.parametrize("other", ["a", "c"])
def test_a_commit_gives_way_to_one_that_may_have_its_rows(start: Snapshot, other: str) -> None:
    put(put(start, "b", [20]), other, [30])
    with pytest.raises(ConcurrentWriterError):
        put(start, "a", [10], (1,), independent=B)
    assert numbers(start) == [1, 2, 20, 30]


def test_a_commit_gives_way_to_a_change_of_the_table(start: Snapshot) -> None:
    put(start, "b", [20])
    DeltaTable(start.store.uri).alter.set_table_properties({"delta.appendOnly": "true"})
    with pytest.raises(ConcurrentWriterError, match="metadata"):
        put(start, "a", [10], (1,), independent=B)


def test_without_independent_writers_a_commit_is_of_one_version(start: Snapshot) -> None:
    put(start, "b", [20])
    with pytest.raises(LostRaceError):
        put(start, "a", [10], (1,))
