"""Functions of `items()` on the latest changes only: the datasets equal those from every change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.apply import image_views, prepare
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.row_groups import RowGroups
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.pipeline import apply_transform, read_dataset
from datazone_dagster.sources import DynamoDBSource
from tests.examples import examples

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")
BATCH = ApplySettings(chunk_bytes=1)
"""A batch per chunk: the first of a short backlog is read in full, the others by their latest
changes."""

Item = dict[str, dict[str, Any]]


def record(number: int, key: str, item: Item | None) -> ChangeRecord:
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="REMOVE" if item is None else "MODIFY",
        sequence_number=10**22 + number,
        created_at=1_700_000_000 + number,
        keys=json.dumps({"id": {"S": key}}).encode(),
        new_image=None if item is None else json.dumps({"id": {"S": key}, **item}).encode(),
        old_image=b'{"status":{"S":"old"}}',
        size_bytes=10,
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


def land(layout: Layout, batches: Sequence[Sequence[tuple[str, Item | None]]]) -> None:
    for changes in batches:
        log = ChangeLog(layout, "orders").open_or_create()
        first = 1000 * log.head
        records = [record(first + at, *change) for at, change in enumerate(changes)]
        log.append(1, [ShardRecords("arn", "s", None, records)])


def applied(layout: Layout, function: Any, name: str, bounds: ApplySettings = BATCH) -> ApplyReport:
    flow = transform(
        name=name,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={name: Output(Dataset(id=name))},
    )(function)
    return apply_transform(flow, layout, settings=bounds)[name]


def contents(layout: Layout, name: str) -> list[dict[str, object]]:
    """Return the rows without nulls: a column may be there for the sake of a superseded change."""
    rows = read_dataset(layout, name).to_pylist()
    found = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return sorted(found, key=repr)


def open_items(orders: Frame) -> Frame:
    return (
        orders.with_columns("eventName as event")
        .items(types={"status": "string", "lines": "list<struct<qty:long>>"})
        .filter("coalesce(status, '') <> 'hidden'")
        .with_columns("upper(status) as shouted")
    )


def open_items_of_all(orders: Frame) -> Frame:
    orders.arrow()
    return open_items(orders)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every backlog be worth a look at its first changes."""
    monkeypatch.setattr(prepare, "WORTH_A_LOOK_RECORDS", 1)


