"""Every change, but only referenced columns: what is read, and that results are equal.

The selective reader serves unread frames, the full scan functions that read their chunk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.changelog import compaction
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.quarantine_rows import FIRST_SEEN_AT, LAST_SEEN_AT
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model import size_policy
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.pipeline import apply_transform, read_dataset, redrive_dataset
from tests.apply.test_selective_read import BATCHES, SOURCE, Change, contents, land
from tests.apply.test_selective_read import open_orders as new
from tests.examples import examples

IMAGES = (Log.OLD_IMAGE, Log.NEW_IMAGE)
ORIGIN_COLUMNS = (Log.STREAM_ARN, Log.SHARD_ID, Log.PARENT_SHARD_ID, Log.RAW)
DATASETS: dict[str, Dataset] = {
    "append": Dataset(id="out", mode="append"),
    "history": Dataset(id="out", mode="history"),
    "soft": Dataset(id="out", deletes="soft"),
    "merge": Dataset(id="out"),
    "contract": Dataset(
        id="out",
        mode="history",
        schema=pa.schema([pa.field("total", pa.string(), nullable=False)]),
        schema_policy={"total": "quarantine"},
    ),
}
Use = Callable[[Frame], Any]
OnError = Literal["fail", "quarantine"]


def totals(orders: Frame) -> Frame:
    return orders.select("dynamodb.NewImage.total.N as total")


def old(orders: Frame) -> Frame:
    return orders.select("eventName", "dynamodb.OldImage.status.S as total")


def keys(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.N as id", "dynamodb.SizeBytes as total")


def both(orders: Frame) -> Frame:
    return orders.select("dynamodb.NewImage", "dynamodb.OldImage", "userIdentity.type as total")


def windowed(orders: Frame) -> Frame:
    return orders.sql(
        "select row_number() over (partition by _dz_key order by _dz_version) as total, "
        "dynamodb.NewImage.status.S as status from changes"
    )


def items(orders: Frame) -> Frame:
    return orders.filter("eventName <> 'REMOVE'").items()


def old_items(orders: Frame) -> Frame:
    return orders.items("old")


ROW_WISE = (new, totals, old, both, items, old_items)


def both_items(orders: Frame) -> Frame:
    return orders.items("both")


def counted(orders: Frame) -> pa.Table:
    """Reads the chunk, then more and more of its columns."""
    ids = orders.select("eventID", "eventName as total").arrow()
    statuses = orders.select("dynamodb.NewImage.status.S as status").arrow()
    return ids.append_column("status", statuses["status"])


def everything(orders: Frame) -> pa.Table:
    return orders.select("eventID", "dynamodb").select("eventID", "dynamodb.SizeBytes as total")


def read_at_once(orders: Frame) -> pa.Table:
    return orders.arrow().drop_columns(["dynamodb", "userIdentity"])


def flow(use: Use, dataset: Dataset, on_error: OnError = "fail") -> Transform:
    return transform(
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"out": Output(dataset)},
        on_error=on_error,
        name="flow",
    )(use)


def applied(
    use: Use, dataset: Dataset, layout: Layout, on_error: OnError = "fail", **bounds: Any
) -> Any:
    return apply_transform(flow(use, dataset, on_error), layout, settings=ApplySettings(**bounds))[
        dataset.id
    ]


@pytest.fixture
def columns_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The columns of change log files that Parquet's reader reads from now on."""
    found: set[str] = set()

    def recording(name: str) -> None:
        original = getattr(pq.ParquetFile, name)

        def read(self: pq.ParquetFile, *args: Any, columns: list[str], **kwargs: Any) -> Any:
            if Log.OLD_IMAGE in self.schema_arrow.names:
                found.update(columns)
            return original(self, *args, columns=columns, **kwargs)

        monkeypatch.setattr(pq.ParquetFile, name, read)

    recording("iter_batches")
    recording("read_row_group")
    return found


@pytest.mark.parametrize(
    ("use", "images", "mode"),
    [
        (new, {Log.NEW_IMAGE}, "append"),
        (new, {Log.NEW_IMAGE}, "history"),
        (new, {Log.NEW_IMAGE}, "soft"),
        (new, {Log.NEW_IMAGE}, "merge"),
        (old, {Log.OLD_IMAGE}, "history"),
        (keys, set(), "append"),
        (both, set(IMAGES), "soft"),
        (windowed, {Log.NEW_IMAGE}, "append"),
        (windowed, {Log.NEW_IMAGE}, "merge"),
        (items, {Log.NEW_IMAGE}, "append"),
        (items, {Log.NEW_IMAGE}, "history"),
        (items, {Log.NEW_IMAGE}, "merge"),
        (old_items, {Log.OLD_IMAGE}, "append"),
        (both_items, set(IMAGES), "append"),
        (counted, {Log.NEW_IMAGE}, "soft"),
        (counted, {Log.NEW_IMAGE}, "merge"),
        (everything, set(), "append"),
        (read_at_once, set(IMAGES), "append"),
    ],
)
def test_only_requested_columns_are_read(
    use: Use, images: set[str], mode: str, tmp_path: Path, columns_read: set[str]
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(1, [Change(0, "open"), Change(2, "gone")], 0)])
    applied(use, DATASETS[mode], layout)
    assert columns_read & set(IMAGES) == images
    assert not columns_read & set(ORIGIN_COLUMNS)


