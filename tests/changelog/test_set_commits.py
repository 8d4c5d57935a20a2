"""Several drains of one change log, each with a set of shards: every record lands exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.changelog.set_commits import LONGEST_SECONDS, SetBatch, sets_in
from datazone_dagster.delta.table_state import forget
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Landed
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard_set import ShardSet, shard_set_named, shard_sets
from datazone_dagster.model.snapshot_state import announced, wanted
from tests.changelog.test_change_log import ARN, log_in, shard
from tests.examples import examples

SHARDS = ("p", "q", "r", "s", "t")
TICK = ShardSet(1, 1)
"""Stands for a drain of all shards that knows of no sets: the fence of one drain holds for it."""


def prepared(root: Path) -> ChangeLogSnapshot:
    log = log_in(root)
    log.number_by_commit()
    return log


def table_in(root: Path) -> Snapshot:
    found = ChangeLog(Layout(str(root)), "orders").table.now()
    assert found is not None
    return found


def positions(log: ChangeLogSnapshot) -> dict[str, int]:
    found = dict.fromkeys(SHARDS, 0)
    for one in log.landed_since(0):
        assert one.sequence_number is not None
        found[one.shard_id] = max(found[one.shard_id], one.sequence_number - 10**22)
    return found


@dataclass
class Drain:
    """A drain between its read and its commit."""

    shards: ShardSet
    writer: BatchWriter
    landed: list[Landed]
    commits: int
    moved: set[str] = field(default_factory=set)


def begun(root: Path, shards: ShardSet, commits: int = 0) -> Drain:
    """Read two records of each shard of the set, from the positions that the log has now."""
    log = log_in(root)
    writer = log.begin(1, None if shards == TICK else shards.name)
    landed = []
    for name, position in positions(log).items():
        if shards.has(name):
            writer.put(shard(position + 1, position + 2, name=name))
            landed.append(Landed(ARN, name, None, 1, 10**22 + position + 2, None))
    writer.finish()
    return Drain(shards, writer, landed, commits, {one.shard_id for one in landed})


SETS = (TICK, *shard_sets(2), *shard_sets(3))
Steps = list[tuple[str, ShardSet]]
STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "commit", "join", "property"]), st.sampled_from(SETS)),
    max_size=25,
)
SECOND = ShardSet(2, 2)
OF_THREE = next(one for one in shard_sets(3) if any(map(one.has, filter(SECOND.has, SHARDS))))


@settings(max_examples=examples(25), deadline=None)
@given(STEPS)
@example([("read", TICK), ("property", TICK), ("commit", TICK), ("read", TICK), ("commit", TICK)])
@example([("property", TICK), ("read", TICK), ("property", TICK), ("commit", TICK)])  # same value
@example([("read", SECOND), ("property", TICK), ("commit", SECOND)])
@example([("read", SECOND), ("read", OF_THREE), ("commit", SECOND), ("commit", OF_THREE)])
@example([("read", TICK), ("read", SECOND), ("commit", TICK), ("commit", SECOND)])
@example([("read", TICK), ("read", SECOND), ("commit", SECOND), ("commit", TICK)])
def test_every_interleaving_lands_each_record_once_and_whoever_meets_no_other_wins(
    tmp_path_factory: pytest.TempPathFactory, steps: Steps
) -> None:
    """A set loses to batches of its shards; a tick that drains to every commit but a scan's.

    The log is that of a tick at first: the first read of a set has commits number the batches.
    """
    root = tmp_path_factory.mktemp("log")
    log_in(root)
    waiting: dict[ShardSet, Drain] = {}
    commits: list[tuple[ShardSet, set[str]] | None] = []  # None: a property
    head = 0
    for what, shards in steps:
        if what == "read" and shards not in waiting:
            if shards != TICK and BY_COMMIT not in log_in(root).properties:
                prepared(root)
                commits.append(None)
            waiting[shards] = begun(root, shards, len(commits))
        elif what == "commit" and shards in waiting:
            drain = waiting.pop(shards)
            since = commits[drain.commits :]
            met = any(one[0] == shards or one[1] & drain.moved for one in since if one is not None)
            if not drain.writer.has_rows:
                continue
            if met or (shards == TICK and since):
                with pytest.raises(ConcurrentWriterError):
                    drain.writer.commit(drain.landed)
            else:
                head += 1
                assert drain.writer.commit(drain.landed) == head
                commits.append((shards, drain.moved))
        elif what == "join":
            while log_in(root).maintain_once():
                pass
        elif what == "property":
            log_in(root).set_property("datazone.test", str(head), "Testing")
            commits.append(None)
    check(root, head)


def check(root: Path, head: int) -> None:
    """Every shard has its records once, in order, in batches that are numbered without a hole."""
    forget(str(root / "_changelog" / "orders"))
    log = log_in(root)
    assert log.head == head
    columns = [Log.BATCH, Log.SHARD_ID, Log.EVENT_ID]
    rows = [row for one in log.chunks(0, head, 1, columns=columns) for row in one.rows.to_pylist()]
    assert list(dict.fromkeys(row[Log.BATCH] for row in rows)) == list(range(1, head + 1))
    for name, position in positions(log).items():
        ids = [row[Log.EVENT_ID] for row in rows if row[Log.SHARD_ID] == name]
        assert ids == [f"e{number}" for number in range(1, position + 1)]


def test_a_drain_whose_set_was_taken_over_while_it_slept_lands_nothing(tmp_path: Path) -> None:
    prepared(tmp_path)
    first, second = shard_sets(2)
    frozen = begun(tmp_path, first)
    for _ in range(3):
        taken_over = begun(tmp_path, first)
        taken_over.writer.commit(taken_over.landed)
    other = begun(tmp_path, second)
    other.writer.commit(other.landed)
    with pytest.raises(ConcurrentWriterError, match="the same set"):
        frozen.writer.commit(frozen.landed)
    check(tmp_path, 4)
    assert sets_in(table_in(tmp_path).transactions, "orders") == {"1-of-2": 3, "2-of-2": 4}


def test_a_drain_that_slept_past_the_entries_of_the_log_lands_nothing(tmp_path: Path) -> None:
    """The entries that would tell are deleted, and its own version with them."""
    prepared(tmp_path)
    first, second = shard_sets(2)
    frozen = begun(tmp_path, first)
    for _ in range(25):
        other = begun(tmp_path, second)
        other.writer.commit(other.landed)
    while log_in(tmp_path).maintain_once():
        pass
    for entry in (tmp_path / "_changelog" / "orders" / "_delta_log").glob("*.json"):
        if int(entry.name[:20]) < 20:
            entry.unlink()
    with pytest.raises(ConcurrentWriterError):
        frozen.writer.commit(frozen.landed)
    check(tmp_path, 25)


def test_a_batch_that_began_long_ago_is_not_landed(tmp_path: Path) -> None:
    prepared(tmp_path)
    at = table_in(tmp_path)
    now = [1000.0]
    batch = SetBatch("orders", "1-of-2", at, lambda: now[0])
    batch.check_age("uri")
    now[0] += LONGEST_SECONDS + 1
    with pytest.raises(ConcurrentWriterError, match="began over 30 min ago"):
        batch.check_age("uri")


def test_a_commit_that_was_made_long_after_the_batch_began_tells_of_deleted_files(
    tmp_path: Path,
) -> None:
    prepared(tmp_path)
    first, second = shard_sets(2)
    at = table_in(tmp_path)
    other = begun(tmp_path, second)
    other.writer.commit(other.landed)
    long_ago = SetBatch("orders", first.name, at, lambda: 0.0)
    with pytest.raises(ConcurrentWriterError, match="long after this batch began"):
        long_ago.after_others(at, [])


def test_a_batch_without_a_note_of_another_drain_is_never_passed(tmp_path: Path) -> None:
    """As an earlier version of the library lands it."""
    prepared(tmp_path)
    drain = begun(tmp_path, ShardSet(1, 2))
    log_in(tmp_path).append(1, [shard(1, name="z")])
    with pytest.raises(ConcurrentWriterError, match="does not say which shards"):
        drain.writer.commit(drain.landed)


def test_a_snapshot_that_raises_the_epoch_makes_the_batches_of_all_sets_lose(
    tmp_path: Path,
) -> None:
    prepared(tmp_path)
    drain = begun(tmp_path, ShardSet(1, 2))
    scan = ScanLog(ChangeLog(Layout(str(tmp_path)), "orders"))
    asked = wanted("resync")
    scan.move(scan.state, asked)
    drain.writer.commit(drain.landed)  # nothing is raised yet
    late = begun(tmp_path, ShardSet(2, 2))
    scan.refresh()
    scan.move(
        asked,
        announced(
            asked, epoch=2, at=datetime.now(timezone.utc), consistent_reads=True, table_id="t"
        ),
    )
    with pytest.raises(ConcurrentWriterError, match="raised the epoch"):
        late.writer.commit(late.landed)


def test_numbers_are_in_the_commits_until_files_are_joined(tmp_path: Path) -> None:
    """What other readers of the table see: null, then the number."""
    prepared(tmp_path)
    for _ in range(35):
        for one in shard_sets(2):
            drain = begun(tmp_path, one)
            drain.writer.commit(drain.landed)
    log = log_in(tmp_path)
    uri = str(tmp_path / "_changelog" / "orders")
    before = DeltaTable(uri).to_pyarrow_table()
    assert before["batch"].null_count == len(before)
    while log.maintain_once():
        pass
    forget(uri)
    after = DeltaTable(uri).to_pyarrow_table()
    numbers = [one for one in after["batch"].to_pylist() if one is not None]
    assert set(numbers) == set(range(1, 64))
    assert pc.max(after["bucket"]).as_py() == 0
    check(tmp_path, 70)


def test_buckets_read_batches_whose_number_is_in_the_commit(tmp_path: Path) -> None:
    log = prepared(tmp_path)
    log.set_property("datazone.by_slots", "true", "Testing")
    for one in shard_sets(2):
        drain = begun(tmp_path, one)
        drain.writer.commit(drain.landed)
    found = []
    for bucket in key_buckets(2):
        of_bucket = ChangeLog(Layout(str(tmp_path)), "orders", bucket=bucket).open()
        assert of_bucket is not None
        chunks = of_bucket.chunks(0, 2, 10**6, columns=[Log.BATCH, Log.SHARD_ID])
        found += [row[Log.BATCH] for chunk in chunks for row in chunk.rows.to_pylist()]
    assert sorted(set(found)) == [1, 2]
    assert len(found) == 2 * len(SHARDS)


def test_sets_share_all_shards_and_keep_them() -> None:
    for count in (1, 2, 7, 32):
        sets = shard_sets(count)
        for number in range(200):
            assert [one.has(f"shardId-{number:08d}") for one in sets].count(True) == 1
        assert [shard_set_named(one.name) for one in sets] == list(sets)
    # Never changes: a worker of another version of the library must know the same sets.
    found = [ShardSet(1, 4).has(f"shardId-{number}") for number in range(8)]
    assert found == [True, False, True, False, False, False, True, False]
    assert shard_set_named("3-of-2") is None
    assert shard_set_named("1-of-100") is None
    assert shard_set_named("x") is None