@pytest.fixture
def image_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of rows whose images were given to functions of latest changes."""
    found: list[int] = []
    merged = image_views.merged_columns

    def counted(keyed_changes: pa.Table, images: pa.Table, schema: pa.Schema) -> pa.Table:
        found.append(len(keyed_changes))
        return merged(keyed_changes, images, schema)

    monkeypatch.setattr(image_views, "merged_columns", counted)
    return found


STATUSES = st.sampled_from(["open", "paid", "hidden"]).map(lambda status: {"S": status})
NUMBERS = st.sampled_from(["1", "22", "1.5", "-3"]).map(lambda text: {"N": text})
LINES = st.lists(st.integers(0, 9), max_size=3).map(
    lambda all_: {"L": [{"M": {"qty": {"N": str(one)}}} for one in all_]}
)
ITEMS = st.fixed_dictionaries(
    {"status": STATUSES}, optional={"total": NUMBERS, "lines": LINES, "later": NUMBERS}
)
CHANGES = st.tuples(st.sampled_from("abcd"), st.none() | ITEMS | ITEMS)


@settings(max_examples=examples(12), deadline=None)
@given(
    batches=st.lists(st.lists(CHANGES, min_size=1, max_size=6), min_size=2, max_size=5),
    chunk_bytes=st.sampled_from([1, 3000]),
    looks=st.booleans(),
)
def test_datasets_are_as_from_every_change(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, Item | None]]],
    chunk_bytes: int,
    looks: bool,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    land(layout, batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "WORTH_A_LOOK_RECORDS", 1 if looks else 10**6)
        one = applied(layout, open_items, "latest", ApplySettings(chunk_bytes=chunk_bytes))
    other = applied(layout, open_items_of_all, "every")
    assert contents(layout, "latest") == contents(layout, "every")
    assert one.position == other.position == len(batches)
    assert (one.records, one.record_bytes) == (other.records, other.record_bytes)


def test_superseded_images_are_not_parsed(tmp_path: Path, image_rows: list[int]) -> None:
    layout = Layout(str(tmp_path))
    many: list[tuple[str, Item | None]] = [("a", {"status": {"S": str(at)}}) for at in range(50)]
    land(layout, [many, many, [*many, ("b", None)]])
    assert applied(layout, open_items, "latest").records == 151
    assert image_rows == [1, 2]
    assert [row["status"] for row in contents(layout, "latest")] == ["49"]


@pytest.mark.usefixtures("looks")
def test_the_first_chunk_of_a_long_backlog_has_the_latest_changes_only(
    tmp_path: Path, image_rows: list[int]
) -> None:
    layout = Layout(str(tmp_path))
    many: list[tuple[str, Item | None]] = [("a", {"status": {"S": str(at)}}) for at in range(50)]
    land(layout, [many, [*many, ("b", None)]])
    seen: list[list[str]] = []

    def watched(orders: Frame) -> Frame:
        items = open_items(orders)
        seen.append(items.filter("true").columns)
        return items

    assert applied(layout, watched, "latest").records == 101
    assert image_rows == [1, 2]
    assert len(seen) == 3, "once on the first changes, once for each chunk"
    assert [row["status"] for row in contents(layout, "latest")] == ["49"]


@pytest.mark.usefixtures("looks")
def test_what_the_look_has_seen_does_not_fix_types(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[("a", {"total": {"S": "old"}}), ("b", {"status": {"S": "x"}})]])
    land(layout, [[("a", {"total": {"N": "1"}})]])
    applied(layout, lambda orders: orders.items(), "latest", ApplySettings())
    assert read_dataset(layout, "latest").schema.field("total").type == pa.int64()


@pytest.mark.usefixtures("looks")
def test_a_function_that_fails_on_the_first_changes_fails_on_the_chunk_that_says_so(
    tmp_path: Path,
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[("a", {"status": {"S": "x"}})], [("b", {"late": {"S": "y"}})]])
    whole = ApplySettings(chunk_bytes=10**6)
    late = "coalesce(late, status) as either"
    report = applied(layout, lambda orders: orders.items().select("id", late), "latest", whole)
    assert report.position == 2
    assert [row["either"] for row in contents(layout, "latest")] == ["x", "y"]


def test_old_images_are_not_read_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[("a", {"status": {"S": "x"}})]] * 3)
    read: list[str] = []
    original = RowGroups.read

    def reading(self: RowGroups, row_group: Any, columns: Sequence[str]) -> pa.Table:
        read.extend(columns)
        return original(self, row_group, columns)

    monkeypatch.setattr(RowGroups, "read", reading)
    applied(layout, open_items, "latest")
    assert Log.NEW_IMAGE in read
    assert Log.OLD_IMAGE not in read


@pytest.mark.parametrize(
    "function",
    [
        lambda orders: orders.items().sql(
            "select *, count(*) over (partition by _dz_key) as changes from changes"
        ),
        lambda orders: orders.sql(
            "select *, count(*) over (partition by _dz_key) as changes from changes"
        ).items(),
        lambda orders: orders.items().with_columns(f"{orders.arrow().num_rows} as changes"),
    ],
)
@pytest.mark.parametrize("worth_a_look", [1, 10**6])
def test_a_function_that_sees_other_changes_gets_all_of_them(
    tmp_path: Path,
    image_rows: list[int],
    function: Any,
    worth_a_look: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepare, "WORTH_A_LOOK_RECORDS", worth_a_look)
    layout = Layout(str(tmp_path))
    land(layout, [[("a", {"status": {"S": "x"}})] * 3] * 3)
    applied(layout, function, "every")
    assert [row["changes"] for row in contents(layout, "every")] == [3]
    assert image_rows == []


def test_a_function_that_changes_its_mind_gets_every_change_again(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[("a", {"status": {"S": "x"}})] * 3] * 4)
    seen: list[int] = []

    def moody(orders: Frame) -> Frame:
        items = orders.items()
        if len(seen) < 2:
            seen.append(0)
            return items
        seen.append(items.arrow().num_rows)
        return items.with_columns(f"{seen[-1]} as changes")

    assert applied(layout, moody, "moody").position == 4
    assert seen == [0, 0, 1, 3, 3]
    assert [row["changes"] for row in contents(layout, "moody")] == [3]


def test_columns_that_the_last_part_brings_are_in_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_rows: list[int]
) -> None:
    monkeypatch.setattr(image_views, "_PIECE_ROWS", 1)
    layout = Layout(str(tmp_path))
    land(layout, [[("z", {"total": {"N": "1"}})] * 60])
    land(
        layout,
        [[("a", {"total": {"N": "1"}})], [("b", {"total": {"N": "1.5"}, "new": {"S": "y"}})]],
    )
    report = applied(
        layout, lambda orders: orders.items(), "latest", ApplySettings(chunk_bytes=9000)
    )
    assert (report.chunks, image_rows) == (2, [1, 1, 1, 1])  # each part twice
    found = {row["id"]: row for row in contents(layout, "latest")}
    assert {key: float(str(row["total"])) for key, row in found.items()} == {
        "z": 1,
        "a": 1,
        "b": 1.5,
    }
    assert found["b"]["new"] == "y"


def test_a_bad_image_among_the_latest_goes_to_the_quarantine(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [[("a", {"status": {"S": "x"}})], [("b", {"status": {"S": "y"}})]])
    bad = record(9000, "a", {})._replace(new_image=b'{"cut')
    ChangeLog(layout, "orders").open_or_create().append(1, [ShardRecords("arn", "s", None, [bad])])
    report = applied(layout, open_items, "latest")
    assert report.quarantined == 1
    assert {row["status"] for row in contents(layout, "latest")} == {"x", "y"}
