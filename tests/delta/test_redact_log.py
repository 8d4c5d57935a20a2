"""A redacted log says the same of every version, without values of rows that are gone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from datazone_dagster.delta.redact_log import redact_log
from datazone_dagster.delta.transaction_log import LOG, Snapshot, read_snapshot

GONE = "zq-gone"


def rows(*keys: str) -> pa.Table:
    return pa.table({"key": keys, "part": [f"p-{key}" for key in keys], "n": range(len(keys))})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A table with a checkpoint before the key went, one after, and a merge that names it."""
    root = tmp_path / "t"
    write_deltalake(str(root), rows("a", GONE), partition_by=["part"])
    table = DeltaTable(str(root))
    table.merge(
        rows(GONE),
        predicate=f"t.key = s.key and t.key >= '{GONE}'",
        source_alias="s",
        target_alias="t",
    ).when_matched_update({"n": "s.n"}).execute()
    table.create_checkpoint()
    table.delete(f"key = '{GONE}'")
    table.create_checkpoint()
    write_deltalake(table, rows("b"), mode="append")
    (root / LOG / "00000000000000000001.crc").write_text(f'{{"allFiles": "{GONE}"}}')
    return root


def snapshot_of(root: Path, version: int | None = None) -> Snapshot:
    return read_snapshot(DeltaTable(str(root), version=version), {})


def stored(root: Path) -> list[str]:
    return [
        str(path.relative_to(root)) for path in root.rglob("*.parquet") if LOG not in path.parts
    ]


def traces(root: Path) -> list[str]:
    return [path.name for path in (root / LOG).iterdir() if GONE.encode() in path.read_bytes()]


def test_nothing_of_gone_files_is_left(root: Path) -> None:
    assert len(traces(root)) >= 6
    left = [path for path in stored(root) if GONE not in path]
    before = snapshot_of(root)
    assert redact_log(before, left) >= 6
    assert traces(root) == []
    after = snapshot_of(root)
    assert (after.version, after.files) == (before.version, before.files)
    table = DeltaTable(str(root))
    assert sorted(pa.table(table.scan())["key"].to_pylist()) == ["a", "b"]
    assert redact_log(after, left) == 0
    write_deltalake(table, rows("c"), mode="append")
    table.create_checkpoint()
    assert len(pa.table(DeltaTable(str(root)).scan())) == 3


def test_versions_whose_files_are_there_can_be_read(root: Path) -> None:
    redact_log(snapshot_of(root), stored(root))
    for version, keys in ((0, ["a", GONE]), (1, ["a", GONE]), (2, ["a"]), (3, ["a", "b"])):
        table = DeltaTable(str(root), version=version)
        assert sorted(pa.table(table.scan())["key"].to_pylist()) == keys


def test_entries_stay_in_the_way_of_late_commits(root: Path) -> None:
    late = DeltaTable(str(root), version=1)
    redact_log(snapshot_of(root), [])
    once = CommitProperties(max_commit_retries=0)
    with pytest.raises(CommitFailedError):
        write_deltalake(late, rows("late"), mode="overwrite", commit_properties=once)


def test_versions_that_it_does_not_know_are_left_alone(root: Path) -> None:
    """A commit meanwhile: its files would look as if they were gone."""
    known = snapshot_of(root, 2)
    newest = root / LOG / "00000000000000000003.json"
    content = newest.read_bytes()
    DeltaTable(str(root)).create_checkpoint()
    checkpoint = (root / LOG / "00000000000000000003.checkpoint.parquet").read_bytes()
    redact_log(known, [])
    assert newest.read_bytes() == content
    assert (root / LOG / "00000000000000000003.checkpoint.parquet").read_bytes() == checkpoint
