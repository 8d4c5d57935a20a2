"""A checkpoint that we write is all that anyone needs of the entries up to its version."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.delta import KIND, log_remainder
from datazone_dagster.delta.intervals import CHECKPOINT_EVERY, CHECKPOINT_INTERVAL
from datazone_dagster.delta.live_file import LiveFile, live_file
from datazone_dagster.delta.log_files import LOG, entry_path
from datazone_dagster.delta.log_upkeep import checkpoint_due, make_checkpoint
from datazone_dagster.delta.put_entry import put_entry
from datazone_dagster.delta.removed_files import checkpoint_path, removals
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import Snapshot, newest_snapshot
from datazone_dagster.errors import ConcurrentWriterError
from tests.delta.test_table_state import TEST_KIND, ObjectsOnDisk, commit, create, kept
from tests.delta.test_transaction_log import PARTITION_VALUES, apply
from tests.examples import examples
from tests.rows.engine_conformance import SCHEMA

FEATURES = ["deletionVectors", "domainMetadata"]


def new_table(folder: Path) -> DeltaTable:
    return DeltaTable.create(
        str(folder),
        SCHEMA,
        partition_by=["part"],
        configuration={KIND: TEST_KIND},
        raise_if_key_not_exists=False,
    )


def read(folder: Path) -> Snapshot:
    found = newest_snapshot(TableStore(str(folder), {}))
    assert found is not None
    return found


def without_checkpoints(folder: Path, copy: Path) -> Snapshot:
    """The table as all entries tell it."""
    shutil.copytree(folder, copy)
    for file in (copy / LOG).glob("*checkpoint*"):
        file.unlink()
    return read(copy)


def without_entries(folder: Path, through: int) -> None:
    for number in range(through + 1):
        (folder / entry_path(number)).unlink(missing_ok=True)


def facts(snapshot: Snapshot) -> dict[str, object]:
    """Everything that the log says of a table, in one form."""
    removed = {live_file(one).identity: _set(one) for one in removals(snapshot)}
    rest = snapshot.remainder
    return {
        "version": snapshot.version,
        "protocol": _set(snapshot.protocol),
        "metadata": _set(snapshot.metadata),
        "transactions": dict(snapshot.transactions),
        "times": dict(rest.transaction_times),
        "domains": {name: one for name, one in rest.domains.items() if not one["removed"]},
        "files": {file.identity: _set(file.add) for file in snapshot.files},
        "removed": {key: one for key, one in removed.items() if key not in snapshot.by_identity},
    }


def _set(action: Any) -> dict[str, object]:
    """Fields that have a value, without those that a checkpoint may leave out or change."""
    left_out = ("dataChange",) if "modificationTime" in action else ("dataChange", "stats", "tags")
    return {
        name: {**value, "options": {}} if name == "format" else value
        for name, value in action.items()
        if value is not None and name not in left_out
    }


def by_delta_rs(folder: Path, app_ids: list[str]) -> dict[str, object]:
    """What delta-rs, and who reads by it, says of a table."""
    table = DeltaTable(folder)
    files = pa.table(table.get_add_actions(flatten=True))
    names = sorted(set(files.column_names) - {"modification_time"})
    vectors = pa.table(table.deletion_vectors()).to_pylist()
    name = table.table_uri
    return {
        "version": table.version(),
        "schema": table.schema().to_json(),
        "properties": table.metadata().configuration,
        "id": table.metadata().id,
        "features": (
            table.protocol().min_reader_version,
            table.protocol().min_writer_version,
            set(table.protocol().reader_features or ()),
            set(table.protocol().writer_features or ()),
        ),
        "files": sorted(map(str, files.select(names).to_pylist())),
        "vectors": sorted(
            (one["filepath"].removeprefix(name), one["selection_vector"]) for one in vectors
        ),
        "transactions": {one: table.transaction_version(one) for one in app_ids},
        "rows": sorted(map(str, pa.table(table.scan()).to_pylist())),
        "polars": sorted(map(str, pl.scan_delta(str(folder)).collect().to_dicts())),
    }


class World:
    """A table that is changed by our commits and by those of delta-rs, and kept in memory."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "t"
        self.handle = new_table(self.folder)
        self.table = KeptTable(str(self.folder), {}, TEST_KIND)
        self.number = 0
        self.own_checkpoint: int | None = None

    def do(self, step: str) -> None:
        self.number += 1
        if step == "own checkpoint":
            at = self.table.now()
            assert at is not None
            made = make_checkpoint(self.table, at)
            assert made.checkpoint_version == at.version
            self.own_checkpoint = at.version
        elif step == "look":
            self.table.now()
        elif step == "restore":
            version = max(self.handle.version() - 2, 1)
            self.handle.restore(version)
            self.handle.update_incremental()
        elif step == "other process":
            self.table.forget()
        else:
            apply(self.handle, step, self.number)


