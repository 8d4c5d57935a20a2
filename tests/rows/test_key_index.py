"""Hashes of keys, the index of a row group, and the memory that a process gives to indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.apply import chunk_size
from datazone_dagster.apply.chunk_size import ApplySettings, ChunkSizes
from datazone_dagster.delta.transaction_log import Snapshot, read_snapshot
from datazone_dagster.model.column_names import KEY
from datazone_dagster.rows import key_index
from datazone_dagster.rows import locate as locate_module
from datazone_dagster.rows.kept_indexes import (
    FILE_BYTES,
    IDLE_SECONDS,
    KeptFile,
    KeptIndexes,
    RowGroup,
)
from datazone_dagster.rows.key_hashes import MOST_BYTES, can_hash, hashes
from datazone_dagster.rows.key_index import ROW_BYTES, HashedKeys, KeyIndex, KeyIndexBuilder
from datazone_dagster.rows.locate import locate
from tests.examples import examples
from tests.rows.engine_conformance import SCHEMA, version

TEXTS = st.lists(
    st.text("ab\0\u20ac", max_size=20)
    | st.sampled_from(["k" * 8, "k" * 16, "k" * 70, "k" * 70 + "z", "k" * MOST_BYTES]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=examples(100), deadline=None)
@given(texts=TEXTS, cut=st.integers(0, 3))
def test_a_hash_depends_on_nothing_but_its_text(texts: list[str], cut: int) -> None:
    column = pa.array(texts).slice(cut)
    first, second = hashes(column)
    alone = [hashes(pa.array([text])) for text in texts[cut:]]
    assert list(zip(first, second, strict=True)) == [(one[0], two[0]) for one, two in alone]
    assert len(set(zip(first, second, strict=True))) == len(set(texts[cut:]))


def test_neither_nulls_nor_long_texts_are_hashed() -> None:
    assert can_hash(pa.array(["", "k" * MOST_BYTES]))
    assert can_hash(pa.array([], pa.string()))
    assert not can_hash(pa.array(["a", None]))
    assert not can_hash(pa.array(["k" * (MOST_BYTES + 1)]))


def index_of(keys: list[str | None], pieces: int = 2) -> KeyIndex | None:
    builder = KeyIndexBuilder(len(keys))
    for start in range(0, len(keys), pieces):
        builder.add(pa.array(keys[start : start + pieces], pa.string()))
    return builder.built()


@settings(max_examples=examples(100), deadline=None)
@given(
    rows=st.lists(st.sampled_from("abcdefgh") | st.text(max_size=20), max_size=40),
    keys=st.sets(st.sampled_from([*"abcdefgh", "\0", "k" * (MOST_BYTES + 1)]) | st.text()),
    pieces=st.integers(1, 9),
    long=st.booleans(),
)
def test_the_rows_of_an_index_are_those_with_the_keys(
    rows: list[str], keys: set[str], pieces: int, long: bool
) -> None:
    """With many rows a key, with keys that no row has, and with keys that no index can have."""
    times = 30 if long else 1
    rows, wanted = [row * times for row in rows], [key * times for key in keys]
    index = index_of(list(rows), pieces)
    assert index is not None
    positions, numbers = index.look_up(HashedKeys(pa.array(wanted, pa.string())))
    assert list(zip(positions, numbers, strict=True)) == [
        (at, wanted.index(row)) for at, row in enumerate(rows) if row in wanted
    ]


def test_a_row_whose_word_is_that_of_a_key_is_no_match_by_itself() -> None:
    """Both hashes count: the words of a row group have 44 to 64 bits of one."""
    index = index_of(["a", "b", "c"])
    assert index is not None
    keys = HashedKeys(pa.array(["a", "b", "c"]))
    other = KeyIndex(index.words, index.checks ^ np.array([0, 1, 0], np.uint32))
    assert other.look_up(keys)[0].tolist() == [0, 2]


def test_a_row_group_with_a_null_or_a_long_key_has_no_index() -> None:
    assert index_of(["a", None, "b"]) is None
    assert index_of(["a", "k" * (MOST_BYTES + 1), "b", "c"]) is None


def test_rows_that_nobody_has_added_have_no_index() -> None:
    builder = KeyIndexBuilder(3)
    builder.add(pa.array(["a", "b"]))
    assert builder.built() is None
    builder.add(pa.array(["c"]))
    assert builder.built() is not None
    builder.add(pa.array(["d"]))
    assert builder.built() is None


def table_of(path: Path, *files: int) -> Snapshot:
    """Return a table whose files have this many rows each."""
    table = DeltaTable.create(str(path), SCHEMA)
    for rows in files:
        records = [{KEY: f"k{n:09d}", "_dz_version": version(n)} for n in range(rows)]
        write_deltalake(table, pa.Table.from_pylist(records, schema=SCHEMA), mode="append")
    return read_snapshot(table, {})


class Indexes(KeptIndexes):
    """Indexes with a clock of their own."""

    def __init__(self, most_bytes: int) -> None:
        self.now = 0.0
        super().__init__(most_bytes, lambda: self.now)

    def looked_up(self, snapshot: Snapshot, times: int = 2) -> int:
        """Look keys up in a table; return the number of its indexes."""
        keys = pa.chunked_array([[f"k{n:09d}" for n in range(0, 300, 3)]])
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(locate_module, "KEPT_INDEXES", self)
            for _ in range(times):
                locate(snapshot, keys)
        kept = self.files_of(snapshot)
        return sum(len(kept(file).indexes) for file in snapshot.files)


def test_the_indexes_of_a_process_stay_within_their_memory(tmp_path: Path) -> None:
    large, small = table_of(tmp_path / "a", 300, 300, 300), table_of(tmp_path / "b", 50)
    room_for_two = 3 * FILE_BYTES + 2 * 300 * ROW_BYTES
    indexes = Indexes(room_for_two)
    assert indexes.looked_up(large) == 2
    assert indexes.size_bytes == room_for_two
    assert indexes.looked_up(small) == 0, "what is in use makes no room"
    indexes.now += IDLE_SECONDS + 1
    assert indexes.looked_up(small) == 1
    assert indexes.size_bytes == FILE_BYTES + 50 * ROW_BYTES
    indexes.limit(100)
    assert indexes.size_bytes == 0
    assert indexes.looked_up(small) == 0


def test_a_run_gives_an_eighth_of_its_memory_to_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes, snapshot = Indexes(1 << 20), table_of(tmp_path, 300)
    monkeypatch.setattr(chunk_size, "KEPT_INDEXES", indexes)
    assert indexes.looked_up(snapshot) == 1
    kept_bytes = indexes.size_bytes
    ChunkSizes(ApplySettings(memory_budget=8 * kept_bytes))
    assert indexes.size_bytes == kept_bytes
    ChunkSizes(ApplySettings(memory_budget=8 * kept_bytes - 8))
    assert indexes.size_bytes == 0


def test_what_is_kept_of_a_file_goes_with_the_file(tmp_path: Path) -> None:
    indexes = Indexes(1 << 20)
    before = table_of(tmp_path, 300, 200)
    assert indexes.looked_up(before) == 2
    table = DeltaTable(tmp_path)
    table.optimize.compact()
    after = read_snapshot(table, {})
    assert indexes.looked_up(after) == 1
    assert indexes.size_bytes == FILE_BYTES + 500 * ROW_BYTES


def test_a_lookup_during_which_everything_is_dropped_keeps_nothing(tmp_path: Path) -> None:
    indexes, snapshot = Indexes(1 << 20), table_of(tmp_path, 300)
    assert indexes.looked_up(snapshot) == 1
    kept = indexes.files_of(snapshot)
    indexes.limit(0)
    indexes.limit(1 << 20)
    assert not kept(snapshot.files[0]).is_kept
    assert indexes.size_bytes == 0
    assert indexes.looked_up(snapshot) == 1


def test_an_index_that_is_not_finished_takes_no_memory(tmp_path: Path) -> None:
    """The reading fails, another thread makes the same one, or everything is dropped meanwhile."""
    snapshot = table_of(tmp_path, 300)
    indexes = Indexes(1 << 20)
    kept = indexes.files_of(snapshot)(snapshot.files[0])
    kept.read_once.add(0)
    group = RowGroup(0, range(300), None, None, None)

    def read_in_part() -> None:
        with indexes.builders(snapshot, kept, [group]) as builders:
            assert indexes.size_bytes == FILE_BYTES + 300 * ROW_BYTES
            builders[0].add(pa.array(["a"] * 200))
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        read_in_part()
    assert (indexes.size_bytes, kept.indexes) == (FILE_BYTES, {})
    with (
        indexes.builders(snapshot, kept, [group]) as one,
        indexes.builders(snapshot, kept, [group]) as two,
    ):
        for builder in (one[0], two[0]):
            builder.add(pa.array(["a"] * 300))
    assert indexes.size_bytes == FILE_BYTES + 300 * ROW_BYTES
    del kept.indexes[0]
    with indexes.builders(snapshot, kept, [group]):
        indexes.limit(0)
    assert indexes.size_bytes == 0


def test_a_row_group_that_cant_have_an_index_is_not_tried_again(tmp_path: Path) -> None:
    snapshot = table_of(tmp_path, 3)
    indexes = Indexes(1 << 20)
    kept: KeptFile = indexes.files_of(snapshot)(snapshot.files[0])
    kept.read_once.add(0)
    group = RowGroup(0, range(3), None, None, None)
    with indexes.builders(snapshot, kept, [group]) as builders:
        builders[0].add(pa.array(["a", None, "b"]))
    assert (indexes.size_bytes, kept.indexes) == (FILE_BYTES, {0: None})
    with indexes.builders(snapshot, kept, [group]) as builders:
        assert builders == {}


@pytest.mark.parametrize("rows", [3, 4])
def test_hashes_of_other_rows_than_the_file_has_are_dropped(tmp_path: Path, rows: int) -> None:
    snapshot = table_of(tmp_path, 4)
    indexes = Indexes(1 << 20)
    kept = indexes.files_of(snapshot)(snapshot.files[0])
    builder = KeyIndexBuilder(rows)
    builder.add(pa.array(["a", "b", "c", "d"][:rows]))
    indexes.written(snapshot, snapshot.files[0], builder)
    groups = [range(1), range(1, 4)]
    indexes.found(kept, [RowGroup(at, of, None, None, None) for at, of in enumerate(groups)])
    assert set(kept.indexes) == ({0, 1} if rows == 4 else set())
    assert indexes.size_bytes == FILE_BYTES + (4 * ROW_BYTES if rows == 4 else 0)


def test_a_row_group_with_too_many_rows_gets_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datazone_dagster.rows.kept_indexes.MOST_ROWS", 299)
    assert Indexes(1 << 20).looked_up(table_of(tmp_path, 300, 299)) == 1
    assert key_index.MOST_ROWS < 1 << 24, "a word has at least 40 bits of a hash"
