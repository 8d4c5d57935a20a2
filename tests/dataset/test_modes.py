"""Modes on real tables: any order, re-chunking and replay gives the table of the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.dataset.dataset_table import ChunkWritten, DatasetTable
from datazone_dagster.errors import ResultError, SchemaChangeError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.dataset.history_model import START, Change, Interval, intervals, scripts
from tests.dataset.test_history import intervals_of
from tests.examples import examples

TIME = pa.timestamp("us", tz="UTC")
CHANGES = pa.schema(
    [
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("_dz_event_time", TIME),
        ("event_name", pa.string()),
        ("user_principal", pa.string()),
    ]
)
ROWS = pa.schema(
    [
        ("status", pa.string()),
        ("note", pa.int64()),
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("_dz_event_time", TIME),
    ]
)
Status = tuple[str, int]
Shown = tuple[str, tuple[Status, ...], str | None]
"""State of a key: version, rows, and cause if it is marked as deleted."""

ON_DISK = settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Table:
    """A dataset's table to which chunks are applied one after the other."""

    def __init__(
        self,
        root: Path,
        mode: Literal["merge", "history"] = "merge",
        deletes: Literal["hard", "soft"] = "hard",
        track: tuple[str, ...] = (),
        partition_by: tuple[str, ...] = (),
        deletion_vectors: bool = False,
    ) -> None:
        self.table = DatasetTable(
            Layout(str(root)),
            "t",
            "source",
            mode=mode,
            deletes=deletes,
            track=track,
            partition_by=partition_by,
            deletion_vectors=deletion_vectors,
        )

    def apply(
        self, changes: Sequence[Change], rows: pa.Table | None = None, day: int = 0
    ) -> ChunkWritten:
        events = [
            {
                "_dz_key": change.key,
                "_dz_version": change.version,
                "_dz_event_time": change.time,
                "event_name": "REMOVE" if change.cause in {"user", "ttl"} else "MODIFY",
                "user_principal": "dynamodb.amazonaws.com" if change.cause == "ttl" else None,
            }
            for change in changes
        ]
        position = self.table.position()
        return self.table.apply(
            pa.Table.from_pylist(events, schema=CHANGES),
            rows_of(changes) if rows is None else rows,
            after_batch=position,
            through_batch=position + 1,
            now=START + timedelta(days=day),
        )

    def rows(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = pa.table(DeltaTable(self.table.uri).scan()).to_pylist()
        return found

    def intervals(self) -> set[Interval]:
        return intervals_of(self.rows())

    def shown(self) -> dict[str, Shown]:
        found: dict[str, Shown] = {}
        for row in self.rows():
            key, version = str(row["_dz_key"]), str(row["_dz_version"])
            assert row["_dz_deleted"] == (row["_dz_delete_cause"] is not None)
            cause = None if row["_dz_delete_cause"] is None else str(row["_dz_delete_cause"])
            values = found.get(key, (version, (), cause))
            assert (values[0], values[2]) == (version, cause), "rows of one key differ"
            one = (str(row["status"]), int(str(row["note"])))
            found[key] = (version, tuple(sorted((*values[1], one))), cause)
        return found


def rows_of(changes: Iterable[Change]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "status": status,
                "note": note,
                "_dz_key": change.key,
                "_dz_version": change.version,
                "_dz_event_time": change.time,
            }
            for change in changes
            # A function returns a row for a delete too; that row is not part of the dataset.
            for status, note in change.rows
            or ([("deleted", 0)] if change.cause in {"user", "ttl"} else [])
        ],
        schema=ROWS,
    )


def soft_model(changes: Iterable[Change]) -> dict[str, Shown]:
    found: dict[str, Shown] = {}
    for key in {change.key for change in changes}:
        image: Change | None = None
        delete: Change | None = None
        for change in sorted((c for c in changes if c.key == key), key=lambda c: c.number):
            if change.cause in {"user", "ttl"}:
                delete = change
            else:
                image = change
        if image is None or not image.rows:
            continue
        rows = tuple(sorted(image.rows))
        if delete is not None and delete.number > image.number:
            found[key] = (delete.version, rows, delete.cause)
        else:
            found[key] = (image.version, rows, None)
    return found


