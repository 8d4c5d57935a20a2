"""The state that a process keeps of a table equals what a new process reads, whatever happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore

from datazone_dagster.delta import (
    FORMAT,
    KIND,
    KNOWN_FORMAT,
    create_table,
    open_table,
    table_state,
    transaction,
)
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files
from datazone_dagster.delta.log_files import LOG, entry_path
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table_state import KeptTable, kept_table
from datazone_dagster.delta.transaction_log import Snapshot, newest_snapshot
from datazone_dagster.errors import (
    ConcurrentWriterError,
    NewerTableError,
    StorageError,
    UnrecognisedTableError,
)
from tests.examples import examples

SCHEMA = pa.schema([("n", pa.int64())])
TEST_KIND = "test"


class ObjectsOnDisk(TableStore):
    """A folder that is treated as an object store: requests through obstore, listings, e_tags."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), {})
        self._local = None
        self.__dict__["_objects"] = LocalStore(folder, mkdir=True)
        self.reads: list[str] = []

    def read_identified(self, path: str) -> tuple[bytes, str] | None:
        self.reads.append(path)
        return super().read_identified(path)


def kept(folder: Path, *, local: bool) -> KeptTable:
    table = KeptTable(str(folder), {}, TEST_KIND)
    if not local:
        table.store = ObjectsOnDisk(folder)
    return table


def create(folder: Path) -> None:
    create_table(str(folder), {}, TEST_KIND, SCHEMA)


def commit(
    snapshot: Snapshot, number: int, removes: int = 0, note: dict[str, int] | None = None
) -> Snapshot:
    """Commit a file that is only named, and remove the oldest ones."""
    add = {
        "path": f"part-{number}-{snapshot.version}.parquet",
        "partitionValues": {},
        "size": 10,
        "modificationTime": 1,
        "dataChange": True,
        "stats": json.dumps({"numRecords": number}),
    }
    return commit_files(
        snapshot,
        FileActions([add], snapshot.files[:removes]),
        operation="WRITE",
        parameters={},
        metrics={},
        properties=transaction("ours", number),
        table_properties={"datazone.x": str(number)} if number % 5 == 0 else None,
        note=note,
    )


def facts(snapshot: Snapshot | None) -> object:
    if snapshot is None:
        return None
    return (
        snapshot.version,
        snapshot.anchor,
        snapshot.protocol,
        {name: value for name, value in snapshot.metadata.items() if value is not None},
        snapshot.transactions,
        {key: file.add["path"] for key, file in snapshot.by_identity.items()},
    )


def cold(table: KeptTable, folder: Path) -> Snapshot | None:
    store = TableStore(str(folder), {}) if table.store.is_local else ObjectsOnDisk(folder)
    return newest_snapshot(store)


class World:
    """One table, one process that keeps its state, and everything that others may do to it."""

    def __init__(self, root: Path, *, local: bool) -> None:
        self.folder, self.copy = root / "table", root / "copy"
        create(self.folder)
        self.table = kept(self.folder, local=local)
        self.number = 0

    def own(self) -> None:
        known = self.table.known()
        if known is not None:
            self.number += 1
            try:
                self.table.took(commit(known, self.number, removes=self.number % 3))
            except (LostRaceError, ConcurrentWriterError):
                assert facts(cold(self.table, self.folder)) != facts(known)

    def others(self, count: int = 1) -> None:
        for _ in range(count):
            snapshot = cold(self.table, self.folder)
            if snapshot is not None:
                self.number += 1
                commit(snapshot, self.number, removes=self.number % 2)

    def many(self) -> None:
        self.others(table_state.FORWARD_MOST + 2)

    def checkpoint(self) -> None:
        if (self.folder / LOG).exists():
            DeltaTable(self.folder).create_checkpoint()

    def clean(self) -> None:
        hint = self.folder / LOG / "_last_checkpoint"
        if hint.exists():
            version = json.loads(hint.read_text())["version"]
            for entry in (self.folder / LOG).glob("*.json"):
                if int(entry.stem) <= version - (self.number % 2):
                    entry.unlink()

    def lose_hint(self) -> None:
        (self.folder / LOG / "_last_checkpoint").unlink(missing_ok=True)

    def make_again(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        create(self.folder)

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.copy, ignore_errors=True)
            shutil.copytree(self.folder, self.copy)

    def restore(self) -> None:
        if self.copy.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(self.copy, self.folder)

    def look(self) -> None:
        now = self.table.now()
        assert facts(now) == facts(cold(self.table, self.folder))
        assert self.table.known() is now


