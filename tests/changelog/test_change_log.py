from __future__ import annotations

import itertools
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog.chunks import Chunk
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.delta.table_state import forget
from datazone_dagster.errors import ConcurrentWriterError, StorageError, UnrecognisedTableError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord, MalformedRecord
from tests.examples import examples

ARN = "arn:stream/1"


def record(number: int, created_at: int = 1_700_000_000) -> ChangeRecord:
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="INSERT",
        sequence_number=10**22 + number,
        created_at=created_at,
        keys=b'{"id":{"S":"1"}}',
        new_image=b'{"id":{"S":"1"}}',
        old_image=None,
        size_bytes=10,
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


def shard(*numbers: int, name: str = "s", parent: str | None = None) -> ShardRecords:
    return ShardRecords(ARN, name, parent, [record(number) for number in numbers])


def log_in(root: Path) -> ChangeLogSnapshot:
    return ChangeLog(Layout(str(root)), "orders").open_or_create()


def make_due_checkpoint(root: Path) -> None:
    """Make the checkpoint that maintenance would begin with."""
    log = log_in(root)
    if log.is_checkpoint_due:
        log.maintain_once()


def lose_a_race(change_log: ChangeLog) -> None:
    """Two drains write their file; the second to commit loses the race."""
    winner, loser = change_log.open_or_create(), change_log.open_or_create()
    with loser.begin(1) as writer:
        writer.put(shard(90))
        writer.finish()
        winner.append(1, [shard(1)])
        with pytest.raises(ConcurrentWriterError):
            writer.commit()


def events(chunks: list[Chunk]) -> list[list[str]]:
    return [chunk.rows[Log.EVENT_ID].to_pylist() for chunk in chunks]


def test_a_batch_is_one_commit_with_its_number_in_rows_and_transaction(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    assert log.append(1, [shard(1, 2), shard(3, name="t")]) == 1
    table = DeltaTable(tmp_path / "_changelog" / "orders")
    assert table.version() == 1
    assert table.transaction_version("drain/orders") == 1
    assert table.to_pyarrow_table()["batch"].to_pylist() == [1, 1, 1]


def test_the_second_of_two_appends_from_one_snapshot_loses_the_race(tmp_path: Path) -> None:
    log_in(tmp_path).append(1, [shard(1)])
    one, other = log_in(tmp_path), log_in(tmp_path)
    one.append(1, [shard(2)])
    with pytest.raises(ConcurrentWriterError):
        other.append(1, [shard(2)])
    (chunk,) = log_in(tmp_path).chunks(0, 9, 10**6)
    assert chunk.rows[Log.EVENT_ID].to_pylist() == ["e1", "e2"]


@settings(max_examples=examples(10), deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    after=st.integers(0, 6),
    through=st.integers(0, 6),
    chunk_bytes=st.sampled_from([1, 1500, 10**6]),
)
def test_a_range_is_read_in_order_with_complete_batches_per_chunk(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    after: int,
    through: int,
    chunk_bytes: int,
) -> None:
    root = tmp_path_factory.mktemp("log")
    expected, number = [], 0
    for size in sizes:
        numbers = list(range(number, number + size))
        number += size
        log_in(root).append(1, [shard(*numbers)])
        expected.append([f"e{one}" for one in numbers])
    chunks = list(log_in(root).chunks(after, through, chunk_bytes))
    flat = [event for chunk in events(chunks) for event in chunk]
    assert flat == [event for batch in expected[after:through] for event in batch]
    bounds = [(chunk.first_batch, chunk.last_batch) for chunk in chunks]
    assert all(low <= high for low, high in bounds)
    assert all(before[1] + 1 == then[0] for before, then in itertools.pairwise(bounds))
    if chunk_bytes == 1:
        assert all(low == high for low, high in bounds)


def test_only_files_of_the_range_are_opened(tmp_path: Path) -> None:
    for number in range(4):
        log_in(tmp_path).append(1, [shard(number)])
    folder = tmp_path / "_changelog" / "orders"
    files = pa.table(DeltaTable(folder).get_add_actions(flatten=True)).to_pylist()
    for file in files:
        if file["min.batch"] != 3:
            (folder / file["path"]).unlink()
    assert events(list(log_in(tmp_path).chunks(2, 3, 10**6))) == [["e2"]]
    assert log_in(tmp_path).oldest_event_time_after(2) == datetime.fromtimestamp(
        1_700_000_000, timezone.utc
    )


def test_positions_are_the_highest_numbers_as_integers(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    narrow, wide = record(0)._replace(sequence_number=9 * 10**20), record(0)
    log.append(1, [ShardRecords(ARN, "s", "p", [narrow, wide])])
    log.append(2, [shard(7, name="t")])
    landed = {row.shard_id: row for row in log_in(tmp_path).landed_since(0)}
    assert landed["s"].sequence_number == 10**22
    assert landed["s"].parent_shard_id == "p"
    assert landed["t"].epoch == 2
    assert {row.shard_id for row in log_in(tmp_path).landed_since(1)} == {"t"}


def test_a_malformed_record_is_stored_in_its_raw_form(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    bad = MalformedRecord(b'{"\xff', "not JSON")
    log.append(1, [ShardRecords(ARN, "s", None, [], [bad])])
    (chunk,) = log_in(tmp_path).chunks(0, 1, 10**6)
    (row,) = chunk.rows.to_pylist()
    assert (row["raw"], row["reason"], row["event_name"]) == ('{"\\xff', "not JSON", None)


def test_an_unrecognised_table_at_its_path_is_refused(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "_changelog" / "orders"), pa.table({"a": [1]}))
    with pytest.raises(UnrecognisedTableError, match="Nothing was overwritten"):
        log_in(tmp_path)


def test_a_damaged_table_is_an_error_and_left_alone(tmp_path: Path) -> None:
    log_in(tmp_path).append(1, [shard(1)])
    first = tmp_path / "_changelog" / "orders" / "_delta_log" / f"{0:020d}.json"
    first.write_text("garbage")
    forget(str(tmp_path / "_changelog" / "orders"))  # as a new process
    with pytest.raises(StorageError, match="can't be opened"):
        log_in(tmp_path)
    assert first.read_text() == "garbage"


def test_a_snapshot_moves_on_to_batches_that_others_landed(tmp_path: Path) -> None:
    reader, writer = log_in(tmp_path), log_in(tmp_path)
    assert reader.head == 0
    for number in range(1, 4):
        writer.append(1, [shard(number)])
        reader.move_on()
        assert reader.head == number
        assert events(list(reader.chunks(0, number, 10**9))) == events(
            list(log_in(tmp_path).chunks(0, number, 10**9))
        )