def a(number: int, *rows: Status, cause: str | None = None, key: str = "a") -> Change:
    return Change(key, number, number, rows, None if rows else cause or "filtered")


@ON_DISK
@given(
    script=scripts(),
    deaths=st.lists(st.booleans(), min_size=9, max_size=9),
    tracked=st.sampled_from([(), ("status",)]),
    partition_by=st.sampled_from([(), ("status",)]),
    vectors=st.booleans(),
)
def test_history_is_that_of_the_model_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    script: tuple[list[Change], list[list[Change]]],
    deaths: list[bool],
    tracked: tuple[str, ...],
    partition_by: tuple[str, ...],
    vectors: bool,
) -> None:
    root = tmp_path_factory.mktemp("lakehouse")
    table = Table(root, "history", "soft", tracked, partition_by, vectors)
    seen: list[Change] = []
    for chunk, dies in zip(script[1], deaths, strict=False):
        if dies:  # the absorbed changes are stored, the commit is missing
            with crash_at(crash_points.AFTER_TOMBSTONES), pytest.raises(Crash):
                table.apply(chunk)
        table.apply(chunk)
        seen += chunk
    assert table.intervals() == intervals(seen, (0,) if tracked else (0, 1))


@ON_DISK
@given(
    script=scripts(),
    deaths=st.lists(st.booleans(), min_size=9, max_size=9),
    vectors=st.booleans(),
)
def test_soft_deletes_are_those_of_the_model_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    script: tuple[list[Change], list[list[Change]]],
    deaths: list[bool],
    vectors: bool,
) -> None:
    table = Table(tmp_path_factory.mktemp("lakehouse"), deletes="soft", deletion_vectors=vectors)
    seen: list[Change] = []
    for chunk, dies in zip(script[1], deaths, strict=False):
        if dies:
            with crash_at(crash_points.AFTER_TOMBSTONES), pytest.raises(Crash):
                table.apply(chunk)
        table.apply(chunk)
        seen += chunk
        assert table.shown() == soft_model(seen)


def test_current_rows_of_history_are_the_rows_of_merge_mode(tmp_path: Path) -> None:
    chunks = [
        [a(1, ("new", 1)), a(2, ("new", 2), ("new", 3)), a(3, ("new", 0), key="b")],
        [a(4, ("paid", 1)), a(5, cause="ttl", key="b"), a(6, ("new", 9), key="c")],
        [a(7, key="c"), a(8, ("new", 1), key="b")],
    ]
    merge, history = Table(tmp_path / "m"), Table(tmp_path / "h", "history")
    for chunk in chunks:
        merge.apply(chunk)
        history.apply(chunk)
    added = ("_dz_valid_from", "_dz_valid_to", "_dz_is_current")
    current = [
        {name: value for name, value in row.items() if name not in added}
        for row in history.rows()
        if row["_dz_is_current"]
    ]
    assert sorted(map(str, current)) == sorted(map(str, merge.rows()))
    assert len(current) == 2


def test_history_counts_intervals(tmp_path: Path) -> None:
    table = Table(tmp_path, "history")
    assert table.apply([a(1, ("new", 1)), a(1, ("new", 1), key="b")]).counts == MergeCounts(2)
    changed = [a(2, ("paid", 1)), a(2, cause="user", key="b")]
    assert table.apply(changed).counts == MergeCounts(inserted=1, updated=1, deleted=1)
    assert table.apply(changed).counts == MergeCounts()


def test_an_untracked_column_shows_its_last_value_and_makes_no_interval(tmp_path: Path) -> None:
    table = Table(tmp_path, "history", track=("status",))
    table.apply([a(1, ("new", 1))])
    table.apply([a(2, ("new", 2))])
    table.apply([a(5, ("paid", 5))])
    (first, second) = sorted(table.rows(), key=lambda row: str(row["_dz_version"]))
    assert (first["note"], first["_dz_valid_from"]) == (2, a(1, ("", 0)).time)
    assert first["_dz_valid_to"] == second["_dz_valid_from"] == a(5, ("", 0)).time
    # A late change between two changes of one interval splits it, each with its own values.
    table.apply([Change("a", 1, 1, (("new", 1),), None)])
    late = row_between(table)
    assert [(row["status"], row["note"]) for row in late] == [
        ("new", 1),
        ("paid", 9),
        ("new", 2),
        ("paid", 5),
    ]


