"""Merge by key, append once per step, and two writers at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.delta.table import opened
from datazone_dagster.delta.table_state import forget
from datazone_dagster.errors import (
    ConcurrentWriterError,
    DefinitionError,
    ResultError,
    SchemaChangeError,
)
from datazone_dagster.model.layout import ASSET_KIND, Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.pipeline import open_dataset
from datazone_dagster.pipeline.table_calls import maintain_asset_table
from datazone_dagster.process import crash_points
from datazone_dagster.tables import staged_rows
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.asset_tables.writing import NAME, people, put, rows
from tests.examples import examples

MERGE: dict[str, Any] = {"mode": "merge", "key": "id"}
TWO = people((1, "a"), (2, "b"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lake"))


@pytest.fixture(params=["memory", "files"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for results that are small and for those that are larger than memory."""
    if request.param == "files":
        monkeypatch.setattr(staged_rows, "IN_MEMORY_BYTES", -1)
        monkeypatch.setattr(staged_rows, "FILE_BYTES", 1)
        monkeypatch.setattr(staged_rows, "BUFFERED_BYTES", 1)


# --- merge


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.usefixtures("sizes")
def test_a_merge_replaces_inserts_and_deletes_keys(layout: Layout, vectors: bool) -> None:
    put(layout, people((1, "a"), (2, "b"), (3, "c")), **MERGE)
    result = iter(people((2, "B"), (4, "d"), (3, "gone"), (9, "gone")).to_batches(2))
    options = {**MERGE, "deletion_vectors": vectors, "delete_where": "name = 'gone'"}
    written = put(layout, result, **options)
    assert rows(layout) == people((1, "a"), (2, "B"), (4, "d")).to_pylist()
    assert (written.keys_inserted, written.keys_updated, written.keys_deleted) == (1, 1, 1)
    assert (written.rows, written.rows_written, written.rows_removed) == (3, 2, 2)
    again = put(layout, people((2, "B"), (4, "d"), (3, "gone")), **options)
    assert rows(layout) == people((1, "a"), (2, "B"), (4, "d")).to_pylist()
    assert (again.keys_inserted, again.keys_updated, again.keys_deleted) == (0, 2, 0)
    assert open_dataset(layout, NAME).lazy().collect().height == 3


def test_the_same_as_a_dict_after_any_merges(layout: Layout) -> None:
    chance = random.Random(7)
    expected: dict[tuple[str, int], float | None] = {}
    for _ in range(8):
        keys = {(chance.choice("äb\n'"), chance.randrange(30)) for _ in range(20)}
        values = {key: chance.choice([None, chance.random()]) for key in keys}
        table = pa.table(
            {
                "text": [text for text, _ in keys],
                "number": pa.array([number for _, number in keys], pa.int32()),
                "value": pa.array(list(values.values()), pa.float64()),
            }
        )
        put(layout, table, mode="merge", key=["text", "number"], delete_where="value is null")
        expected |= values
    kept = {key: value for key, value in expected.items() if value is not None}
    assert {(r["text"], r["number"]): r["value"] for r in rows(layout)} == kept


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "", "ä'\"", "x" * 100],
        [-(2**63), 0, 2**63 - 1, 7],
        [Decimal("1.10"), Decimal("-2"), Decimal("3.33"), Decimal(0)],
        [date(1, 1, 1), date(1970, 1, 1), date(2024, 2, 29), date(9999, 12, 31)],
        [b"\0", b"", b"ab", b"\xff"],
    ],
)
def test_keys_of_every_type(layout: Layout, keys: list[Any]) -> None:
    put(layout, pa.table({"id": keys, "n": [1, 2, 3, 4]}), **MERGE)
    written = put(layout, pa.table({"id": keys[1:3], "n": [20, 30]}), **MERGE)
    assert (written.keys_inserted, written.keys_updated) == (0, 2)
    assert {row["id"]: row["n"] for row in rows(layout)} == dict(
        zip(keys, [1, 20, 30, 4], strict=True)
    )


def test_a_row_moves_between_the_folders_of_a_merged_table(layout: Layout) -> None:
    first = pa.table({"id": [1, 2], "region": ["eu", "eu"]})
    put(layout, first, partition_by="region", **MERGE)
    put(layout, pa.table({"id": [2], "region": ["us"]}), **MERGE)
    assert rows(layout) == [{"id": 1, "region": "eu"}, {"id": 2, "region": "us"}]


@pytest.mark.usefixtures("sizes")
def test_a_key_that_is_null_or_there_twice_is_refused(layout: Layout) -> None:
    put(layout, TWO, **MERGE)
    twice = iter([people((7, "x")), people((8, "y"), (7, "z"))])
    with pytest.raises(ResultError, match="id=7 is in 2 rows of the result") as caught:
        put(layout, twice, **MERGE)
    assert "order" in caught.value.hint
    with pytest.raises(ResultError, match="'id' is null in 1 of 2 rows"):
        put(layout, pa.table({"id": [5, None], "name": ["x", "y"]}), **MERGE)
    with pytest.raises(ResultError, match="id=7 is in 2 rows"):
        put(layout, people((7, "gone"), (7, "z")), **MERGE, delete_where="name = 'gone'")
    assert rows(layout) == TWO.to_pylist()


