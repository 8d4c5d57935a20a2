"""The store fails with a clear StorageError; once it works again, nothing is lost or doubled."""

from __future__ import annotations

import codecs
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.orphan_files import delete_orphan_files
from datazone_dagster.errors import ConcurrentWriterError, DefinitionError, StorageError
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.process import crash_points
from datazone_dagster.testing import (
    ScriptedStream,
    full_disk,
    read_only,
    storage_fails_at,
)
from tests.changelog.test_change_log import lose_a_race
from tests.faults.ledger import record
from tests.faults.object_store import BUCKET, FaultyStore, Trouble, faulty_store
from tests.faults.orders import (
    SOURCE,
    current_rows,
    event_ids,
    expected_rows,
    flow,
    ids,
    order,
)
from tests.forked import forked

NOBODY = 65534


def write(stream: ScriptedStream, start: int, count: int) -> None:
    for number in range(start, start + count):
        stream.put(order(number % 23, ("placed", "paid", "hidden")[number % 3], number))
        if number % 5 == 0:
            stream.delete({"id": {"S": f"k{number % 23}"}})


def tick(stream: ScriptedStream, layout: Layout) -> None:
    drain_once(SOURCE, stream, layout)
    apply_transform(flow, layout)


def ticks_with_trouble(stream: ScriptedStream, layout: Layout, count: int) -> list[StorageError]:
    errors = []
    for number in range(count):
        write(stream, 10 * number, 10)
        if number % 3 == 2:
            stream.split()
        try:
            tick(stream, layout)
        except StorageError as error:
            errors.append(error)
    return errors


def assert_exactly_once(
    stream: ScriptedStream, layout: Layout, *, fault: str, injected: int, ticks: int = 3
) -> None:
    for _ in range(ticks):
        tick(stream, layout)
    entry = record(fault, injected, ids(stream.changes), event_ids(layout))
    assert (entry.lost, entry.doubled) == (0, 0)
    assert current_rows(layout) == expected_rows(stream.changes)


@pytest.mark.parametrize(
    "point",
    [p for p in crash_points.POINTS if p not in ("before cursor", crash_points.AFTER_WIDENING)],
)
def test_the_process_goes_on_after_a_failure(layout: Layout, point: str) -> None:
    """A failure before a commit means no commit; one after it means that its answer was lost."""
    stream = ScriptedStream(shards=2, page_records=3)
    struck = 0
    for number in range(3):
        write(stream, 10 * number, 10)
        try:
            with storage_fails_at(point, nth=1 + number % 2):
                tick(stream, layout)
        except StorageError:
            struck += 1
    assert struck
    fault = f"storage error {point}"
    assert_exactly_once(stream, layout, fault=fault, injected=struck, ticks=2)


# -- an object store, by HTTP


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


def commits_meet_trouble(
    store: FaultyStore, trouble: Trouble, *, table_path: str, every: int, ticks: int
) -> None:
    stream = ScriptedStream(shards=2)
    layout = Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", store.options)
    store.script(table_path, trouble, every=every)
    errors = ticks_with_trouble(stream, layout, ticks)
    struck = store.heal()
    assert struck >= ticks // 2
    assert all(error.safe and error.hint for error in errors)
    where = table_path.strip("/") or "any table"
    fault = f"commit to {where}: {trouble}"
    assert_exactly_once(stream, layout, fault=fault, injected=struck, ticks=2)


@pytest.mark.parametrize("trouble", ["refused", "answer lost"])
def test_commits_to_an_object_store(store: FaultyStore, trouble: Trouble) -> None:
    commits_meet_trouble(store, trouble, table_path="", every=5, ticks=2)


@pytest.mark.faults
@pytest.mark.parametrize("trouble", ["refused", "answer lost"])
@pytest.mark.parametrize("table_path", ["_changelog/", "_checkpoints/", "_tombstones/", "current/"])
def test_commits_to_each_table_in_an_object_store(
    store: FaultyStore, table_path: str, trouble: Trouble
) -> None:
    commits_meet_trouble(store, trouble, table_path=table_path, every=2, ticks=4)


