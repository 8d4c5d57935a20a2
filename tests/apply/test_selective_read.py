"""The selective reader of the latest changes: the datasets equal those from full chunks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.apply.selective_read import read_selected
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.row_groups import RowGroups
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.dataset.tombstones import KIND as TOMBSTONES
from datazone_dagster.delta import open_table
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.query_session import Coming
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord, MalformedRecord
from datazone_dagster.model.size_policy import ChunkBounds
from datazone_dagster.pipeline import apply_transform, read_dataset
from datazone_dagster.sources import DynamoDBSource
from tests.examples import examples

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")
KEYS = ('{"id":{"N":"1"}}', '{"id":{"N":"1.0"}}', '{"id":{"N":"2"}}', '{ "id" : {"N":"3"} }')
"""Keys as text; the first two are the same item."""


def open_orders(orders: Frame) -> Frame:
    return orders.filter("coalesce(dynamodb.NewImage.status.S, '') <> 'hidden'").select(
        "eventID",
        "dynamodb.Keys.id.N as id",
        "cast(dynamodb.NewImage.total.N as bigint) as total",
        "unnest(coalesce(dynamodb.NewImage.tags.SS, [null])) as tag",
    )


def read_at_once(orders: Frame) -> Frame:
    assert orders.arrow().num_rows
    return open_orders(orders)


def applied(name: str, function: Callable[[Frame], Frame], layout: Layout, **bounds: Any) -> Any:
    flow = transform(
        name=name,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={name: Output(Dataset(id=name))},
    )(function)
    return apply_transform(flow, layout, settings=ApplySettings(**bounds))[name]


@dataclass(frozen=True)
class Change:
    key: int
    status: str
    total: str = "1"
    tags: int = 0
    ttl: bool = False

    def record(self, number: int) -> ChangeRecord:
        image: dict[str, Any] | None = {"status": {"S": self.status}, "total": {"N": self.total}}
        if image and self.tags:
            image["tags"] = {"SS": [f"t{tag}" for tag in range(self.tags)]}
        if self.status == "gone":
            image = None
        return ChangeRecord(
            event_id=f"e{number}",
            event_name="REMOVE" if image is None else "MODIFY",
            sequence_number=10**22 + number,
            created_at=1_700_000_000 + number,
            keys=KEYS[self.key].encode(),
            new_image=None if image is None else json.dumps(image).encode(),
            old_image=b'{"status":{"S":"old"}}',
            size_bytes=10,
            region="eu-west-1",
            view_type="NEW_AND_OLD_IMAGES",
            user_principal="dynamodb.amazonaws.com" if self.ttl else None,
        )


CHANGES = st.builds(
    Change,
    key=st.integers(0, 3),
    status=st.sampled_from(["open", "open", "hidden", "gone"]),
    total=st.sampled_from(["1", "22"]),
    tags=st.integers(0, 2),
    ttl=st.booleans(),
)
BATCHES = st.lists(
    st.tuples(
        st.integers(1, 2),  # epochs in any order: a scan between changes of the stream
        st.lists(CHANGES, min_size=1, max_size=5),
        st.sampled_from([0, 0, 0, 1]),
    ),
    min_size=1,
    max_size=5,
)


def land(layout: Layout, batches: Sequence[tuple[int, Sequence[Change], int]]) -> None:
    for epoch, changes, malformed in batches:
        log = ChangeLog(layout, "orders").open_or_create()
        number = 1000 * log.head
        records = []
        for change in changes:
            number += 1
            records.append(change.record(number))
        bad = [MalformedRecord(b"no record %d" % number, "it is none")] * malformed
        log.append(epoch, [ShardRecords("arn", "s", None, records, bad)])


def contents(layout: Layout, name: str) -> list[dict[str, object]]:
    return sorted(read_dataset(layout, name).to_pylist(), key=repr)


def tombstones(layout: Layout, name: str) -> list[tuple[str, str, str]]:
    table = open_table(layout.tombstones(name), {}, TOMBSTONES)
    rows = [] if table is None else table.to_pyarrow_table().to_pylist()
    return sorted((row["_dz_key"], row["_dz_version"], row["cause"]) for row in rows)


@settings(max_examples=examples(25), deadline=None)
@given(batches=BATCHES, chunk_bytes=st.sampled_from([1, 4000, 1 << 30]))
def test_datasets_and_tombstones_are_as_from_full_chunks(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[int, list[Change], int]],
    chunk_bytes: int,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    land(layout, batches)
    one = applied("collapsed", open_orders, layout, chunk_bytes=chunk_bytes)
    other = applied("full", read_at_once, layout, chunk_bytes=1)
    assert contents(layout, "collapsed") == contents(layout, "full")
    # With chunks of one batch a key may be deleted and return: the last tombstone counts.
    full = {key: (version, cause) for key, version, cause in tombstones(layout, "full")}
    for key, version, cause in tombstones(layout, "collapsed"):
        assert full[key][0] > version or full[key] == (version, cause)
    assert one.position == other.position == len(batches)
    assert one.records == other.records
    assert one.record_bytes == other.record_bytes
    assert one.quarantined == other.quarantined
    assert (one.event_time_min, one.event_time_max) == (other.event_time_min, other.event_time_max)


def test_only_referenced_images_of_the_latest_changes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    for batch in range(4):
        land(layout, [(1, [Change(0, "open", str(batch))] * 50, 0)])
    read: list[tuple[int, tuple[str, ...]]] = []
    original = RowGroups.read

    def reading(self: RowGroups, row_group: Any, columns: Sequence[str]) -> pa.Table:
        read.append((row_group.file, tuple(columns)))
        return original(self, row_group, columns)

    parsed: list[int] = []
    rows_of = Frame.rows_of

    def parsing(self: Frame, changes: pa.Table | Coming) -> pa.Table:
        assert isinstance(changes, Coming)

        def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                parsed.append(batch.num_rows)
                yield batch

        return rows_of(self, replace(changes, batches=counted(changes.batches)))

    monkeypatch.setattr(RowGroups, "read", reading)
    monkeypatch.setattr(Frame, "rows_of", parsing)
    report = applied("latest", open_orders, layout)
    assert report.records == 200
    assert parsed == [1]
    with_images = [(file, columns) for file, columns in read if Log.NEW_IMAGE in columns]
    assert [file for file, _ in with_images] == [3]
    assert not any(Log.OLD_IMAGE in columns for _, columns in read)


def test_a_function_is_called_once_a_chunk_and_without_reading(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(1, [Change(0, "open")], 0), (1, [Change(2, "open")], 0)])
    calls: list[str] = []

    def called(orders: Frame) -> Frame:
        calls.append(repr(orders))
        return open_orders(orders)

    assert applied("called", called, layout).chunks == 1
    assert len(calls) == 1


def test_an_expression_that_fails_on_the_latest_change_fails_the_run_as_ever(
    tmp_path: Path,
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(1, [Change(0, "open"), Change(2, "open", "12x")], 0)])
    with pytest.raises(TransformError) as collapsed:
        applied("collapsed", open_orders, layout)
    with pytest.raises(TransformError) as full:
        applied("full", read_at_once, layout)
    assert str(collapsed.value) == str(full.value)
    assert "12x" in str(collapsed.value)


def test_an_image_that_is_not_json_is_quarantined_and_the_rest_applied(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(1, [Change(0, "open", "7"), Change(2, "open", "8")], 0)])
    bad = Change(0, "open").record(100)._replace(new_image=b'{"cut')
    shards = [ShardRecords("arn", "s", None, [bad])]
    ChangeLog(layout, "orders").open_or_create().append(1, shards)
    report = applied("latest", open_orders, layout)
    assert report.quarantined == 1
    assert {row["total"] for row in contents(layout, "latest")} == {7, 8}


def test_rows_that_are_larger_than_expected_make_smaller_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    for batch in range(6):
        land(layout, [(1, [Change(key, "open", str(batch)) for key in (0, 2, 3)], 0)])
    tried: list[ChunkBounds] = []

    def read(log: Any, after: int, through: int, frames: Any, bounds: Any, **how: bool) -> Any:
        tried.append(bounds)
        bounds = replace(bounds, most_bytes=20_000)
        return read_selected(log, after, through, frames, bounds, **how)

    monkeypatch.setattr("datazone_dagster.apply.prepare.read_selected", read)

    def wide(orders: Frame) -> Frame:
        return orders.select("dynamodb.NewImage.total.N as total", "repeat('x', 10000) as filling")

    report = applied("wide", wide, layout)
    assert {row["total"] for row in contents(layout, "wide")} == {"5"}
    assert tried[0].row_bytes is None
    assert (tried[-1].row_bytes or 0) > 9_000
    assert 1 < report.chunks <= 6


def test_the_first_chunk_knows_by_a_sample_how_small_its_rows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    filling = "x" * 20_000
    for _ in range(4):
        land(layout, [(1, [Change(key, filling) for key in (0, 2, 3)], 0)])

    def read(log: Any, after: int, through: int, frames: Any, bounds: Any, **how: bool) -> Any:
        # Enough for a keyed change and a small row each, not for the changes themselves.
        bounds = replace(bounds, retained_bytes=40_000)
        return read_selected(log, after, through, frames, bounds, **how)

    monkeypatch.setattr("datazone_dagster.apply.prepare.read_selected", read)
    assert applied("small", open_orders, layout).chunks == 1
    assert applied("large", all_of_it, layout).chunks == 4


def all_of_it(orders: Frame) -> Frame:
    return orders.select("dynamodb.NewImage as item")