def test_a_chunk_by_size_holds_twice_as_many_changes_without_their_old_images(
    tmp_path: Path,
) -> None:
    layout = Layout(str(tmp_path))
    image = json.dumps({"status": {"S": "x" * 4000}, "total": {"N": "1"}}).encode()
    for number in range(12):
        changed = Change(number % 4, "open").record(1000 * number)
        land_records(layout, [changed._replace(new_image=image, old_image=image)])
    chunks = {
        use: applied(use, Dataset(id=use.__name__, mode="append"), layout, chunk_bytes=20_000)
        for use in (windowed, new, both, items, read_at_once)
    }
    assert {use: report.chunks for use, report in chunks.items()} == {
        windowed: 3,  # 5 changes of 4.5 KB each
        new: 4,  # 3 of 9 KB: no image of them is in memory, and each counts as a whole
        both: 4,
        items: 4,  # may still request the old image
        read_at_once: 4,
    }


@pytest.mark.parametrize(
    ("bytes_of_changes", "expected"), [(0, 9), (6, 5), (8.5, 3), (100, 1)], ids=str
)
def test_a_chunk_ends_with_the_batch_that_reaches_its_size_also_in_a_joined_file(
    bytes_of_changes: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine batches of four changes: a row group of a joined file has several of them."""
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 4)
    layout = Layout(str(tmp_path))
    image = json.dumps({"status": {"S": "x" * 9000}, "total": {"N": "1"}}).encode()
    for batch in range(9):
        changes = [Change(key, "open").record(100 * batch + key) for key in range(4)]
        land_records(layout, [change._replace(new_image=image) for change in changes])
    log = ChangeLog(layout, "orders").open_or_create()
    while log.maintain_once():
        pass
    groups = [group.rows for group in ChangeLog(layout, "orders").open_or_create().row_groups(0, 9)]
    assert max(groups) > 4
    chunk_bytes = int(bytes_of_changes * 9200) or 1
    report = applied(new, DATASETS["append"], layout, chunk_bytes=chunk_bytes)
    assert (report.records, report.chunks) == (36, expected)


def land_records(layout: Layout, records: list[ChangeRecord]) -> None:
    log = ChangeLog(layout, "orders").open_or_create()
    log.append(1, [ShardRecords("arn", "s", "parent", records)])


def quarantined(layout: Layout) -> list[dict[str, Any]]:
    rows = Quarantine(layout, "out").waiting().drop_columns([FIRST_SEEN_AT, LAST_SEEN_AT])
    return sorted(rows.to_pylist(), key=repr)


BAD = st.sampled_from(
    [
        lambda record: record._replace(new_image=b'{"cut'),
        lambda record: record._replace(old_image=b'{"cut'),
        lambda record: record._replace(new_image=b'{"total":{"N":5}}'),
        lambda record: record._replace(new_image=b'{"total":{"N":"no number"}}'),
        lambda record: record._replace(keys=b'{"id":{"N":"one"}}'),
    ]
)


def after_reading_all(use: Use) -> Use:
    """The same function, after reading every column of every change."""

    def looking(orders: Frame) -> Any:
        assert orders.arrow().num_rows >= 0
        return use(orders)

    return looking


@settings(max_examples=examples(8), deadline=None)
@given(
    mode=st.sampled_from(sorted(DATASETS)),
    use=st.sampled_from([new, totals, old, both, windowed, items, old_items, counted]),
    on_error=st.sampled_from(["quarantine", "quarantine", "fail"]),
    batches=BATCHES,
    bad=st.lists(st.tuples(st.integers(0, 3), BAD), max_size=2),
    chunk_bytes=st.sampled_from([1, 4000, 1 << 30]),
)
def test_datasets_and_quarantines_are_as_from_all_columns(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    use: Use,
    on_error: OnError,
    batches: list[Any],
    bad: list[Any],
    chunk_bytes: int,
) -> None:
    if mode == "merge" and use in ROW_WISE:
        mode = "soft"  # a merge never reads a superseded change
    if use is windowed:
        chunk_bytes = 1  # its rows depend on where a chunk ends
    results: list[object] = []
    for way in (use, after_reading_all(use)):
        layout = Layout(str(tmp_path_factory.mktemp("lake")))
        land(layout, batches)
        for number, (key, spoil) in enumerate(bad):
            record = Change(key, "open").record(10**6 + number)
            land_records(layout, [spoil(record), Change(key, "open", "3").record(10**7 + number)])
        try:
            report = applied(
                way, DATASETS[mode], layout, chunk_bytes=chunk_bytes, on_error=on_error
            )
        except TransformError as error:
            results.append(type(error))
            continue
        facts = {
            name: getattr(report, name)
            for name in ("position", "records", "record_bytes", "quarantined", "event_time_max")
        }
        results.append((contents(layout, "out"), quarantined(layout), facts))
    assert results[0] == results[1]


@pytest.mark.parametrize("mode", ["append", "history", "soft"])
@pytest.mark.parametrize(
    ("use", "image"), [(new, '{"total":{"N":"no number"}}'), (items, '{"total":{"N":5}}')]
)
def test_quarantined_changes_are_complete_and_can_be_redriven(
    use: Use, image: str, mode: str, tmp_path: Path
) -> None:
    layout, dataset = Layout(str(tmp_path)), DATASETS[mode]
    odd = Change(0, "open").record(1)._replace(new_image=image.encode())
    land_records(layout, [odd, Change(2, "open", "7").record(2)])
    applied(use, dataset, layout, on_error="quarantine")
    [waiting] = quarantined(layout)
    assert waiting[Log.NEW_IMAGE] == image
    assert waiting[Log.OLD_IMAGE] == '{"status":{"S":"old"}}'
    shard = (waiting[Log.STREAM_ARN], waiting[Log.SHARD_ID], waiting[Log.PARENT_SHARD_ID])
    assert shard == ("arn", "s", "parent")
    fixed = flow(lambda orders: orders.select("dynamodb.OldImage.status.S as status"), dataset)
    assert redrive_dataset(fixed, "out", layout).redriven == 1
    assert "old" in [row["status"] for row in contents(layout, "out")]


def test_a_deferred_change_is_quarantined_with_all_columns(
    tmp_path: Path, columns_read: set[str]
) -> None:
    layout, dataset = Layout(str(tmp_path)), DATASETS["append"]
    odd = Change(0, "open").record(1)._replace(new_image=b'{"total":{"N":"no number"}}')
    land_records(layout, [odd])
    applied(new, dataset, layout, on_error="quarantine")
    columns_read.clear()
    land_records(layout, [Change(0, "open", "9").record(2), Change(2, "open", "8").record(3)])
    applied(new, dataset, layout, on_error="quarantine")
    assert columns_read >= {*IMAGES, *ORIGIN_COLUMNS}
    first, second = sorted(quarantined(layout), key=lambda row: row[Log.VERSION])
    assert second[Log.OLD_IMAGE] == '{"status":{"S":"old"}}'
    assert second[Log.REASON] != first[Log.REASON]
    assert [row["total"] for row in contents(layout, "out")] == [8]


def test_a_change_that_a_contract_refuses_keeps_all_columns(
    tmp_path: Path, columns_read: set[str]
) -> None:
    layout = Layout(str(tmp_path))
    empty = Change(0, "open").record(1)._replace(new_image=b"{}")
    land_records(layout, [empty, Change(2, "open", "7").record(2)])
    applied(totals, DATASETS["contract"], layout)
    assert columns_read >= {*IMAGES, *ORIGIN_COLUMNS}
    [waiting] = quarantined(layout)
    assert (waiting[Log.NEW_IMAGE], waiting[Log.OLD_IMAGE]) == ("{}", '{"status":{"S":"old"}}')
    assert [row["total"] for row in contents(layout, "out")] == ["7"]


def test_malformed_records_are_quarantined_with_their_text(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(1, [Change(0, "open", "1"), Change(2, "open", "2")], 1)])
    for use, mode in ((new, "append"), (items, "history"), (counted, "soft")):
        dataset = replace(DATASETS[mode], id=use.__name__)
        assert applied(use, dataset, layout).quarantined == 1
        [row] = Quarantine(layout, use.__name__).waiting().to_pylist()
        assert (row[Log.RAW], row[Log.STREAM_ARN]) == ("no record 2", "arn")
        assert read_dataset(layout, use.__name__).num_rows == 2


@pytest.mark.parametrize("mode", ["append", "history", "soft"])
def test_no_image_of_a_row_group_stays_until_the_merge(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many times the memory for a chunk with its images is one merge, of its rows alone."""
    layout = Layout(str(tmp_path))
    image = json.dumps({"status": {"S": "x" * 50_000}, "total": {"N": "1"}}).encode()
    for batch in range(6):
        changes = [Change(at % 4, "open").record(1000 * batch + at) for at in range(9)]
        land_records(layout, [one._replace(new_image=image) for one in changes])
    monkeypatch.setattr(size_policy, "FULL_SHARE", 0.0)
    monkeypatch.setattr(size_policy, "SMALLEST_CHUNK_BYTES", 100_000)
    report = applied(totals, DATASETS[mode], layout)
    several = applied(read_at_once, replace(DATASETS[mode], id="several"), layout)
    assert (report.chunks, report.records) == (1, 54)
    assert several.chunks > 1
