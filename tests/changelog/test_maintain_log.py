from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.changelog import checkpoints, compaction, maintain_log, owner
from datazone_dagster.changelog.compaction import files_to_join
from datazone_dagster.changelog.schema import BATCHES_PER_BUCKET, ShardRecords, bucket_of
from datazone_dagster.delta import CHECKPOINT_EVERY
from datazone_dagster.drain.maintain_source import CLEAN_UP_EVERY_SECONDS
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, fold
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import MalformedRecord
from datazone_dagster.model.report import Gap
from datazone_dagster.model.table_file import DataFile
from tests.changelog.test_change_log import (
    ARN,
    events,
    log_in,
    make_due_checkpoint,
    record,
    shard,
)

HOURS_AGO = "interval 0 seconds"
WRITTEN_AT = datetime(2025, 1, 1, tzinfo=timezone.utc)


def file(first: int, last: int, size_bytes: int) -> DataFile:
    batches = {Log.BATCH: first}, {Log.BATCH: last}
    bucket = {Log.BUCKET: bucket_of(first)}
    return DataFile(f"{first}", size_bytes, WRITTEN_AT, 1, *batches, bucket)


@given(st.lists(st.integers(1, 40 << 20), min_size=1, max_size=300), st.integers(0, 5000))
def test_joining_ends_with_disjoint_ranges_within_one_bucket_each(
    sizes: list[int], first: int
) -> None:
    files = [file(first + n, first + n, size) for n, size in enumerate(sizes)]
    head = files[-1].maximum[Log.BATCH]
    rounds = 0
    while run := files_to_join(files, head):
        rounds += 1
        at = files.index(run[0])
        assert files[at : at + len(run)] == run
        assert len(run) > 1
        assert len({bucket_of(one.minimum[Log.BATCH]) for one in run}) == 1
        total = sum(one.size_bytes for one in run)
        assert total <= compaction.TARGET_BYTES
        joined = file(run[0].minimum[Log.BATCH], run[-1].maximum[Log.BATCH], total)
        files[at : at + len(run)] = [joined]
    assert rounds <= len(sizes)
    open_bucket = bucket_of(head)
    small = [
        one
        for one in files
        if one.size_bytes * 2 < compaction.TARGET_BYTES
        and bucket_of(one.minimum[Log.BATCH]) < open_bucket
    ]
    big = len(files) - len(small)
    assert len(small) <= big + 1 + BATCHES_PER_BUCKET // compaction.BATCHES_PER_GROUP


def test_a_year_of_small_ticks_is_a_few_hundred_files() -> None:
    files: list[DataFile] = []
    most = rewritten = 0
    for batch in range(1, 3 * BATCHES_PER_BUCKET):
        files.append(file(batch, batch, 20_000))
        while run := files_to_join(files, batch):
            at = files.index(run[0])
            total = sum(one.size_bytes for one in run)
            rewritten += total
            joined = file(run[0].minimum[Log.BATCH], run[-1].maximum[Log.BATCH], total)
            files[at : at + len(run)] = [joined]
        most = max(most, len(files))
    assert most < 64 + 64 + 8 * 3
    assert rewritten <= 2 * 20_000 * batch


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)


@pytest.mark.usefixtures("small_groups")
def test_a_joined_log_reads_as_before(tmp_path: Path) -> None:
    for number in range(11):
        two = [shard(2 * number), shard(2 * number + 1, name=f"t{number % 3}", parent="p")]
        log_in(tmp_path).append(1, two)
    log = log_in(tmp_path)
    before = [chunk.rows for chunk in log.chunks(2, 9, 1)]
    landed = log.landed_since(0)
    while log.maintain_once():
        pass
    fresh = log_in(tmp_path)
    for one in (log, fresh):
        assert [chunk.rows for chunk in one.chunks(2, 9, 1)] == before
    now = datetime(2030, 1, 1, tzinfo=timezone.utc)
    assert fold(Checkpoint(), fresh.landed_since(0), 11, now) == fold(Checkpoint(), landed, 11, now)
    assert fresh.head == 11
    table = DeltaTable(tmp_path / "_changelog" / "orders")
    assert len(table.file_uris()) == 3  # 1-3, 4-7, 8-11
    assert not any(
        action["dataChange"]
        for line in _last_commit(tmp_path)
        for action in (line.get("add"), line.get("remove"))
        if action
    )


def _last_commit(root: Path) -> list[dict[str, dict[str, object]]]:
    folder = root / "_changelog" / "orders" / "_delta_log"
    newest = sorted(folder.glob("*.json"))[-1]
    return [json.loads(line) for line in newest.read_text().splitlines()]


