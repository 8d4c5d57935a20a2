"""Files of writers that never committed are deleted in the end; a live file never is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.changelog import compaction, maintain_log, orphan_files
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.orphan_files import buckets_to_search
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.layout import Layout
from tests.changelog.test_change_log import (
    ARN,
    events,
    log_in,
    lose_a_race,
    make_due_checkpoint,
    shard,
)

HOURS = 3600.0


def data_files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*.parquet") if "_delta_log" not in path.parts}


def age(paths: Iterator[Path] | set[Path], hours: float) -> None:
    then = time.time() - hours * HOURS
    for path in list(paths):
        os.utime(path, (then, then))


def landed(root: Path) -> list[str]:
    return [event for chunk in events(list(log_in(root).chunks(0, 99, 10**9))) for event in chunk]


def test_the_file_of_a_drain_that_lost_the_race_is_deleted_once_old(tmp_path: Path) -> None:
    lose_a_race(ChangeLog(Layout(str(tmp_path)), "orders"))
    assert len(data_files(tmp_path)) == 2
    log_in(tmp_path).delete_orphan_files()
    assert len(data_files(tmp_path)) == 2
    age(data_files(tmp_path), hours=4)
    log_in(tmp_path).delete_orphan_files()
    assert len(data_files(tmp_path)) == 1
    assert landed(tmp_path) == ["e1"]


def test_the_file_of_a_dead_drain_is_deleted_once_another_has_landed(tmp_path: Path) -> None:
    log_in(tmp_path).append(1, [shard(1)])
    dead = log_in(tmp_path).begin(1)
    dead.put(shard(2))
    dead.finish()
    age(tmp_path.rglob("*"), hours=30)
    log_in(tmp_path).delete_orphan_files()
    assert len(data_files(tmp_path)) == 2
    log_in(tmp_path).append(1, [shard(3)])
    log_in(tmp_path).delete_orphan_files()
    assert len(data_files(tmp_path)) == 2
    assert landed(tmp_path) == ["e1", "e3"]


def test_a_writer_that_slept_for_days_can_still_commit_if_nobody_else_did(tmp_path: Path) -> None:
    log_in(tmp_path).append(1, [shard(1)])
    age(tmp_path.rglob("*"), hours=100)
    sleeper = log_in(tmp_path)
    with sleeper.begin(1) as writer:
        writer.put(shard(2))
        writer.finish()
        age(data_files(tmp_path), hours=100)
        for one in (log_in(tmp_path), log_in(tmp_path)):
            one.delete_orphan_files()
        assert writer.commit() == 2
    assert landed(tmp_path) == ["e1", "e2"]


def test_any_commit_meanwhile_makes_a_sleeping_writer_lose_the_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion itself is such a commit: otherwise a deleted file could still be committed."""
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)
    monkeypatch.setattr(maintain_log, "RETENTION_HOURS", 0)
    for number in range(5):
        log_in(tmp_path).append(1, [shard(number)])
    make_due_checkpoint(tmp_path)
    assert log_in(tmp_path).maintain_once()
    sleeper = log_in(tmp_path)
    with sleeper.begin(1) as writer:
        writer.put(shard(90))
        writer.finish()
        log_in(tmp_path).delete_orphan_files()
        assert log_in(tmp_path).version > sleeper.version
        with pytest.raises(ConcurrentWriterError):
            writer.commit()
    log_in(tmp_path).append(1, [shard(5)])
    assert landed(tmp_path) == [f"e{number}" for number in range(6)]


def test_an_old_handle_does_not_delete_later_commits(tmp_path: Path) -> None:
    old = log_in(tmp_path)
    log_in(tmp_path).append(1, [shard(1)])
    old.delete_orphan_files()
    assert landed(tmp_path) == ["e1"]


def test_the_file_of_a_lost_join_is_deleted_and_joined_files_stay_for_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)
    for number in range(5):
        log_in(tmp_path).append(1, [shard(number)])
    make_due_checkpoint(tmp_path)
    loser, winner, reader = log_in(tmp_path), log_in(tmp_path), log_in(tmp_path)
    winner.maintain_once()
    with pytest.raises(ConcurrentWriterError):
        loser.maintain_once()
    assert len(data_files(tmp_path)) == 5 + 2
    age(data_files(tmp_path), hours=4)
    log_in(tmp_path).delete_orphan_files()
    assert len(data_files(tmp_path)) == 5 + 1
    expected = [f"e{number}" for number in range(5)]
    assert [one for chunk in events(list(reader.chunks(0, 5, 1))) for one in chunk] == expected
    assert landed(tmp_path) == expected


def test_a_folder_of_someone_else_is_not_searched(tmp_path: Path) -> None:
    lose_a_race(ChangeLog(Layout(str(tmp_path)), "orders"))
    (orphan,) = data_files(tmp_path) - set(map(Path, _live(tmp_path)))
    others = [orphan.with_name("notes.txt"), orphan.parent.parent / "mine" / orphan.name]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    age({orphan, *others}, hours=4)
    log_in(tmp_path).delete_orphan_files()
    assert not orphan.exists()
    assert all(path.exists() for path in others)


def _live(root: Path) -> list[str]:
    return [str(root / "_changelog" / "orders" / file.path) for file in log_in(root).files]


def test_the_file_of_a_checkpoint_that_lost_the_race_is_deleted(tmp_path: Path) -> None:
    table = CheckpointTable(Layout(str(tmp_path)), "orders")
    now = datetime(2025, 1, 1, tzinfo=timezone.utc)
    table.open_or_create()
    winner, loser = table.open_or_create(), table.open_or_create()
    winner.save(Checkpoint().with_shards(ShardCheckpoint(ARN, "s", now)))
    with pytest.raises(ConcurrentWriterError):
        loser.save(Checkpoint().with_shards(ShardCheckpoint(ARN, "t", now)))
    assert len(data_files(tmp_path)) == 1
    assert list(table.open_or_create().checkpoint.shards) == [(ARN, "s")]


@given(st.integers(0, 50), st.integers(0, 500), st.integers(0, 10**6))
def test_a_search_is_bounded_and_reaches_every_bucket(first: int, more: int, turn: int) -> None:
    last = first + more
    turns = -(-(more + 1) // orphan_files.OTHER_BUCKETS)
    searches = [buckets_to_search(first, last, turn + n) for n in range(turns)]
    most = orphan_files.NEWEST_BUCKETS + orphan_files.OTHER_BUCKETS
    newest = set(range(max(first, last + 1 - orphan_files.NEWEST_BUCKETS), last + 1))
    for search in searches:
        assert len(search) == len(set(search)) <= most
        assert newest <= set(search)
    assert {bucket for search in searches for bucket in search} == set(range(first, last + 1))
