"""Conformance suite of the merge engines; each engine's test class runs it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.schema import PrimitiveType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.delta import create_table, open_table, transaction
from datazone_dagster.delta.transaction_log import LiveFile, entry_actions, read_snapshot
from datazone_dagster.delta.vectors import Vector
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.model.version import row_version
from datazone_dagster.process import crash_points
from datazone_dagster.rows.engine import MergeEngine, MergeTarget
from datazone_dagster.rows.merge_batch import KEYED_CHANGES_SCHEMA, MergeBatch
from datazone_dagster.testing import at_point
from tests.examples import examples
from tests.tables import table_at

SCHEMA = pa.schema(
    [
        ("value", pa.int64()),
        ("part", pa.string()),
        ("_dz_key", pa.string()),
        ("_dz_version", pa.string()),
        ("_dz_event_time", pa.timestamp("us", tz="UTC")),
    ]
)

KeyedChange = tuple[str, int, tuple[int, ...]]
"""Key, sequence number, values of the key's rows; without values the key leaves."""


def version(number: int) -> str:
    return row_version(1, 10**25 + number)


def batch_of(keyed_changes: Iterable[KeyedChange]) -> MergeBatch:
    keyed_changes = list(keyed_changes)
    return MergeBatch(
        pa.Table.from_pylist(
            [
                {
                    "_dz_key": key,
                    "_dz_version": version(number),
                    "cause": None if values else "user",
                }
                for key, number, values in keyed_changes
            ],
            schema=KEYED_CHANGES_SCHEMA,
        ),
        pa.Table.from_pylist(
            [
                {
                    "value": value,
                    "part": "ab"[value % 2],
                    "_dz_key": key,
                    "_dz_version": version(number),
                }
                for key, number, values in keyed_changes
                for value in values
            ],
            schema=SCHEMA,
        ),
    )


