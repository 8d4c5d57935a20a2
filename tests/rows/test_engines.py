from __future__ import annotations

from pathlib import Path

import pytest

from datazone_dagster.rows import row_changes
from datazone_dagster.rows.delta_rs_engine import DeltaMergeEngine
from datazone_dagster.rows.engines import AutoEngine, CopyOnWriteEngine, MergeOnReadEngine
from tests.rows.engine_conformance import EngineConformance


class TestCopyOnWrite(EngineConformance):
    engine = CopyOnWriteEngine()

    def touched_and_untouched(self, uri: str) -> None:
        """Write four files of even values, and a merge that replaces a row in three of them."""
        for number, letter in enumerate("abcd"):
            self.merge(uri, [(f"{letter}{row}", number, (2 * row,)) for row in range(3)])
        self.merge(uri, [("a0", 9, (4,)), ("b0", 9, ()), ("c0", 9, (6, 8)), ("new", 9, (10,))])

    def test_files_that_are_rewritten_anyway_become_one_with_the_new_rows(
        self, tmp_path: Path
    ) -> None:
        uri = self.new(tmp_path)
        self.touched_and_untouched(uri)
        assert len(self.open(uri).file_uris()) == 2
        found = sorted((row["_dz_key"], row["value"]) for row in self.read(uri))
        before = [(f"{letter}{row}", 2 * row) for letter in "abcd" for row in range(3)]
        removed = {("a0", 0), ("b0", 0), ("c0", 0)}
        added = [("a0", 4), ("c0", 6), ("c0", 8), ("new", 10)]
        assert found == sorted([*(row for row in before if row not in removed), *added])

    def test_large_files_are_not_joined(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(row_changes, "JOINED_BYTES", 1)
        uri = self.new(tmp_path)
        self.touched_and_untouched(uri)
        assert len(self.open(uri).file_uris()) == 5


class TestCopyOnWritePartitioned(EngineConformance):
    engine = CopyOnWriteEngine()
    partition_by = ("part",)

    def test_files_of_two_partitions_are_not_joined(self, tmp_path: Path) -> None:
        uri = self.new(tmp_path)
        for number in range(2):
            self.merge(uri, [(f"{number}{row}", number, (row,)) for row in range(4)])
        self.merge(uri, [("00", 9, (2,)), ("01", 9, (3,)), ("10", 9, (2,)), ("11", 9, (3,))])
        assert len(self.open(uri).file_uris()) == 2
        assert sorted(str(row["value"]) for row in self.read(uri)) == [*"22223333"]


class TestMergeOnRead(EngineConformance):
    engine = MergeOnReadEngine()


class TestMergeOnReadPartitioned(EngineConformance):
    engine = MergeOnReadEngine()
    partition_by = ("part",)


class TestAutoThatSwitches(EngineConformance):
    engine = AutoEngine(rewrite_bytes=2000)


class TestDeltaMerge(EngineConformance):
    engine = DeltaMergeEngine()
    plans_again = False
