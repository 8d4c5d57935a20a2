"""Two runs of one history dataset: what the one that loses has stored changes no row later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datazone_dagster.dataset.absorbed_changes import AbsorbedChanges
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
from datazone_dagster.process import crash_points
from datazone_dagster.rows.conform import conform
from datazone_dagster.rows.merge_batch import CAUSE
from datazone_dagster.testing import at_point
from tests.dataset.history_model import START, Change, intervals, scripts
from tests.dataset.test_modes import ON_DISK, Table, a, rows_of

READ, STORED, FITTED = crash_points.BEFORE_DATASET_COMMIT, crash_points.AFTER_TOMBSTONES, "fitted"
NAIVE = pa.timestamp("us")


class Pair:
    """A slow and a fast run of one dataset, which apply the same chunks."""

    def __init__(self, root: Path, *, adds_columns: bool) -> None:
        self.slow, self.fast = (Table(root, "history", "soft") for _ in range(2))
        self.adds_columns = adds_columns
        self.applied = 0

    def rows(self, chunk: Sequence[Change]) -> pa.Table:
        """Rows of the slow run; they may have a column that needs a commit of its own."""
        rows = rows_of(chunk)
        if not (self.adds_columns and self.applied):
            return rows
        return rows.append_column(f"at{self.applied}", pa.nulls(len(rows), NAIVE))

    def apply(self, chunk: Sequence[Change]) -> None:
        self.fast.apply(chunk)
        self.applied += 1

    def overtaken(self, chunks: Sequence[Sequence[Change]], slow: int, point: str) -> None:
        """Let the slow run apply the first chunks as one; the fast one overtakes it at a point."""
        chunk = list(dict.fromkeys(change for one in chunks[:slow] for change in one))
        rows = self.rows(chunk)

        def overtake() -> None:
            for one in chunks:
                self.apply(one)

        context = fitting(overtake) if point == FITTED else at_point(point, overtake)
        before = self.applied
        with context:
            try:
                self.slow.apply(chunk, rows)
            except ConcurrentWriterError:
                assert self.applied > before
            else:  # it stored no absorbed change: there was no such point
                assert self.applied == before
                self.applied += 1
                for one in chunks:
                    self.apply(one)


@contextmanager
def fitting(others: Callable[[], None]) -> Iterator[None]:
    """Let others come first while the columns of absorbed changes are fitted, once."""
    waiting = [others]

    def fitted(*given: Any, **named: Any) -> Any:
        found = conform(*given, **named)
        if waiting:
            waiting.pop()()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datazone_dagster.dataset.absorbed_changes.conform", fitted)
        yield


def test_columns_that_are_added_first_do_not_hide_another_put(tmp_path: Path) -> None:
    """Both puts would have one number, and the change two rows."""
    slow, fast = (AbsorbedChanges(Layout(str(tmp_path)), "t", "source") for _ in range(2))
    change = rows_of([a(1, ("new", 1))]).append_column(CAUSE, pa.array(["user"]))
    slow.put(change.append_column("at1", pa.nulls(1, NAIVE)), START)
    wider = change.append_column("at2", pa.nulls(1, NAIVE))
    with fitting(lambda: fast.put(change, START)), pytest.raises(ConcurrentWriterError):
        slow.put(wider, START)
    found = slow.for_keys(pa.array(["a"]), wider.schema.remove(wider.schema.get_field_index(CAUSE)))
    assert len(found) == 1
    slow.put(wider, START)


Script = tuple[list[Change], list[list[Change]]]
EQUAL = [a(1, ("new", 1)), a(5, ("new", 1)), a(9, ("new", 1))]
LATE = [a(3, ("paid", 1)), a(7, ("paid", 0))]


@ON_DISK
@given(
    script=scripts(),
    turns=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([READ, STORED, FITTED])),
        min_size=8,
        max_size=8,
    ),
    adds_columns=st.booleans(),
)
@example((EQUAL, [EQUAL[:2], EQUAL[2:], LATE[:1], LATE[1:]]), [(2, 1, FITTED)] * 8, True)
@example((EQUAL, [EQUAL[:2], EQUAL[2:], LATE[:1], LATE[1:]]), [(3, 2, READ)] * 8, True)
@example((EQUAL, [EQUAL, LATE[:1], LATE[1:]]), [(3, 1, READ)] * 8, False)
def test_a_run_that_loses_leaves_absorbed_changes_that_change_no_row(
    tmp_path_factory: pytest.TempPathFactory,
    script: Script,
    turns: list[tuple[int, int, str]],
    adds_columns: bool,
) -> None:
    pair = Pair(tmp_path_factory.mktemp("lakehouse"), adds_columns=adds_columns)
    chunks, seen = list(script[1]), list[Change]()
    for count, slow, point in turns:
        if not chunks:
            break
        taken, chunks = chunks[: max(count, 1)], chunks[max(count, 1) :]
        if count:
            pair.overtaken(taken, slow, point)
        else:
            pair.apply(taken[0])
        seen += [change for one in taken for change in one]
        assert pair.slow.intervals() == intervals(seen)
    for one in chunks:
        pair.apply(one)
    for one in script[1]:  # everything once more, in another order
        pair.apply(list(reversed(one)))
    assert pair.slow.intervals() == intervals([*seen, *(c for one in script[1] for c in one)])
