"""Row-level commits: races with other writers, and tables that they must not write to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, TableFeatures, write_deltalake

from datazone_dagster.delta import transaction
from datazone_dagster.delta.commit import (
    FileActions,
    LostRaceError,
    commit_files,
    enable_vectors,
    set_properties,
    why_not,
)
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import (
    Snapshot,
    entry_actions,
    entry_path,
    read_snapshot,
)
from datazone_dagster.errors import ConcurrentWriterError, StoreUnavailableError
from tests.tables import table_at

SCHEMA = pa.schema([("n", pa.int64())])


@pytest.fixture
def table(tmp_path: Path) -> DeltaTable:
    return DeltaTable.create(str(tmp_path / "t"), SCHEMA)


def files(snapshot: Snapshot, *numbers: int) -> FileActions:
    rows = pa.table({"n": numbers}, schema=SCHEMA)
    add = write_data_file(snapshot.store, SCHEMA, {}, rows.to_batches())
    assert add is not None
    return FileActions([add], [], [add["path"]])


def commit(snapshot: Snapshot, actions: FileActions, app_id: str = "ours", number: int = 1) -> int:
    after = commit_files(
        snapshot,
        actions,
        operation="WRITE",
        parameters={},
        metrics={},
        properties=transaction(app_id, number),
    )
    return after.version


def numbers(table: DeltaTable) -> list[int]:
    table.update_incremental()
    return sorted(pa.table(table.scan())["n"].to_pylist())


def data_files(table: DeltaTable) -> set[str]:
    return {path.name for path in Path(table.table_uri.removeprefix("file://")).glob("*.parquet")}


def test_a_commit_carries_its_files_and_its_transaction(table: DeltaTable) -> None:
    snapshot = read_snapshot(table, {})
    assert commit(snapshot, files(snapshot, 1, 2), number=7) == 1
    assert numbers(table) == [1, 2]
    assert table.transaction_version("ours") == 7
    assert table.history(1)[0]["operation"] == "WRITE"


def test_a_lost_commit_leaves_no_file(table: DeltaTable) -> None:
    snapshot = read_snapshot(table, {})
    write_deltalake(table, pa.table({"n": [5]}, schema=SCHEMA), mode="append")
    before = data_files(table)
    with pytest.raises(LostRaceError):
        commit(snapshot, files(snapshot, 1))
    assert data_files(table) == before
    assert numbers(table) == [5]


def test_a_commit_that_another_writer_already_made_is_not_retried(table: DeltaTable) -> None:
    snapshot = read_snapshot(table, {})
    write_deltalake(table, pa.table({"n": [4]}, schema=SCHEMA), mode="append")
    later = read_snapshot(table, {})
    commit(later, files(later, 5))
    before = data_files(table)
    with pytest.raises(ConcurrentWriterError, match="the same changes in version 2"):
        commit(snapshot, files(snapshot, 5))
    assert data_files(table) == before
    with pytest.raises(LostRaceError):
        commit(snapshot, files(snapshot, 5), app_id="another")


@pytest.mark.parametrize("change", ["property", "feature"])
def test_a_commit_to_a_changed_table_is_not_retried(table: DeltaTable, change: str) -> None:
    snapshot = read_snapshot(table, {})
    if change == "property":
        table.alter.set_table_properties({"delta.appendOnly": "true"})
    else:
        table.alter.add_feature(
            TableFeatures.DeletionVectors, allow_protocol_versions_increase=True
        )
    with pytest.raises(ConcurrentWriterError, match="metadata"):
        commit(snapshot, files(snapshot, 5))


def test_a_lost_answer_is_not_a_lost_race(
    table: DeltaTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put succeeded, its answer was lost, and the client retried it."""
    put = TableStore.put_if_absent

    def twice(self: TableStore, path: str, content: bytes) -> str | None:
        assert put(self, path, content)
        return put(self, path, content)

    monkeypatch.setattr(TableStore, "put_if_absent", twice)
    snapshot = read_snapshot(table, {})
    assert commit(snapshot, files(snapshot, 1)) == 1
    assert numbers(table) == [1]