def row_between(table: Table) -> list[dict[str, object]]:
    between = Change("a", 15, 2, (("paid", 9),), None)
    first, second = Change("a", 10, 1, (("new", 1),), None), Change("a", 20, 3, (("new", 2),), None)
    fresh = Table(Path(table.table.uri).parent / "fresh", "history", track=("status",))
    for change in (first, second, Change("a", 50, 5, (("paid", 5),), None), between):
        fresh.apply([change])
    return sorted(fresh.rows(), key=lambda row: str(row["_dz_version"]))


def test_after_the_retention_a_late_change_is_ordered_by_its_time(tmp_path: Path) -> None:
    table = Table(tmp_path, "history")
    table.apply([a(10, ("new", 1)), a(20, ("new", 1)), a(30, cause="user")])
    table.apply([a(90, ("x", 1), key="other"), a(91, key="other")], day=30)  # expires the rest
    table.apply([a(25, ("paid", 1))], day=30)
    rows = sorted((row for row in table.rows() if row["_dz_key"] == "a"), key=str)
    spans = {
        row["status"]: (row["_dz_valid_from"], row["_dz_valid_to"], row["_dz_is_current"])
        for row in rows
    }
    at = {number: a(number).time for number in (10, 25, 30)}
    assert spans == {"new": (at[10], at[25], False), "paid": (at[25], at[30], False)}


def test_a_delete_that_arrives_first_adds_no_row_and_marks_an_older_change(
    tmp_path: Path,
) -> None:
    table = Table(tmp_path, deletes="soft")
    table.apply([a(5, cause="ttl")])
    assert table.rows() == []
    table.apply([a(3, ("new", 1))])
    assert table.shown() == {"a": (a(5).version, (("new", 1),), "ttl")}
    (row,) = table.rows()
    assert row["_dz_event_time"] == a(5).time


def test_soft_deletes_count_keys(tmp_path: Path) -> None:
    table = Table(tmp_path, deletes="soft")
    assert table.apply([a(1, ("new", 1)), a(1, ("x", 1), key="b")]).counts == MergeCounts(2)
    deletes = [a(2, cause="user"), a(2, key="b")]
    assert table.apply(deletes).counts == MergeCounts(deleted=2)
    assert table.apply(deletes).counts == MergeCounts()
    assert table.apply([a(3, ("new", 2))]).counts == MergeCounts(updated=1)
    assert table.shown() == {"a": (a(3).version, (("new", 2),), None)}


@pytest.mark.parametrize("vectors", [True, False])
def test_rows_written_while_deletes_were_hard_are_not_marked(tmp_path: Path, vectors: bool) -> None:
    soft = Table(tmp_path, deletes="soft", deletion_vectors=vectors)
    hard = Table(tmp_path, deletion_vectors=vectors)
    soft.apply([a(1, ("new", 1)), a(1, ("x", 1), key="b"), a(1, ("x", 1), key="c")])
    soft.apply([a(2, cause="user", key="c")])
    hard.apply([a(3, ("paid", 1)), a(3, cause="user", key="b"), a(3, ("new", 4), key="d")])
    marks = {str(row["_dz_key"]): row["_dz_deleted"] for row in hard.rows()}
    assert marks == {"a": False, "c": True, "d": False}
    soft.apply([a(4, cause="ttl", key="d")])
    assert soft.shown() == {
        "a": (a(3).version, (("paid", 1),), None),
        "c": (a(2).version, (("x", 1),), "user"),
        "d": (a(4).version, (("new", 4),), "ttl"),
    }


def test_the_mode_of_a_table_can_not_change(tmp_path: Path) -> None:
    Table(tmp_path / "m").apply([a(1, ("new", 1))])
    Table(tmp_path / "h", "history").apply([a(1, ("new", 1))])
    with pytest.raises(SchemaChangeError, match="mode='history'"):
        Table(tmp_path / "m", "history").apply([a(2, ("new", 1))])
    with pytest.raises(SchemaChangeError, match="mode='merge'"):
        Table(tmp_path / "h").apply([a(2, ("new", 1))])