STEPS = ["append", "delete", "rewrite", "vectors", "overwrite", "compact", "restore"]
OTHERS = ["own checkpoint", "own checkpoint", "checkpoint", "look", "other process"]


@settings(max_examples=examples(20), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.sampled_from([*STEPS, *OTHERS]), max_size=8),
    rest=st.lists(st.sampled_from(STEPS), max_size=2),
)
def test_checkpoint_and_rest_are_all_entries(steps: list[str], rest: list[str]) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for step in ("append", "vectors", *steps, "own checkpoint", *rest):
            world.do(step)
        expected = without_checkpoints(world.folder, Path(folder) / "copy")
        app_ids = list(expected.transactions)
        by_all_entries = by_delta_rs(Path(folder) / "copy", app_ids)
        assert world.own_checkpoint is not None
        without_entries(world.folder, world.own_checkpoint)
        found = read(world.folder)
        assert found.checkpoint_version == world.own_checkpoint
        assert facts(found) == facts(expected)
        assert by_delta_rs(world.folder, app_ids) == by_all_entries
        assert {file.identity: _set(file.add) for file in found.files} == {
            file.identity: _set(file.add) for file in _now(world.table).files
        }


def _now(table: KeptTable) -> Snapshot:
    found = table.now()
    assert found is not None
    return found


def commit_property(at: Snapshot) -> Snapshot:
    return put_entry(
        at,
        [{"metaData": {**at.metadata, "description": "x"}}],
        operation="SET",
        parameters={},
        metrics={},
    )


def put(folder: Path, version: int, *actions: dict[str, Any]) -> None:
    content = "\n".join(json.dumps(one) for one in actions)
    (folder / entry_path(version)).write_text(content)


def domain(name: str, *, removed: bool = False) -> dict[str, Any]:
    return {"domainMetadata": {"domain": name, "configuration": "{}", "removed": removed}}


def written_by_us(folder: Path, version: int) -> bool:
    """Whether a checkpoint is ours: delta-rs has a column for sidecars."""
    names = pq.ParquetFile(folder / checkpoint_path(version)).schema_arrow.names
    return "sidecar" not in names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "t")
    return tmp_path / "t"


def test_domains_and_times_of_transactions_stay(folder: Path) -> None:
    table = kept(folder, local=True)
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": FEATURES[:1]}
    put(folder, 1, {"protocol": {**protocol, "writerFeatures": FEATURES}}, domain("a"))
    put(folder, 2, domain("b"), {"txn": {"appId": "x", "version": 1, "lastUpdated": 77}})
    make_checkpoint(table, _now(table))
    put(folder, 3, domain("b", removed=True), domain("c"))
    put(folder, 4, {"txn": {"appId": "y", "version": 2}})
    make_checkpoint(table, _now(table))
    expected = without_checkpoints(folder, folder.with_name("copy"))
    without_entries(folder, 4)
    found = read(folder)
    assert facts(found) == facts(expected)
    assert sorted(found.remainder.domains) == ["a", "c"]
    assert found.remainder.transaction_times == {"x": 77}
    assert written_by_us(folder, 4)
    assert DeltaTable(folder).transaction_version("x") == 1


def test_what_we_do_not_know_is_left_to_delta_rs(folder: Path) -> None:
    table = kept(folder, local=True)
    at = table.took(commit(_now(table), 1))
    make_checkpoint(table, at)
    assert written_by_us(folder, 1)
    put(folder, 2, {"novelty": {"x": 1}})
    make_checkpoint(table, _now(table))
    assert not written_by_us(folder, 2)
    at = table.took(commit(_now(table), 2))
    path = "part-n.parquet"
    add = {"path": path, "partitionValues": {}, "size": 1, "modificationTime": 1}
    put(folder, 4, {"add": {**add, "dataChange": True, "novelty": 1}})
    table.forget()
    make_checkpoint(table, _now(table))
    assert not written_by_us(folder, 4)
    assert path in {file.path for file in read(folder).files}