@pytest.mark.usefixtures("sizes")
def test_an_order_column_decides_between_rows_of_a_key(layout: Layout) -> None:
    def result(*values: tuple[int, str, int | None]) -> pa.Table:
        ids, names, at = zip(*values, strict=True)
        return pa.table({"id": ids, "name": names, "at": pa.array(at, pa.int64())})

    first = result((1, "new", 5), (1, "old", 4), (2, "only", None), (3, "gone", 9), (3, "x", 8))
    options = {**MERGE, "order": "at", "delete_where": "name = 'gone'"}
    written = put(layout, iter([first.slice(0, 1), first.slice(1)]), **options)
    assert [(r["id"], r["name"]) for r in rows(layout)] == [(1, "new"), (2, "only")]
    assert (written.rows_written, written.keys_inserted) == (2, 2)
    with pytest.raises(ResultError, match="id=4 is in 2 rows with the highest 'at'"):
        put(layout, result((4, "a", 5), (4, "b", 5)), **options)


ORDERED: dict[str, Any] = {**MERGE, "order": "ts", "delete_where": "op = 'D'"}


def changes(*values: tuple[int, int, str]) -> pa.Table:
    ids, times, operations = zip(*values, strict=True)
    return pa.table({"id": ids, "ts": times, "op": operations})


@pytest.mark.usefixtures("sizes")
def test_a_deletion_that_is_older_takes_no_row_of_another_key(layout: Layout) -> None:
    put(layout, changes((7, 1, "U"), (8, 1, "U")), **ORDERED)
    put(layout, changes((7, 10, "U"), (1, 5, "D"), (1, 9, "U")), **ORDERED)
    assert [(one["id"], one["ts"]) for one in rows(layout)] == [(1, 9), (7, 10), (8, 1)]
    written = put(layout, changes((1, 20, "D"), (1, 21, "D")), **ORDERED)
    assert [one["id"] for one in rows(layout)] == [7, 8]
    assert (written.keys_deleted, written.rows_written, written.rows_removed) == (1, 0, 1)


RESULT = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from("UD")),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one[:2],
)