@pytest.mark.usefixtures("small_groups")
def test_maintenance_and_an_append_from_one_snapshot_race(tmp_path: Path) -> None:
    for number in range(5):
        log_in(tmp_path).append(1, [shard(number)])
    make_due_checkpoint(tmp_path)
    maintenance, drain = log_in(tmp_path), log_in(tmp_path)
    drain.append(1, [shard(5)])
    with pytest.raises(ConcurrentWriterError):
        maintenance.maintain_once()
    maintenance, drain = log_in(tmp_path), log_in(tmp_path)
    assert maintenance.maintain_once()
    with pytest.raises(ConcurrentWriterError):
        drain.append(1, [shard(6)])
    assert maintenance.append(1, [shard(6)]) == 7
    assert events(list(log_in(tmp_path).chunks(0, 9, 10**9))) == [[f"e{n}" for n in range(7)]]


@pytest.mark.usefixtures("small_groups")
def test_files_that_another_drain_joined_are_not_joined_again(tmp_path: Path) -> None:
    for number in range(11):
        log_in(tmp_path).append(1, [shard(number)])
    make_due_checkpoint(tmp_path)
    slow, fast = log_in(tmp_path), log_in(tmp_path)
    assert slow.has_rows(0, 11)
    while fast.maintain_once():
        pass
    with pytest.raises(ConcurrentWriterError):
        slow.record_gaps([GapNote(Gap(ARN, "s", "trimmed"), WRITTEN_AT)])
    with pytest.raises(ConcurrentWriterError):
        slow.maintain_once()
    slow.move_on()
    slow.record_gaps([GapNote(Gap(ARN, "s", "trimmed"), WRITTEN_AT)])
    assert not slow.maintain_once()
    assert events(list(log_in(tmp_path).chunks(0, 11, 10**9))) == [[f"e{n}" for n in range(11)]]


def test_a_drain_moved_past_another_batch_loses_the_race(tmp_path: Path) -> None:
    """The slow drain has read the same records, and its batch would get a number of its own."""
    slow, fast = log_in(tmp_path), log_in(tmp_path)
    with slow.begin(1) as writer:
        writer.put(shard(1))
        fast.append(1, [shard(1)])
        slow.move_on()
        with pytest.raises(ConcurrentWriterError, match="landed batch 1"):
            writer.commit()
    assert events(list(log_in(tmp_path).chunks(0, 9, 10**9))) == [["e1"]]


@pytest.mark.usefixtures("small_groups")
def test_a_snapshot_is_readable_after_its_files_were_joined(tmp_path: Path) -> None:
    for number in range(8):
        log_in(tmp_path).append(1, [shard(number)])
    reader, maintenance = log_in(tmp_path), log_in(tmp_path)
    while maintenance.maintain_once():
        pass
    assert len(events(list(reader.chunks(0, 8, 1)))) == 8


def test_row_groups_are_bounded_by_bytes(tmp_path: Path) -> None:
    image = b'{"a":{"S":"' + os.urandom(150_000).hex().encode() + b'"}}'
    big = [record(n)._replace(new_image=image) for n in range(150)]
    log_in(tmp_path).append(1, [ShardRecords(ARN, "s", None, big)])
    (path,) = tmp_path.rglob("*.parquet")
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sum(sizes) == 150
    assert max(sizes) * len(image) <= 17 << 20
    assert [len(chunk.rows) for chunk in log_in(tmp_path).chunks(0, 1, 1)] == [150]


def test_many_small_shards_make_one_row_group(tmp_path: Path) -> None:
    log_in(tmp_path).append(1, [shard(n, name=f"s{n}") for n in range(100)])
    (path,) = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(path).metadata.num_row_groups == 1
    (chunk,) = log_in(tmp_path).chunks(0, 1, 1)
    assert chunk.rows[Log.SHARD_ID].to_pylist() == [f"s{n}" for n in range(100)]


def test_only_applied_and_old_changes_are_truncated_and_never_silently(tmp_path: Path) -> None:
    for number in range(4):
        created = record(number, created_at=1_700_000_000 + number)
        log_in(tmp_path).append(1, [ShardRecords(ARN, "s", None, [created])])
    later = datetime.fromtimestamp(1_700_000_010, timezone.utc)
    assert log_in(tmp_path).truncate(0, later) == 0
    assert log_in(tmp_path).truncate(4, datetime.fromtimestamp(1_700_000_001, timezone.utc)) == 1
    log = log_in(tmp_path)
    assert log.truncate(2, later) == 1
    for one in (log, log_in(tmp_path)):
        assert events(list(one.chunks(2, 4, 10**9))) == [["e2", "e3"]]
        with pytest.raises(StorageError, match="no longer has batches 2 to 2"):
            list(one.chunks(1, 4, 10**9))
        assert one.head == 4