def test_a_drain_that_lost_leaves_no_file_in_an_object_store(store: FaultyStore) -> None:
    change_log = ChangeLog(Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", store.options), "orders")
    lose_a_race(change_log)
    at = change_log.table.now()
    assert at is not None
    folders = ["bucket=0", "bucket=1"]
    assert delete_orphan_files(at, folders, retention=timedelta(hours=3)) == []
    # No store lets a test age its objects, so a negative retention makes them count as old.
    assert len(delete_orphan_files(at, folders, retention=timedelta(hours=-3))) == 1
    assert [len(chunk.rows) for chunk in change_log.open_or_create().chunks(0, 1, 10**6)] == [1]


def test_a_checkpoint_that_lost_leaves_no_file_in_an_object_store(store: FaultyStore) -> None:
    checkpoints = CheckpointTable(Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", store.options), "o")
    checkpoints.open_or_create()
    winner, loser = checkpoints.open_or_create(), checkpoints.open_or_create()
    now = datetime(2025, 1, 1, tzinfo=timezone.utc)
    winner.save(Checkpoint().with_shards(ShardCheckpoint("arn", "s", now)))
    with pytest.raises(ConcurrentWriterError):
        loser.save(Checkpoint().with_shards(ShardCheckpoint("arn", "t", now)))
    at = checkpoints.table.now()
    assert at is not None
    assert delete_orphan_files(at, [""], retention=timedelta(hours=-3)) == []
    assert list(checkpoints.open_or_create().checkpoint.shards) == [("arn", "s")]


# -- a disk that is full, a directory that can't be written


def test_a_full_disk(layout: Layout) -> None:
    """There is no space, or too little; then there is enough again."""
    stream = ScriptedStream(shards=2)
    write(stream, 0, 10)
    tick(stream, layout)
    errors = []
    for file_bytes in (0, 300, 1500, 4000):
        with full_disk(file_bytes=file_bytes):
            errors += [str(error) for error in ticks_with_trouble(stream, layout, 3)]
    assert any("File too large" in text for text in errors)
    assert all("space" in text for text in errors)
    assert_exactly_once(stream, layout, fault="full disk", injected=len(errors))


@dataclass(frozen=True)
class Refused:
    """Errors of a process with a read-only lakehouse, and its events in the end."""

    errors: list[str]
    written: Counter[str]
    found: Counter[str]


def ticks_while_read_only(root: str) -> Refused:
    layout, stream = Layout(root), ScriptedStream(shards=2)
    write(stream, 0, 10)
    tick(stream, layout)
    with read_only(root):
        errors = [str(error) for error in ticks_with_trouble(stream, layout, 3)]
    for _ in range(3):
        tick(stream, layout)
    assert current_rows(layout) == expected_rows(stream.changes)
    return Refused(errors, ids(stream.changes), event_ids(layout))


def ticks_of_nobody(root: str, sender: Connection) -> None:
    """Tick as user nobody. Needs a process of its own: there is no way back to root."""
    # User nobody may be unable to read the interpreter's files: load lazy modules now.
    codecs.lookup("ascii")
    with tempfile.TemporaryDirectory() as other:
        stream = ScriptedStream(shards=2)
        write(stream, 0, 10)
        tick(stream, Layout(other))
    os.chown(root, NOBODY, NOBODY)
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    sender.send(ticks_while_read_only(root))


def as_nobody(root: str) -> Refused:
    context = forked()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=ticks_of_nobody, args=(root, sender), daemon=True)
    process.start()
    sender.close()
    assert receiver.poll(60), "no answer"
    refused: Refused = receiver.recv()
    process.join(10)
    return refused


def as_this_user(root: str) -> Refused:
    try:
        return ticks_while_read_only(root)
    except DefinitionError as error:
        return pytest.skip(str(error))


# Root may write in spite of permissions, so read_only closes its directories in another way.
USERS = [(as_this_user, "not permitted"), (as_nobody, "Permission denied")]


@pytest.mark.parametrize(
    ("run", "cause"), USERS if os.getuid() == 0 else [(as_this_user, "Permission denied")]
)
def test_a_read_only_directory(run: Callable[[str], Refused], cause: str) -> None:
    # Not in pytest's own folder: each new session makes that folder unreadable for other users.
    with tempfile.TemporaryDirectory(prefix="datazone-read-only-") as root:
        refused = run(root)
    assert len(refused.errors) == 3
    assert all("permissions" in text for text in refused.errors)
    assert any(cause in text for text in refused.errors)
    entry = record("read-only directory", 3, refused.written, refused.found)
    assert (entry.lost, entry.doubled) == (0, 0)


def test_a_file_at_the_path_of_the_lakehouse(tmp_path: Path) -> None:
    (tmp_path / "lakehouse").write_text("a file where the directory belongs")
    with pytest.raises(StorageError, match="lakehouse"):
        drain_once(SOURCE, ScriptedStream(), Layout(str(tmp_path / "lakehouse")))