def test_tracking_a_missing_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="'state'"):
        Table(tmp_path, "history", track=("state",)).apply([a(1, ("new", 1))])


@pytest.mark.parametrize("mode", ["merge", "history"])
def test_new_columns_are_added_to_rows_and_to_absorbed_changes(
    tmp_path: Path, mode: Literal["merge", "history"]
) -> None:
    table = Table(tmp_path, mode, "soft")
    table.apply([a(1, ("new", 1)), a(2, ("new", 1))])
    wider = rows_of([a(3, ("new", 1)), a(5, ("new", 1))]).append_column(
        "size", pa.array([7, 7], pa.int32())
    )
    table.apply([a(3, ("new", 1)), a(5, ("new", 1))], wider)
    table.apply([a(6, cause="user")])
    sizes = sorted((str(row["_dz_version"])[-1], row["size"]) for row in table.rows())
    assert sizes == ([("2", None), ("5", 7)] if mode == "history" else [("6", 7)])


@pytest.mark.parametrize(("mode", "deletes"), [("merge", "hard"), ("merge", "soft")])
def test_a_changed_partition_value_moves_the_row(
    tmp_path: Path, mode: Literal["merge"], deletes: Literal["hard", "soft"]
) -> None:
    table = Table(tmp_path, mode, deletes, partition_by=("status",))
    table.apply([a(1, ("new", 1)), a(1, ("new", 2), key="b")])
    table.apply([a(2, ("paid", 1))])
    assert sorted((row["_dz_key"], row["status"]) for row in table.rows()) == [
        ("a", "paid"),
        ("b", "new"),
    ]
    table.apply([a(3, cause="user"), a(3, cause="user", key="b")])
    left = sorted((row["_dz_key"], row["status"]) for row in table.rows())
    assert left == ([("a", "paid"), ("b", "new")] if deletes == "soft" else [])


def test_absorbed_changes_are_stored_with_columns_of_any_type_and_name(tmp_path: Path) -> None:
    table = Table(tmp_path, "history", partition_by=("day",))

    def rows(*changes: Change) -> pa.Table:
        extra: dict[str, pa.Array] = {
            "day": pa.array(["monday"] * len(changes)),
            "epoch": pa.array([b"x"] * len(changes)),
            "address": pa.array([{"street": "Main"}] * len(changes)),
        }
        found = rows_of(changes)
        for name, column in extra.items():
            found = found.append_column(name, column)
        return found

    first, same, late = (a(n, ("new", 1)) for n in (1, 5, 3))
    paid = a(2, ("paid", 1))
    table.apply([first, same], rows(first, same))
    table.apply([late], rows(late))
    table.apply([paid], rows(paid))
    assert sorted((row["status"], row["_dz_version"]) for row in table.rows()) == [
        ("new", first.version),
        ("new", same.version),
        ("paid", paid.version),
    ]


@pytest.mark.parametrize("run_rows", [1, 300])
def test_events_are_appended_by_time_and_else_as_they_came(tmp_path: Path, run_rows: int) -> None:
    seconds = [3, 1, 2, 1, 3]
    changes = [
        {
            "_dz_key": f"k{number}",
            "_dz_version": f"{number:046d}",
            "_dz_event_time": START + timedelta(seconds=seconds[number // run_rows % 5]),
            "event_name": "INSERT",
            "user_principal": None,
        }
        for number in range(len(seconds) * run_rows)
    ]
    given = pa.Table.from_pylist(changes, CHANGES)
    rows = given.select(["_dz_key", "_dz_version", "_dz_event_time"])
    rows = rows.add_column(0, "tags", pa.array([[one["_dz_key"]] for one in changes]))
    table = DatasetTable(Layout(str(tmp_path)), "t", "source", mode="append")
    table.apply(given, rows, after_batch=0, through_batch=1, now=START)
    found = DeltaTable(table.uri).to_pyarrow_table()
    assert found.select(rows.column_names).to_pylist() == (
        sorted(rows.to_pylist(), key=lambda row: row["_dz_event_time"])
    )