def test_malformed_records_do_not_prevent_truncation(tmp_path: Path) -> None:
    bad = ShardRecords(ARN, "s", None, [], [MalformedRecord(b"{", "not JSON")])
    for landed in ([shard(1)], [bad], [shard(2)], [bad]):
        log_in(tmp_path).append(1, landed)
    # Malformed records have no event time: the time of their landing counts, just now.
    after_the_changes = datetime.fromtimestamp(1_700_000_010, timezone.utc)
    assert log_in(tmp_path).truncate(4, after_the_changes) == 1
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    assert log_in(tmp_path).truncate(3, tomorrow) == 2
    assert log_in(tmp_path).truncate(4, tomorrow) == 1


class Opening(NamedTuple):
    """Log entries and files that opening the change log reads."""

    entries: int
    entry_bytes: int
    checkpoint_bytes: int
    live_files: int


def opening(root: Path, live_files: int) -> Opening:
    folder = root / "_changelog" / "orders" / "_delta_log"
    hint = folder / "_last_checkpoint"
    version = json.loads(hint.read_text())["version"] if hint.exists() else -1
    entries = [path.stat().st_size for path in folder.glob("*.json") if int(path.stem) > version]
    checkpoint = folder / f"{version:020d}.checkpoint.parquet"
    checkpoint_bytes = checkpoint.stat().st_size if checkpoint.exists() else 0
    return Opening(len(entries), sum(entries), checkpoint_bytes, live_files)


def most_of_ticks(root: Path, ticks: int) -> Opening:
    """Return the maximum of each fact that any of these ticks leaves to the next."""
    found = []
    for number in range(ticks):
        log = log_in(root)
        log.append(1, [shard(number)])
        log.maintain_once()
        found.append(opening(root, len(log.files)))
    return Opening(*map(max, zip(*found, strict=True)))


def test_the_log_that_a_tick_reads_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Retention as if hours had passed between the ticks; otherwise the log would still grow.
    monkeypatch.setitem(owner._CONFIGURATION, "delta.deletedFileRetentionDuration", HOURS_AGO)
    monkeypatch.setitem(owner._CONFIGURATION, "delta.logRetentionDuration", HOURS_AGO)
    first = most_of_ticks(tmp_path, 2 * compaction.BATCHES_PER_GROUP)
    last = most_of_ticks(tmp_path, 2 * compaction.BATCHES_PER_GROUP)
    for most in (first, last):
        assert most.entries <= CHECKPOINT_EVERY
        assert most.live_files < compaction.BATCHES_PER_GROUP + 8
    assert last.entry_bytes < 1.2 * first.entry_bytes
    assert last.checkpoint_bytes < 1.2 * first.checkpoint_bytes


def test_old_log_entries_and_replaced_files_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)
    folder = tmp_path / "_changelog" / "orders"
    for number in range(24):
        log = log_in(tmp_path)
        log.append(1, [shard(number)])
        log.maintain_once()
    long_ago = time.time() - 7 * 3600
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))
    for number in range(24, 80):
        log = log_in(tmp_path)
        log.append(1, [shard(number)])
        log.maintain_once()
    log_in(tmp_path).delete_orphan_files()
    entries = sorted(path.name for path in (folder / "_delta_log").glob("*.json"))
    assert f"{0:020d}.json" not in entries
    assert len(events(list(log_in(tmp_path).chunks(0, 80, 1)))) == 80


def test_every_replaced_file_is_deleted_before_its_log_entry_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log lists a replaced file for longer than the time between two deletions."""
    for module in (maintain_log, checkpoints):
        retained = module.RETENTION_HOURS
        listed = int(configured(module)["delta.deletedFileRetentionDuration"].split()[1])
        assert listed * 3600 >= retained * 3600 + CLEAN_UP_EVERY_SECONDS
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)
    monkeypatch.setattr(maintain_log, "RETENTION_HOURS", 0)
    for number in range(24):
        log_in(tmp_path).append(1, [shard(number)])
    log = log_in(tmp_path)
    while log.maintain_once():
        pass
    folder = tmp_path / "_changelog" / "orders"
    assert len(list(folder.rglob("*.parquet"))) > len(log.files)
    log.delete_orphan_files()
    on_disk = {path for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts}
    assert len(on_disk) == len(log_in(tmp_path).files)
    assert len(events(list(log_in(tmp_path).chunks(0, 24, 1)))) == 24


def configured(module: ModuleType) -> dict[str, str]:
    found: dict[str, str] = vars(module).get("CONFIGURATION") or vars(module)["_CONFIGURATION"]
    return found