def test_a_failed_put_leaves_the_files_because_it_may_have_happened(
    table: DeltaTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = TableStore.put_if_absent

    def fail(self: TableStore, path: str, content: bytes) -> str | None:
        put(self, path, content)
        raise OSError("connection reset")

    monkeypatch.setattr(TableStore, "put_if_absent", fail)
    snapshot = read_snapshot(table, {})
    with pytest.raises(StoreUnavailableError, match="the connection broke"):
        commit(snapshot, files(snapshot, 1))
    assert numbers(table) == [1]


def test_vectors_are_enabled_with_no_more_than_they_need(table: DeltaTable) -> None:
    snapshot = enable_vectors(read_snapshot(table, {}))
    table.update_incremental()
    again = read_snapshot(table, {})
    assert (snapshot.version, snapshot.protocol) == (again.version, again.protocol)
    assert (snapshot.metadata, snapshot.files) == (again.metadata, again.files)
    assert snapshot.writes_vectors
    assert table.protocol().reader_features == ["deletionVectors"]
    assert set(table.protocol().writer_features or ()) == {
        "appendOnly",
        "deletionVectors",
        "invariants",
    }
    set_properties(table_at(table), {"a.b": "c"})
    table.update_incremental()
    assert table.protocol().reader_features == ["deletionVectors"]
    assert table.metadata().configuration["a.b"] == "c"
    assert why_not(read_snapshot(table, {})) is None


def test_other_features_stay_when_vectors_come(tmp_path: Path) -> None:
    schema = pa.schema([("at", pa.timestamp("us"))])
    table = DeltaTable.create(str(tmp_path / "t"), schema)
    enable_vectors(read_snapshot(table, {}))
    table.update_incremental()
    assert set(table.protocol().reader_features or ()) == {"deletionVectors", "timestampNtz"}


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        ({"delta.appendOnly": "true"}, "delta.appendOnly"),
        ({"delta.enableChangeDataFeed": "true"}, "delta.enableChangeDataFeed"),
        ({"delta.constraints.positive": "n > 0"}, "CHECK"),
    ],
)
def test_tables_with_unsupported_rules_are_left_alone(
    table: DeltaTable, configuration: dict[str, str], reason: str
) -> None:
    snapshot = read_snapshot(table, {})
    metadata = {**snapshot.metadata, "configuration": configuration}
    changed = Snapshot(snapshot.store, 0, snapshot.protocol, metadata, {}, {})
    assert reason in (why_not(changed) or "")


def test_at_writer_version_4_only_generated_columns_prevent_a_commit(
    table: DeltaTable,
) -> None:
    """Spark gives tables that version for a change data feed; vectors then name its features."""
    entry = Path(table.table_uri.removeprefix("file://")) / "_delta_log" / f"{0:020d}.json"
    entry.write_text(entry.read_text().replace('"minWriterVersion":2', '"minWriterVersion":4'))
    snapshot = read_snapshot(DeltaTable(table.table_uri), {})
    assert snapshot.protocol["minWriterVersion"] == 4
    snapshot = enable_vectors(snapshot)
    assert "generatedColumns" in snapshot.protocol["writerFeatures"]
    assert why_not(snapshot) is None
    commit(snapshot, files(snapshot, 7))
    assert numbers(DeltaTable(table.table_uri)) == [7]

    schema = json.loads(snapshot.metadata["schemaString"])
    schema["fields"][0]["metadata"]["comment"] = "no delta.generationExpression"
    commented = {**snapshot.metadata, "schemaString": json.dumps(schema)}
    assert why_not(replace(snapshot, metadata=commented)) is None
    schema["fields"][0]["metadata"]["delta.generationExpression"] = "1 + 1"
    generated = {**snapshot.metadata, "schemaString": json.dumps(schema)}
    for protocol in (snapshot.protocol, {"minReaderVersion": 1, "minWriterVersion": 4}):
        changed = replace(snapshot, metadata=generated, protocol=protocol)
        assert why_not(changed) == "it has generated columns"


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({"minWriterVersion": 5}, "writer version 5"),
        ({"minWriterVersion": 7, "writerFeatures": ["rowTracking", "deletionVectors"]}, "rowTr"),
    ],
)
def test_unknown_writer_features_are_left_alone(
    table: DeltaTable, protocol: dict[str, object], reason: str
) -> None:
    snapshot = read_snapshot(table, {})
    changed = Snapshot(snapshot.store, 0, protocol, snapshot.metadata, {}, {})
    assert reason in (why_not(changed) or "")


def test_the_entry_is_one_action_a_line(table: DeltaTable) -> None:
    snapshot = read_snapshot(table, {})
    commit(snapshot, files(snapshot, 1))
    content = snapshot.store.read(entry_path(1))
    assert content is not None
    kinds = [next(iter(action)) for action in entry_actions(content)]
    assert kinds == ["commitInfo", "txn", "add"]
    assert all(json.loads(line) for line in content.decode().split("\n"))
