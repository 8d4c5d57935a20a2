"""Our reader of the Delta log agrees with delta-rs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.delta import transaction
from datazone_dagster.delta.transaction_log import LOG, Snapshot, read_snapshot
from datazone_dagster.errors import StorageError
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.engines import CopyOnWriteEngine, MergeOnReadEngine
from tests.examples import examples
from tests.rows.engine_conformance import SCHEMA, batch_of
from tests.tables import table_at

PARTITION_VALUES = ["a b/%=é", "plain", None]


def rows(start: int, count: int, part: str | None = "plain") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"value": start + n, "part": part, "_dz_key": f"k{start + n}", "_dz_version": "0" * 48}
            for n in range(count)
        ],
        schema=SCHEMA,
    )


def new_table(root: Path) -> DeltaTable:
    return DeltaTable.create(str(root), SCHEMA, partition_by=["part"])


def merge(table: DeltaTable, engine: object, number: int) -> None:
    keyed_changes = [(f"k{n}", number + 5, (n,) if n % 3 else ()) for n in range(number, 60, 7)]
    target = MergeTarget("t", table_at(table), SCHEMA)
    (CopyOnWriteEngine() if engine == "rewrite" else MergeOnReadEngine()).merge(
        target, batch_of(keyed_changes), transaction("t", number)
    )
    table.update_incremental()


def apply(table: DeltaTable, step: str, number: int) -> None:
    actions: dict[str, Callable[[], object]] = {
        "append": lambda: write_deltalake(
            table, rows(number * 10, 20, PARTITION_VALUES[number % 3]), mode="append"
        ),
        "delete": lambda: table.delete(f"value % 5 = {number % 5}"),
        "compact": table.optimize.compact,
        "checkpoint": table.create_checkpoint,
        "rewrite": lambda: merge(table, "rewrite", number),
        "vectors": lambda: merge(table, "vectors", number),
        "overwrite": lambda: write_deltalake(table, rows(number, 5), mode="overwrite"),
    }
    actions[step]()


def assert_same(table: DeltaTable) -> Snapshot:
    snapshot = read_snapshot(table, {})
    scanned = pa.table(table.scan()).num_rows
    root = table.table_uri
    assert sorted(file.add["path"] for file in snapshot.files) == sorted(
        pa.table(table.get_add_actions())["path"].to_pylist()
    )
    assert all((Path(root.removeprefix("file://")) / f.path).exists() for f in snapshot.files)
    assert snapshot.live_rows == scanned
    masks = {
        row["filepath"]: row["selection_vector"]
        for row in pa.table(table.deletion_vectors()).to_pylist()
    }
    assert len(masks) == sum(file.vector is not None for file in snapshot.files)
    for file in snapshot.files:
        if file.vector is not None:
            mask = masks[root + file.add["path"]]
            gone = {position for position, live in enumerate(mask) if not live}
            assert set(snapshot.deleted_in(file)) == gone
    return snapshot


@settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.sampled_from(
            ["append", "delete", "compact", "checkpoint", "rewrite", "vectors", "overwrite"]
        ),
        min_size=1,
        max_size=8,
    )
)
def test_after_any_commits_the_snapshot_is_that_of_delta_rs(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    table = new_table(tmp_path_factory.mktemp("table") / "t")
    for number, step in enumerate(["append", *steps], 1):
        apply(table, step, number)
        assert_same(table)
    for version in range(table.version() + 1):
        table.load_as_version(version)
        assert_same(table)


def test_a_lost_or_stale_hint_is_replaced_by_the_listing(tmp_path: Path) -> None:
    table = new_table(tmp_path / "t")
    for number in range(1, 4):
        apply(table, "append", number)
    table.create_checkpoint()
    for number in range(4, 6):
        apply(table, "vectors", number)
    log = tmp_path / "t" / LOG
    expected = {file.identity for file in assert_same(table).files}
    for entry in range(3):
        (log / f"{entry:020d}.json").unlink()  # as log cleanup does
    for hint in (None, '{"version": 900, "size": 1}', '{"version": 1, "size": 1}'):
        if hint is None:
            (log / "_last_checkpoint").unlink()
        else:
            (log / "_last_checkpoint").write_text(hint)
        snapshot = read_snapshot(table, {})
        assert {file.identity for file in snapshot.files} == expected
        assert snapshot.checkpoint_version == 3


def test_a_multipart_checkpoint_is_read_completely_or_not_at_all(tmp_path: Path) -> None:
    table = new_table(tmp_path / "t")
    for step in ("append", "vectors", "append"):
        apply(table, step, 3)
    table.create_checkpoint()
    expected = {file.identity for file in assert_same(table).files}
    log = tmp_path / "t" / LOG
    name = f"{table.version():020d}.checkpoint"
    checkpoint = pq.read_table(log / f"{name}.parquet")
    pq.write_table(checkpoint.slice(0, 3), log / f"{name}.0000000001.0000000002.parquet")
    second = log / f"{name}.0000000002.0000000002.parquet"
    pq.write_table(checkpoint.slice(3), second)
    (log / f"{name}.parquet").unlink()
    hint = {"version": table.version(), "size": len(checkpoint), "parts": 2}
    (log / "_last_checkpoint").write_text(json.dumps(hint))
    assert {file.identity for file in read_snapshot(table, {}).files} == expected
    second.unlink()
    snapshot = read_snapshot(table, {})
    assert {file.identity for file in snapshot.files} == expected
    assert snapshot.checkpoint_version is None


def test_a_v2_checkpoint_with_sidecars_is_read(tmp_path: Path) -> None:
    table = new_table(tmp_path / "t")
    for step in ("append", "vectors", "append"):
        apply(table, step, 3)
    table.create_checkpoint()
    expected = {file.identity for file in assert_same(table).files}
    log = tmp_path / "t" / LOG
    classic = log / f"{table.version():020d}.checkpoint.parquet"
    checkpoint = pq.read_table(classic)
    (log / "_sidecars").mkdir()
    pq.write_table(checkpoint.select(["add"]), log / "_sidecars" / "one.parquet")
    top = [
        {"checkpointMetadata": {"version": table.version()}},
        {"sidecar": {"path": "one.parquet", "sizeInBytes": 1, "modificationTime": 1}},
    ]
    for entry in sorted(log.glob("*.json")):
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            if action.keys() & {"metaData", "protocol", "txn"}:
                top.append(action)
    identity = "80a083e8-7026-4e79-81be-64bd76c43a11"
    name = f"{table.version():020d}.checkpoint.{identity}.json"
    (log / name).write_text("\n".join(map(json.dumps, top)))
    classic.unlink()
    (log / "_last_checkpoint").unlink()
    for entry in log.glob("*[0-9].json"):
        if "checkpoint" not in entry.name:
            entry.unlink()
    snapshot = read_snapshot(table, {})
    assert {file.identity for file in snapshot.files} == expected
    assert snapshot.checkpoint_version == table.version()


def test_a_damaged_log_or_vector_is_an_error_that_says_where(tmp_path: Path) -> None:
    table = new_table(tmp_path / "t")
    for step in ("append", "append", "vectors"):
        apply(table, step, 2)
    snapshot = read_snapshot(table, {})
    hidden = next(file for file in snapshot.files if file.vector is not None)
    assert hidden.vector is not None
    assert hidden.vector.offset is not None
    vector = tmp_path / "t" / hidden.vector.path
    content = bytearray(vector.read_bytes())
    content[hidden.vector.offset + 4 + hidden.vector.size_bytes] ^= 1
    vector.write_bytes(bytes(content))
    with pytest.raises(StorageError, match="checksum"):
        snapshot.deleted_in(hidden)
    vector.unlink()
    with pytest.raises(StorageError, match="is missing"):
        snapshot.deleted_in(hidden)
    entry = tmp_path / "t" / LOG / f"{1:020d}.json"
    shutil.copy(entry, tmp_path / "backup")
    entry.unlink()
    with pytest.raises(StorageError, match="entry 1 is missing"):
        read_snapshot(table, {})
    entry.write_text("{")
    with pytest.raises(StorageError, match="can't be read"):
        read_snapshot(table, {})