def test_files_removed_long_ago_are_left_out(folder: Path) -> None:
    table = kept(folder, local=True)
    for number in range(1, 4):
        table.took(commit(_now(table), number, removes=1))
    make_checkpoint(table, _now(table))
    first = [one["path"] for one in removals(read(folder))]
    assert len(first) == 2
    retention = {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    DeltaTable(folder).alter.set_table_properties(retention)
    make_checkpoint(table, _now(table))
    assert list(removals(read(folder))) == []


def test_a_vacuum_by_delta_rs_finds_the_removed_files(tmp_path: Path) -> None:
    world = World(tmp_path)
    for step in ("append", "append", "own checkpoint", "overwrite", "look", "own checkpoint"):
        world.do(step)
    assert world.own_checkpoint is not None
    without_entries(world.folder, world.own_checkpoint - 1)
    handle = DeltaTable(world.folder)
    gone = handle.vacuum(0, dry_run=False, enforce_retention_duration=False, full=False)
    assert len(gone) == 2
    live = {file.path for file in read(world.folder).files}
    stored = {str(one.relative_to(world.folder)) for one in world.folder.rglob("part-*.parquet")}
    assert {one for one in stored if not one.startswith(LOG)} == live


def test_a_checkpoint_costs_one_read_and_two_writes(folder: Path) -> None:
    table = kept(folder, local=False)
    assert isinstance(table.store, ObjectsOnDisk)
    for number in range(1, 4):
        table.took(commit(_now(table), number, removes=1))
    make_checkpoint(table, _now(table))
    at = table.took(commit(_now(table), 4, removes=1))
    table.store.reads.clear()
    make_checkpoint(table, at)
    assert table.store.reads == [checkpoint_path(3)]
    assert len(list(removals(read(folder)))) == 3


@pytest.mark.parametrize("lost", ["too many removes", "checkpoint cleaned"])
def test_where_not_enough_is_kept_the_log_is_read_anew(
    lost: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = kept(folder, local=True)
    for number in range(1, 4):
        table.took(commit(_now(table), number, removes=1))
        if number == 2:
            make_checkpoint(table, _now(table))
    with monkeypatch.context() as patch:
        patch.setattr(log_remainder, "REMOVES_KEPT", 0 if lost == "too many removes" else 99)
        for number in range(4, 7):
            table.took(commit(_now(table), number, removes=1))
    at = _now(table)
    if lost == "checkpoint cleaned":
        make_checkpoint(kept(folder, local=True), _now(kept(folder, local=True)))
        (folder / checkpoint_path(2)).unlink()
        assert at.checkpoint_version == 2
        at = table.took(commit(at, 7, removes=1))
    expected = without_checkpoints(folder, folder.with_name("copy"))
    make_checkpoint(table, at)
    assert written_by_us(folder, at.version)
    without_entries(folder, at.version)
    assert facts(read(folder)) == facts(expected)


def test_a_table_made_again_gets_no_checkpoint_of_the_former_one(folder: Path) -> None:
    for local in (True, False):
        table = kept(folder, local=local)
        at = table.took(commit(_now(table), 1))
        shutil.rmtree(folder)
        create(folder)
        with pytest.raises(ConcurrentWriterError, match="made again"):
            make_checkpoint(table, at)
        assert [one.name for one in (folder / LOG).glob("*checkpoint*")] == []


def test_an_erased_value_of_a_partition_does_not_come_back_from_memory(tmp_path: Path) -> None:
    world = World(tmp_path)
    for step in ("append", "append", "append"):
        world.do(step)
    secret = PARTITION_VALUES[0]
    assert secret in {file.partition_values["part"] for file in _now(world.table).files}
    world.handle.delete(f"part = '{secret}'")
    at = _now(world.table)
    assert world.table.took(commit_property(at)).remainder.removes
    entry = world.folder / entry_path(at.version)
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    for one in actions:
        if "remove" in one:
            one["remove"] |= {"path": "erased-0.parquet", "partitionValues": {"part": None}}
    entry.write_text("\n".join(map(json.dumps, actions)))
    make_checkpoint(world.table, _now(world.table))
    without_entries(world.folder, at.version + 1)
    assert [one["path"] for one in removals(read(world.folder))] == ["erased-0.parquet"]


def test_checkpoints_of_large_tables_are_rarer(folder: Path) -> None:
    at = _now(kept(folder, local=True))
    for number in range(1, CHECKPOINT_EVERY):
        assert not checkpoint_due(at)
        at = commit(at, number)
    assert checkpoint_due(at)
    many: dict[tuple[str, str | None], LiveFile] = {
        (str(number), None): at.files[0] for number in range(100_000)
    }
    assert not checkpoint_due(replace(at, by_identity=many))
    assert checkpoint_due(replace(at, by_identity=many, version=CHECKPOINT_INTERVAL))