class EngineConformance:
    """Base class: subclasses set `engine`, and `read` if rows need more than delta-rs' reader."""

    engine: MergeEngine
    most_rows = 3
    """Most rows of a key that the engine replaces as one."""
    replaces = True
    """Whether the engine has `replace`."""
    partition_by: tuple[str, ...] = ()
    configuration: dict[str, str] = {}

    def new(self, root: Path) -> str:
        uri = str(root)
        create_table(
            uri,
            {},
            KIND,
            SCHEMA,
            partition_by=self.partition_by,
            configuration=self.configuration,
        )
        return uri

    def open(self, uri: str) -> DeltaTable:
        table = open_table(uri, {}, KIND)
        assert table is not None
        return table

    def merge(
        self,
        uri: str,
        keyed_changes: Iterable[KeyedChange],
        table: DeltaTable | None = None,
        number: int = 0,
    ) -> MergeCounts:
        table = table or self.open(uri)
        number = number or (table.transaction_version("apply/t") or 0) + 1
        target = MergeTarget("t", table_at(table), SCHEMA)
        return self.engine.merge(target, batch_of(keyed_changes), transaction("apply/t", number))

    def read(self, uri: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = pa.table(self.open(uri).scan()).to_pylist()
        return rows

    def state(self, uri: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        found: dict[str, tuple[str, list[int]]] = {}
        for row in self.read(uri):
            of_key = found.setdefault(str(row["_dz_key"]), (str(row["_dz_version"]), []))
            assert of_key[0] == row["_dz_version"], "rows of one key have two versions"
            assert isinstance(row["value"], int)
            of_key[1].append(row["value"])
        return {key: (number, tuple(sorted(values))) for key, (number, values) in found.items()}

    def test_inserts_updates_and_deletes_are_counted_and_seen(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        assert self.merge(uri, [("a", 1, (1,)), ("b", 2, (2,))]) == MergeCounts(2, 0, 0)
        assert self.merge(uri, [("a", 3, (3,)), ("b", 4, ()), ("c", 5, (5,))]) == MergeCounts(
            1, 1, 1
        )
        assert self.state(uri) == {"a": (version(3), (3,)), "c": (version(5), (5,))}

    def test_an_older_or_equal_version_changes_nothing(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 5, (5,))])
        assert self.merge(uri, [("a", 5, (6,))]) == MergeCounts()
        assert self.merge(uri, [("a", 4, ())]) == MergeCounts()
        assert self.state(uri) == {"a": (version(5), (5,))}

    def test_the_rows_of_a_key_are_replaced_as_one(self, tmp_path: Path) -> None:
        if self.most_rows < 3:
            return
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1, 2, 3)), ("b", 1, (9, 9))])
        self.merge(uri, [("a", 2, (7, 8))])
        assert self.state(uri) == {"a": (version(2), (7, 8)), "b": (version(1), (9, 9))}

    def test_the_position_moves_even_if_no_row_changes(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 5, (5,))])
        self.merge(uri, [("a", 4, (4,)), ("never", 4, ())])
        self.merge(uri, [])
        assert self.open(uri).transaction_version("apply/t") == 3

    def test_of_two_merges_from_one_version_the_second_fails_and_writes_nothing(
        self, tmp_path: Path
    ) -> None:
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1,))])
        for first, second in [
            ([("a", 2, (2,))], [("b", 2, (2,))]),
            ([("b", 3, (3,))], [("a", 3, (9,))]),
            ([("c", 4, (4,))], [("d", 4, (4,))]),
        ]:
            number = (self.open(uri).transaction_version("apply/t") or 0) + 1
            one, other = self.open(uri), self.open(uri)
            self.merge(uri, first, table=one, number=number)
            before = self.state(uri)
            try:
                self.merge(uri, second, table=other, number=number)
            except ConcurrentWriterError:
                pass
            else:
                raise AssertionError("both merges from one version succeeded")
            assert self.state(uri) == before

    @settings(
        max_examples=examples(12),
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        batches=st.lists(
            st.lists(
                st.tuples(
                    st.sampled_from("abcdef"),
                    st.integers(1, 30),
                    st.lists(st.integers(0, 99), max_size=3).map(tuple),
                ),
                max_size=6,
                unique_by=lambda keyed_change: keyed_change[0],
            ),
            max_size=6,
        )
    )
    def test_any_sequence_of_batches_equals_the_model(
        self, tmp_path_factory: object, batches: list[list[KeyedChange]]
    ) -> None:
        uri = self.new(tmp_path_factory.mktemp("table"))  # type: ignore[attr-defined] # pytest's factory
        model: dict[str, tuple[str, tuple[int, ...]]] = {}
        for batch in batches:
            keyed_changes = [(key, number, rows[: self.most_rows]) for key, number, rows in batch]
            self.merge(uri, keyed_changes)
            for key, number, values in keyed_changes:
                if key not in model or version(number) > model[key][0]:
                    if values:
                        model[key] = (version(number), tuple(sorted(values)))
                    else:
                        model.pop(key, None)
            assert self.state(uri) == model

    # -- our own engines: commits of other writers at the worst moment

    plans_again = True
    """Whether the engine plans again after another writer's commit instead of failing."""

    def others(self, uri: str, kind: str, number: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Commit as another writer; return the rows that the commit adds."""
        table = self.open(uri)
        if kind == "compact":
            table.optimize.compact()
        elif kind == "checkpoint":
            table.create_checkpoint()
        elif kind == "append":
            rows = batch_of([(f"other{number}", 1, (number,))]).rows
            write_deltalake(table, rows, mode="append")
            return {f"other{number}": (version(1), (number,))}
        elif kind == "merge":
            target = MergeTarget("t", table_at(table), SCHEMA)
            keyed_changes = [(f"other{number}", 7, (number, number)), ("other0", number, (number,))]
            self.engine.merge(target, batch_of(keyed_changes), transaction("apply/other", number))
            return {
                f"other{number}": (version(7), (number, number)),
                "other0": (version(number), (number,)),
            }
        return {}

    @settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        script=st.lists(
            st.tuples(
                st.lists(
                    st.tuples(
                        st.sampled_from(["a", "b", "c", "d" * 70, "d" * 70 + "e", "\U0001f600"]),
                        st.integers(1, 30),
                        st.lists(st.integers(0, 99), max_size=2).map(tuple),
                    ),
                    max_size=5,
                    unique_by=lambda keyed_change: keyed_change[0],
                ),
                st.sampled_from(["", "", "append", "merge", "compact", "checkpoint"]),
            ),
            min_size=1,
            max_size=7,
        )
    )
    def test_no_merge_is_lost_to_commits_in_between(
        self, tmp_path_factory: object, script: list[tuple[list[KeyedChange], str]]
    ) -> None:
        if not self.plans_again:
            return
        uri = self.new(tmp_path_factory.mktemp("table"))  # type: ignore[attr-defined] # pytest's factory
        model: dict[str, tuple[str, tuple[int, ...]]] = {}
        for number, (keyed_changes, other) in enumerate(script, 1):
            with at_point(
                crash_points.BEFORE_LOG_ENTRY,
                partial(lambda *args: model.update(self.others(*args)), uri, other, number),
            ):
                switched = self.writes_vectors(uri)
                try:
                    self.merge(uri, keyed_changes)
                except ConcurrentWriterError:
                    # The other writer switched the table to deletion vectors: the merge wrote
                    # nothing, and a run continues from there.
                    assert self.writes_vectors(uri) is not switched
                    self.merge(uri, keyed_changes)
            for key, sequence, values in keyed_changes:
                if key not in model or version(sequence) > model[key][0]:
                    if values:
                        model[key] = (version(sequence), tuple(sorted(values)))
                    else:
                        model.pop(key, None)
            assert self.state(uri) == model
        assert self.open(uri).transaction_version("apply/t") == len(script)
        self.assert_no_orphans(uri)

    def writes_vectors(self, uri: str) -> bool:
        return read_snapshot(self.open(uri), {}).writes_vectors

    def assert_no_orphans(self, uri: str) -> None:
        """Assert that some version of the table refers to every file in the folder."""
        known: set[str] = set()
        table = self.open(uri)
        for entry in sorted(Path(uri, "_delta_log").glob("*.json")):
            for action in entry_actions(entry.read_bytes()):
                if "add" in action:
                    file = LiveFile(action["add"], None)
                    known.add(file.path)
                    vector = action["add"].get("deletionVector")
                    known |= {Vector.of_action(vector).path} if vector else set()
        found = {
            str(path.relative_to(uri))
            for path in Path(uri).rglob("*")
            if path.suffix in (".parquet", ".bin") and "_delta_log" not in path.parts
        }
        assert found <= known
        assert table.version() >= 0

    def test_a_merge_loses_the_race_against_a_change_of_the_table_itself(
        self, tmp_path: Path
    ) -> None:
        if not self.plans_again:
            return
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1,)), ("b", 1, (2,))])
        self.merge(uri, [("a", 2, (1,))])

        def add_a_column() -> None:
            self.open(uri).alter.add_columns([Field("more", PrimitiveType("long"))])

        with (
            at_point(crash_points.BEFORE_LOG_ENTRY, add_a_column),
            pytest.raises(ConcurrentWriterError, match="metadata"),
        ):
            self.merge(uri, [("b", 5, (5,))])
        assert self.state(uri)["b"] == (version(1), (2,))
        self.assert_no_orphans(uri)
        self.merge(uri, [("b", 5, (5,))])
        assert self.state(uri)["b"] == (version(5), (5,))

    def test_replace_removes_the_rows_of_key_and_version(self, tmp_path: Path) -> None:
        if not self.replaces:
            return
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1, 2)), ("b", 1, (3,)), ("c", 1, (4,))])
        removed = pa.table(
            {"_dz_key": ["a", "b", "none"], "_dz_version": [version(1), version(2), version(1)]}
        )
        rows = batch_of([("a", 1, (8,)), ("d", 3, (9,))]).rows
        target = MergeTarget("t", table_at(self.open(uri)), SCHEMA)
        self.engine.replace(target, removed, rows, transaction("apply/t", 2))
        assert self.state(uri) == {
            "a": (version(1), (8,)),
            "b": (version(1), (3,)),
            "c": (version(1), (4,)),
            "d": (version(3), (9,)),
        }
        assert target.table.transaction("apply/t") == 2

    def test_replace_never_plans_again(self, tmp_path: Path) -> None:
        if not self.replaces:
            return
        uri = self.new(tmp_path)
        self.merge(uri, [("a", 1, (1,)), ("b", 1, (3,))])
        removed = pa.table({"_dz_key": ["a"], "_dz_version": [version(1)]})
        target = MergeTarget("t", table_at(self.open(uri)), SCHEMA)
        write_deltalake(self.open(uri), batch_of([("z", 1, (1,))]).rows, mode="append")
        with pytest.raises(ConcurrentWriterError):
            self.engine.replace(
                target, removed, batch_of([("a", 2, (8,))]).rows, transaction("apply/t", 2)
            )
        assert self.state(uri)["a"] == (version(1), (1,))
