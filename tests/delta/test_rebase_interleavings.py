"""Several writers of one table, in any order with one another and with other commits.

Each writer has rows of its own, in one file that each of its commits replaces by one with a row
more. So a commit that is put after commits that it does not fit would lose rows or double them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datazone_dagster.delta import transactions
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.put_entry import put_entry
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import LiveFile, Snapshot, read_snapshot
from datazone_dagster.errors import ConcurrentWriterError
from tests.examples import examples

SCHEMA = pa.schema([("writer", pa.int64()), ("n", pa.int64())])
WRITERS = (0, 1, 2)
OTHER = 9
WHAT = ("begin", "begin", "commit", "commit", "join", "property", "vacuum", "row")
STEPS = st.lists(
    st.tuples(st.sampled_from(WHAT), st.sampled_from(WRITERS)),
    max_size=20,
)
Row = tuple[int, int]


@dataclass
class Attempt:
    """A commit that waits: its writer, its row, and the version that it was planned on."""

    writer: int
    number: int
    at: Snapshot
    fits: bool = True
    """Whether no commit came since that concerns its rows, as far as it can tell."""


class World:
    """One table, and the rows that it must have."""

    def __init__(self, root: str) -> None:
        DeltaTable.create(root, SCHEMA)
        self.root = root
        self.expected: list[Row] = []
        self.attempts: list[Attempt] = []

    def now(self) -> Snapshot:
        return read_snapshot(DeltaTable(self.root), {})

    def rows(self) -> list[Row]:
        found = pa.table(DeltaTable(self.root).scan()).to_pylist()
        return sorted((row["writer"], row["n"]) for row in found)

    def step(self, what: str, writer: int, number: int) -> None:
        waiting = [one for one in self.attempts if one.writer == writer]
        if what == "begin" and len(waiting) < 2:
            self.attempts.append(Attempt(writer, number, self.now()))
        elif what == "commit" and waiting:
            self.commit(waiting[-1])
        elif what == "join" and (files := files_of(self.now(), writer)):
            self.put(self.now(), files, rows_in(self.now(), files), data_change=False)
            self.outdate(writer)
        elif what == "property":
            table = DeltaTable(self.root)
            table.alter.set_table_properties({"x": str(number)}, raise_if_not_exists=False)
            self.outdate(*WRITERS)
        elif what == "vacuum":
            put_entry(self.now(), [], operation="VACUUM END", parameters={}, metrics={})
            self.outdate(*WRITERS)
        elif what == "row":
            rows = pa.table({"writer": [OTHER], "n": [number]}, SCHEMA)
            write_deltalake(self.root, rows, mode="append")
            self.expected.append((OTHER, number))
            self.outdate(*WRITERS)

    def outdate(self, *writers: int) -> None:
        for one in self.attempts:
            one.fits = one.fits and one.writer not in writers

    def commit(self, attempt: Attempt) -> None:
        self.attempts.remove(attempt)
        own = f"writer/{attempt.writer}"
        files = files_of(attempt.at, attempt.writer)
        row = attempt.writer, attempt.number

        def work() -> None:
            self.put(
                attempt.at,
                files,
                [*rows_in(attempt.at, files), row],
                own={own: attempt.number + 1},
                independent=lambda app_id: app_id != own,
            )

        if not attempt.fits:
            with pytest.raises((LostRaceError, ConcurrentWriterError)):
                work()
            return
        work()
        self.expected.append(row)
        self.outdate(attempt.writer)

    def put(
        self,
        at: Snapshot,
        removes: Sequence[LiveFile],
        rows: Sequence[Row],
        *,
        own: dict[str, int] | None = None,
        independent: Callable[[str], bool] | None = None,
        data_change: bool = True,
    ) -> None:
        columns = dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
        batches = pa.table(columns, SCHEMA).to_batches()
        add = write_data_file(at.store, SCHEMA, {}, batches, data_change=data_change)
        assert add is not None
        commit_files(
            at,
            FileActions([add], removes, [add["path"]], data_change),
            operation="WRITE",
            parameters={},
            metrics={},
            properties=None if own is None else transactions(own),
            independent=independent,
        )


def files_of(at: Snapshot, writer: int) -> list[LiveFile]:
    return [file for file in at.files if file.minimum["writer"] == writer]


def rows_in(at: Snapshot, files: Sequence[LiveFile]) -> list[Row]:
    batches = [
        batch for file in files for batch in live_batches(at, file, SCHEMA, at.deleted_in(file))
    ]
    rows = pa.Table.from_batches(batches, SCHEMA).to_pylist()
    return [(row["writer"], row["n"]) for row in rows]


@settings(max_examples=examples(60), deadline=None)
@given(STEPS)
@example([("begin", 0), ("begin", 1), ("commit", 1), ("commit", 0)])
@example([("begin", 0), ("begin", 0), ("commit", 0), ("commit", 0)])
@example([("begin", 0), ("commit", 0), ("begin", 0), ("begin", 1), ("join", 0), ("commit", 0)])
@example([("begin", 0), ("commit", 0), ("begin", 1), ("join", 0), ("commit", 1)])
@example([("begin", 0), ("row", 0), ("commit", 0)])
@example([("begin", 0), ("begin", 1), ("commit", 1), ("vacuum", 0), ("commit", 0)])
def test_a_commit_fits_or_loses(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    world = World(str(tmp_path_factory.mktemp("shared") / "t"))
    for number, (what, writer) in enumerate(steps):
        world.step(what, writer, number)
        assert world.rows() == sorted(world.expected)
