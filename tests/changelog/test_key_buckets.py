from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog import compaction, slot_parts
from datazone_dagster.changelog import files as files_module
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.changelog.slot_parts import BY_SLOTS, slots_in
from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord, MalformedRecord
from tests.examples import examples

COLUMNS = [Log.BATCH, Log.KEYS, Log.EVENT_ID]


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 64 rows, and of 16 of one of 16 ranges of slots."""
    monkeypatch.setattr(files_module, "ROW_GROUP_ROWS", 64)
    monkeypatch.setattr(slot_parts, "WAITING_ROWS", 256)


def record(number: int, key: int) -> ChangeRecord:
    text = b'{"id":{"S":"%d"}}' % key
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="MODIFY",
        sequence_number=10**22 + number,
        created_at=1_700_000_000,
        keys=text,
        new_image=text,
        old_image=None,
        size_bytes=10,
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


def log_of(root: Path, batches: Sequence[int], *, by_slots: str | None) -> ChangeLogSnapshot:
    """Land batches of so many changes of 300 keys; the first has a malformed record, too."""
    log = ChangeLog(Layout(str(root)), "orders").open_or_create()
    if by_slots:
        log.set_property(BY_SLOTS, by_slots, "Laying the log out")
    number = 0
    for position, rows in enumerate(batches):
        records = [record(number + at, (number + at) * 7 % 300) for at in range(rows)]
        number += rows
        malformed = [MalformedRecord(b"{", "no JSON", None)] if not position else []
        log.append(1, [ShardRecords("arn:stream/1", "s", None, records, malformed)])
    return log


def rows_in(table: pa.Table) -> list[tuple[int, str, str]]:
    return list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))


def read(root: Path, bucket: KeyBucket, after: int, through: int) -> list[tuple[int, str, str]]:
    log = ChangeLog(Layout(str(root)), "orders", bucket=bucket).open()
    assert log is not None
    with log.row_groups(after, through) as groups:
        by_group = [row for group in groups for row in rows_in(groups.read(group, COLUMNS))]
    chunks = list(log.chunks(after, through, 1, columns=COLUMNS))
    in_chunks = [row for chunk in chunks for row in rows_in(chunk.rows)]
    assert in_chunks == by_group
    assert [chunk.first_batch for chunk in chunks] == sorted({row[0] for row in by_group})
    assert log.has_rows(after, through) == bool(by_group)
    for chunk in chunks:
        again = log.columns_of(chunk, [Log.EVENT_ID])[Log.EVENT_ID].to_pylist()
        assert again == chunk.rows[Log.EVENT_ID].to_pylist()
    return by_group


@settings(max_examples=examples(12), deadline=None)
@given(
    batches=st.lists(st.sampled_from([1, 5, 40, 200, 400]), min_size=1, max_size=4),
    by_slots=st.sampled_from([None, "true", "2", "8"]),
    joined=st.booleans(),
    of=st.sampled_from([2, 4, 16, 32]),
    data=st.data(),
)
def test_every_change_is_read_in_one_bucket_and_in_the_order_of_its_key(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[int],
    by_slots: str | None,
    joined: bool,
    of: int,
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        if joined:
            patch.setattr(
                "datazone_dagster.changelog.compaction.BATCHES_PER_GROUP", len(batches) + 1
            )
        log = log_of(root, batches, by_slots=by_slots)
        while joined and log.maintain_once():
            pass
    after = data.draw(st.integers(0, len(batches) - 1))
    through = data.draw(st.integers(after + 1, len(batches)))
    whole = read(root, WHOLE, after, through)
    assert len(whole) == sum(batches[after:through]) + (after == 0)
    parts = [read(root, bucket, after, through) for bucket in key_buckets(of)]
    assert sorted(map(str, whole)) == sorted(str(row) for part in parts for row in part)
    for rows in (whole, *parts):
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        for key in {row[1] for row in rows}:
            of_key = [int(row[2][1:]) for row in rows if row[1] == key and row[2]]
            assert of_key == sorted(of_key)


def test_a_bucket_reads_its_own_row_groups_of_a_large_batch(tmp_path: Path) -> None:
    log_of(tmp_path, [2000, 30], by_slots="true")
    read_groups = {}
    for bucket in (WHOLE, KeyBucket(3, 4)):
        log = ChangeLog(Layout(str(tmp_path)), "orders", bucket=bucket).open()
        assert log is not None
        with log.row_groups(0, 2) as groups:
            read_groups[bucket] = list(groups)
    whole, part = read_groups.values()
    assert sum(group.rows for group in part) < sum(group.rows for group in whole) / 3
    # All but the small batch, which is one row group of all keys, need no filter.
    assert [group.filtered for group in part] == [False] * (len(part) - 1) + [True]


def test_fewer_ranges_have_larger_row_groups(tmp_path: Path) -> None:
    notes = {}
    for by_slots in ("true", "8", "2"):
        root = tmp_path / by_slots
        log = ChangeLog(Layout(str(root)), "orders").open_or_create()
        log.set_property(BY_SLOTS, by_slots, "Laying the log out")
        pages = [[record(at + page, at + page) for at in range(20)] for page in range(0, 2000, 20)]
        log.append(1, [ShardRecords("arn:stream/1", "s", None, page) for page in pages])
        [path] = root.rglob("_changelog/**/*.parquet")
        notes[by_slots] = slots_in(pq.ParquetFile(path).metadata)
    ranges = [len(set(one)) for one in notes.values()]
    assert ranges == [16, 8, 2]
    former, fewer, fewest = (len(one) for one in notes.values())
    assert former > fewer > fewest


def test_joined_files_keep_their_row_groups_by_slots(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "BATCHES_PER_GROUP", 4)
        log = log_of(tmp_path, [10, 500, 500], by_slots="4")
        while log.maintain_once():
            pass
    (file,) = log.files
    with pq.ParquetFile(tmp_path / "_changelog" / "orders" / file.path) as parquet:
        known = slots_in(parquet.metadata)
        for number, slots in enumerate(known):
            if slots is not None:
                found = slots_of(parquet.read_row_group(number, columns=[Log.KEYS])[Log.KEYS])
                assert slots[0] <= found.min()
                assert found.max() <= slots[1]
    assert sum(slots is None for slots in known) == 1
    assert len(set(known)) == 4 + 1


def test_a_log_without_the_property_is_written_as_before(tmp_path: Path) -> None:
    log = log_of(tmp_path, [200], by_slots=None)
    (file,) = log.files
    with pq.ParquetFile(tmp_path / "_changelog" / "orders" / file.path) as parquet:
        assert slots_in(parquet.metadata) == [None] * parquet.num_row_groups
        assert parquet.num_row_groups <= 200 // 64 + 2