OPERATIONS: list[Callable[[World], None]] = [
    World.own,
    World.others,
    World.many,
    World.checkpoint,
    World.clean,
    World.lose_hint,
    World.make_again,
    World.delete,
    World.save,
    World.restore,
    World.look,
]


@pytest.mark.parametrize("local", [True, False], ids=["disk", "objects"])
@given(steps=st.lists(st.sampled_from(OPERATIONS), max_size=14))
@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_kept_state_equals_a_cold_read(
    local: bool, steps: list[Callable[[World], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_state, "COMPARED_EVERY_SECONDS", 0.0)
    with TemporaryDirectory() as folder:
        world = World(Path(folder), local=local)
        for step in (World.look, *steps, World.look):
            step(world)


@pytest.fixture(params=[True, False], ids=["disk", "objects"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> KeptTable:
    create(tmp_path / "t")
    return kept(tmp_path / "t", local=request.param)


def test_an_own_commit_moves_the_state_without_a_read(tmp_path: Path) -> None:
    create(tmp_path / "t")
    table = kept(tmp_path / "t", local=False)
    store = table.store
    assert isinstance(store, ObjectsOnDisk)
    first = table.now()
    assert first is not None
    store.reads.clear()
    after = table.took(commit(first, 1, note={"batch": 1}))
    assert store.reads == []
    assert table.known() is after
    assert table.now() is after
    assert store.reads == [entry_path(2)]
    assert [(note.version, note.content) for note in after.notes] == [(1, {"batch": 1})]
    read = newest_snapshot(ObjectsOnDisk(tmp_path / "t"))
    assert read is not None
    assert read.notes == after.notes
    assert facts(read) == facts(after)


def test_a_commit_on_a_table_made_again_loses_and_leaves_no_hole(
    table: KeptTable, tmp_path: Path
) -> None:
    known = table.now()
    assert known is not None
    for number in range(1, 4):
        known = table.took(commit(known, number))
    shutil.rmtree(tmp_path / "t")
    create(tmp_path / "t")
    with pytest.raises(ConcurrentWriterError, match="made again"):
        commit(known, 4)
    assert sorted(path.name for path in (tmp_path / "t" / LOG).glob("*.json")) == [
        Path(entry_path(0)).name
    ]
    table.forget()  # as `forget` does for the tables of `kept_table`
    again = table.now()
    assert again is not None
    assert again.version == 0
    assert commit(again, 1).version == 1


def test_entries_of_a_table_made_again_do_not_move_the_former_one(
    table: KeptTable, tmp_path: Path
) -> None:
    known = table.now()
    assert known is not None
    table.took(commit(known, 1))
    shutil.rmtree(tmp_path / "t")
    create(tmp_path / "t")
    other = kept(tmp_path / "t", local=table.store.is_local)
    again = other.now()
    assert again is not None
    for number in range(7, 10):  # one entry more than the former table had
        again = other.took(commit(again, number))
    assert facts(table.now()) == facts(cold(table, tmp_path / "t"))


def test_a_process_forgets_what_it_keeps_of_a_table_that_was_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    create(folder)
    table = kept_table(str(folder), {}, TEST_KIND)
    known = table.now()
    assert known is not None
    shutil.rmtree(folder)
    create(folder)
    with pytest.raises(ConcurrentWriterError):
        commit(known, 1)
    assert table.known() is None


def test_a_snapshot_behind_loses_the_race_and_stays_as_it_was(table: KeptTable) -> None:
    known = table.now()
    assert known is not None
    after = commit(known, 1)
    before = facts(known)
    with pytest.raises(ConcurrentWriterError, match="same changes"):
        commit(known, 1)
    assert facts(known) == before
    assert facts(table.now()) == facts(after)


def test_a_table_that_comes_into_being_is_seen(tmp_path: Path) -> None:
    for local in (True, False):
        folder = tmp_path / str(local)
        table = kept(folder, local=local)
        assert table.now() is None
        assert table.seen() is None
        create(folder)
        assert (table.seen() is None) is not local  # a look at a local disk costs no request
        found = table.now()
        assert found is not None
        assert found.version == 0


def test_a_state_from_far_behind_is_read_from_the_checkpoint(
    table: KeptTable, tmp_path: Path
) -> None:
    known = table.now()
    assert known is not None
    for number in range(1, table_state.FORWARD_MOST + 5):
        known = commit(known, number)
    DeltaTable(tmp_path / "t").create_checkpoint()
    found = table.now()
    assert found is not None
    assert facts(found) == facts(known)
    assert found.checkpoint_version == known.version


def test_only_tables_of_the_kind_are_taken(tmp_path: Path) -> None:
    create(tmp_path / "t")
    other = KeptTable(str(tmp_path / "t"), {}, "other")
    for _ in range(2):
        with pytest.raises(UnrecognisedTableError, match="but its test table"):
            other.now()
    DeltaTable.create(tmp_path / "foreign", SCHEMA)
    with pytest.raises(UnrecognisedTableError, match=r"is no test table of datazone_dagster\."):
        kept(tmp_path / "foreign", local=True).now()
    assert KIND == "datazone.kind"


@pytest.mark.parametrize("found", ["2", "1.5", "-1"])
def test_a_table_of_a_newer_version_is_refused(
    table: KeptTable, tmp_path: Path, found: str
) -> None:
    """Also where the newer version wrote it while this process was at work."""
    assert KNOWN_FORMAT == 1
    DeltaTable(tmp_path / "t").alter.set_table_properties({FORMAT: "1"}, raise_if_not_exists=False)
    assert table.now() is not None
    DeltaTable(tmp_path / "t").alter.set_table_properties(
        {FORMAT: found}, raise_if_not_exists=False
    )
    for _ in range(2):
        with pytest.raises(NewerTableError, match=f"has format {found}, and this version knows 1"):
            table.now()
        with pytest.raises(NewerTableError, match="Update datazone-dagster in every process"):
            table.seen()
    with pytest.raises(NewerTableError):
        open_table(str(tmp_path / "t"), {}, "test")


def test_a_damaged_log_is_an_error_and_the_state_stays(table: KeptTable, tmp_path: Path) -> None:
    known = table.now()
    (tmp_path / "t" / entry_path(1)).write_text("{not json")
    with pytest.raises(StorageError, match="can't be opened"):
        table.now()
    assert table.known() is known


def test_a_handle_is_at_the_version_of_the_snapshot_and_its_callers_own(table: KeptTable) -> None:
    first = table.now()
    assert first is not None
    second = table.took(commit(first, 1))
    handle = table.handle(second)
    assert handle.version() == 1
    assert table.handle(first) is not handle
    table.give_back(handle)
    assert table.handle(first) is handle
    assert handle.version() == 0


def test_one_state_serves_a_location_and_the_least_used_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_state, "TABLES_MOST", 2)
    monkeypatch.chdir(tmp_path)
    one = kept_table("t", {"a": "1"}, TEST_KIND)
    assert kept_table(str(tmp_path / "t"), {"a": "1"}, TEST_KIND) is one
    other = kept_table("t", {"a": "2"}, TEST_KIND)
    assert other is not one
    assert kept_table("t", {"a": "1"}, TEST_KIND) is one
    kept_table("u", {}, TEST_KIND)
    assert kept_table("t", {"a": "1"}, TEST_KIND) is one
    assert kept_table("t", {"a": "2"}, TEST_KIND) is not other