@pytest.mark.usefixtures("sizes")
@settings(max_examples=examples(8), deadline=None, suppress_health_check=list(HealthCheck))
@given(results=st.lists(RESULT, min_size=2, max_size=3), size=st.integers(1, 12))
def test_the_same_as_a_dict_after_ordered_changes_and_deletions(
    tmp_path_factory: pytest.TempPathFactory,
    results: list[list[tuple[int, int, str]]],
    size: int,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    expected: dict[int, tuple[int, int, str]] = {}
    for result in results:
        newest = {one[0]: one for one in sorted(result)}
        stored = {key: one for key, one in newest.items() if one[2] == "U"}
        gone = [key for key in expected if key in newest and key not in stored]
        written = put(layout, iter(changes(*result).to_batches(size)), **ORDERED)
        assert (written.rows_written, written.keys_deleted) == (len(stored), len(gone))
        expected = {key: one for key, one in expected.items() if key not in newest} | stored
        found = [(one["id"], one["ts"], one["op"]) for one in rows(layout)]
        assert found == sorted(expected.values())


def test_what_a_merge_needs(layout: Layout) -> None:
    with pytest.raises(ResultError, match=r"'key|key names the column 'nr'"):
        put(layout, TWO, mode="merge", key=["nr"])
    with pytest.raises(ResultError, match="'id' is double"):
        put(layout, pa.table({"id": [1.5]}), **MERGE)
    for wrong in ("nonsense(", "name", "unknown = 1", "count(*) > 0", "true) as x, (true"):
        with pytest.raises(DefinitionError, match="delete_where"):
            put(layout, TWO, **MERGE, delete_where=wrong)
    assert not list(Path(layout.uri).glob("*/*.parquet"))


# --- append


def test_an_append_is_done_once_per_step(layout: Layout) -> None:
    put(layout, TWO, mode="append", step="run1/customers")
    again = put(layout, TWO, mode="append", step="run1/customers")
    assert (again.already_written, again.rows_written, again.rows) == (True, 0, 2)
    put(layout, TWO, mode="append", step="run2/customers")
    assert len(rows(layout)) == 4


@pytest.mark.parametrize("point", [crash_points.BEFORE_LOG_ENTRY, crash_points.AFTER_LOG_ENTRY])
def test_a_retry_after_a_death_doubles_and_loses_nothing(layout: Layout, point: str) -> None:
    put(layout, TWO, mode="append", step="run1/customers")
    with crash_at(point), pytest.raises(Crash):
        put(layout, people((3, "c")), mode="append", step="run2/customers")
    put(layout, people((3, "c")), mode="append", step="run2/customers")
    assert rows(layout) == people((1, "a"), (2, "b"), (3, "c")).to_pylist()


def test_two_attempts_of_one_step_at_a_time_append_once(layout: Layout) -> None:
    put(layout, TWO, mode="append", step="run1/customers")

    def other() -> None:
        put(layout, people((3, "c")), mode="append", step="run2/customers")

    with at_point(crash_points.BEFORE_LOG_ENTRY, other):
        written = put(layout, people((3, "c")), mode="append", step="run2/customers")
    assert (written.already_written, written.rows_written) == (True, 0)
    assert len(rows(layout)) == 3
    assert len(list(Path(layout.table(NAME)).glob("*.parquet"))) == 2


def test_a_checkpoint_forgets_steps_after_a_week(layout: Layout) -> None:
    def days_ago(days: int) -> Clock:
        return lambda: utc_now() - timedelta(days=days)

    put(layout, TWO, mode="append", step="old/customers", clock=days_ago(8))
    put(layout, TWO, mode="append", step="new/customers", clock=days_ago(6))
    assert maintain_asset_table(layout, NAME) is not None
    forget(layout.table(NAME))  # as a new process
    table = opened(layout.table(NAME), {}, ASSET_KIND)
    assert table is not None
    known = [app_id for app_id in table.at.transactions if app_id.startswith("asset/")]
    assert known == ["asset/new/customers"]


# --- two writers

WRITES: dict[str, Callable[[Layout, pa.Table], Any]] = {
    "overwrite": put,
    "append": lambda layout, table: put(layout, table, mode="append"),
    "merge": lambda layout, table: put(layout, table, **MERGE),
}
AFTER = {
    "overwrite": [(2, "mine"), (3, "mine")],
    "append": [(1, "a"), (2, "b"), (2, "mine"), (2, "other"), (3, "mine")],
    "merge": [(1, "a"), (2, "mine"), (3, "mine")],
}


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("adds_a_column", [False, True])
@pytest.mark.usefixtures("sizes")
def test_a_write_that_comes_second_replaces_as_if_it_began_later(
    layout: Layout, kind: str, adds_a_column: bool
) -> None:
    put(layout, TWO)
    theirs, mine = people((2, "other")), people((2, "mine"), (3, "mine"))
    if adds_a_column:
        theirs = theirs.append_column("total", pa.array([1.5]))
    other = "append" if kind == "append" else "merge"
    with at_point(crash_points.BEFORE_LOG_ENTRY, lambda: WRITES[other](layout, theirs)):
        WRITES[kind](layout, mine)
    assert [(r["id"], r["name"]) for r in rows(layout, "id", "name")] == AFTER[kind]
    assert ("total" in rows(layout)[0]) == adds_a_column


@pytest.mark.parametrize("kind", ["append", "merge"])
def test_a_write_whose_types_another_one_has_changed_writes_nothing(
    layout: Layout, kind: str
) -> None:
    put(layout, TWO)
    theirs = pa.table({"id": [Decimal("1.5")], "name": ["wide"]})
    with (
        at_point(crash_points.BEFORE_LOG_ENTRY, lambda: put(layout, theirs, mode="append")),
        pytest.raises((ConcurrentWriterError, SchemaChangeError)),
    ):
        WRITES[kind](layout, people((7, "mine")))
    assert "mine" not in [row["name"] for row in rows(layout)]


def made_meanwhile(by_other: Callable[[], object], *batches: pa.Table) -> Iterator[pa.Table]:
    """Yield a first result; another run makes the table before its last batch."""
    yield from batches[:-1]
    by_other()
    yield batches[-1]


def test_two_first_writes_at_a_time(layout: Layout) -> None:
    theirs = people((3, "c")).append_column("total", pa.array([1.5]))
    mine = made_meanwhile(lambda: put(layout, theirs, mode="append"), TWO, people((4, "d")))
    put(layout, mine, mode="append")
    found = [(row["id"], row["total"]) for row in rows(layout)]
    assert found == [(1, None), (2, None), (3, 1.5), (4, None)]


def test_two_attempts_of_a_first_append_add_once(layout: Layout) -> None:
    options: dict[str, Any] = {"mode": "append", "step": "run1/customers"}
    written = put(
        layout, made_meanwhile(lambda: put(layout, TWO, **options), TWO[:1], TWO[1:]), **options
    )
    assert (written.already_written, rows(layout)) == (True, TWO.to_pylist())


@pytest.mark.parametrize("partition_by", [None, "name"])
def test_a_first_write_that_does_not_fit_the_table_made_meanwhile(
    layout: Layout, partition_by: str | None
) -> None:
    theirs = pa.table({"id": [1.5] if partition_by is None else [1], "name": ["other"]})
    mine = made_meanwhile(lambda: put(layout, theirs), TWO[:1], TWO[1:])
    with pytest.raises((ConcurrentWriterError, SchemaChangeError)):
        put(layout, mine, partition_by=partition_by, mode="append")
    assert rows(layout) == theirs.to_pylist()
