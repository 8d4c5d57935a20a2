"""Functions whose rows are not simply the items: an audit compares what an item alone decides."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.api import Transform
from datazone_dagster.audit.expected_rows import (
    DEPENDS_ON_THE_RECORD,
    NOT_RETURNED,
    OF_A_LOOKUP,
    OF_THE_RECORD,
)
from datazone_dagster.audit.second_look import BY_LOOKUP
from datazone_dagster.dataset.rows_of_keys import ShownDataset
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.sources import DynamoDBSource
from tests.audit.worlds import audit, result_of
from tests.new_process import NewProcess
from tests.snapshot.flow import World, item, key

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1", start="trim_horizon")
COUNT = 6


def one_output(
    dataset: Dataset, function: Any, source: DynamoDBSource = SOURCE, **inputs: Any
) -> Any:
    """Return a transform of the source's changes into one dataset."""
    stream = Input(Stream(source=source))
    return transform(
        input_mapping={"orders": stream, **inputs},
        output_mapping={"out": Output(dataset)},
        name=f"make_{dataset.id}",
        on_error="quarantine",
    )(function)


def world_with(tmp_path: Path, *transforms: Transform, source: DynamoDBSource = SOURCE) -> World:
    """Return a world that followed its table from the start, by these transforms."""
    world = World(Layout(str(tmp_path)), transforms[0])
    for number in range(COUNT):
        world.stream.put(item(number, number))
    drain_once(source, NewProcess(world.stream), world.layout, clock=world.clock)
    for one in transforms:
        apply_transform(one, world.layout, clock=world.clock)
    return world


def items_of(orders: Frame) -> Frame:
    return orders.items()


def test_columns_of_the_change_are_not_compared_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(orders: Frame) -> Frame:
        return orders.select(
            "eventID",
            "eventName",
            "dynamodb.SequenceNumber as number",
            "dynamodb.Keys.id.S as id",
            "dynamodb.NewImage.total.N as total",
            "dynamodb.OldImage.total.N as total_before",
        )

    world = world_with(tmp_path, one_output(Dataset("current"), function, SOURCE))
    world.stream.put(item(2, 9))
    drain_once(SOURCE, NewProcess(world.stream), world.layout, clock=world.clock)
    world.apply()
    read: list[str] = []
    batches = ShownDataset.batches

    def noted(shown: ShownDataset, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
        read.extend(columns)
        return batches(shown, columns)

    monkeypatch.setattr(ShownDataset, "batches", noted)
    report = audit(world)
    assert set(read) == {"id", "total"}
    one = result_of(report, "current")
    assert report.is_clean, report
    names = ("eventID", "eventName", "number", "total_before")
    assert dict(one.not_compared) == dict.fromkeys(names, OF_THE_RECORD)
    DeltaTable(world.layout.dataset("current")).update({"total": "'5'"}, predicate="id = 'k1'")
    assert dict(result_of(audit(world), "current").differences) == {"stale": 1}


def test_typed_items_with_every_type_and_growing_columns(tmp_path: Path) -> None:
    world = world_with(tmp_path, one_output(Dataset("current"), items_of, SOURCE))
    wide = {
        "b": {"B": "aGk="},
        "yes": {"BOOL": True},
        "none": {"NULL": True},
        "tags": {"SS": ["b", "a"]},
        "numbers": {"NS": ["1", "2.50"]},
        "list": {"L": [{"S": "x"}, {"N": "1.0"}]},
        "map": {"M": {"a": {"L": []}}},
        "total": {"N": "3.50"},
    }
    world.stream.put({"id": {"S": "k2"}, **wide})
    world.stream.put({"id": {"S": "k3"}, "total": {"S": "text"}})
    drain_once(SOURCE, NewProcess(world.stream), world.layout, clock=world.clock)
    world.apply()
    report = audit(world)
    assert report.is_clean, report
    assert result_of(report, "current").looked_again == 0
    table = DeltaTable(world.layout.dataset("current"))
    table.update({"total": "total + 1"}, predicate="id = 'k2'")
    assert dict(result_of(audit(world), "current").differences) == {"stale": 1}


def test_filtered_items_have_no_row_and_exploded_ones_several(tmp_path: Path) -> None:
    def explode(orders: Frame) -> pa.Table:
        rows = (
            orders.filter("dynamodb.NewImage.total.N <> '3'")
            .select("dynamodb.Keys.id.S as id", "1 as part")
            .arrow()
        )
        more = rows.set_column(
            rows.column_names.index("part"), "part", pa.array([2] * len(rows), pa.int32())
        )
        return pa.concat_tables([rows, more])

    world = world_with(tmp_path, one_output(Dataset("parts"), explode, SOURCE))
    assert audit(world).is_clean
    table = DeltaTable(world.layout.dataset("parts"))
    table.delete("id = 'k1' and part = 2")
    assert dict(result_of(audit(world), "parts").differences) == {"stale": 1}


def test_a_function_that_filters_by_the_kind_of_change_is_not_audited(tmp_path: Path) -> None:
    def function(orders: Frame) -> Frame:
        return orders.filter("eventName = 'INSERT'").select("dynamodb.Keys.id.S as id")

    report = audit(world_with(tmp_path, one_output(Dataset("new"), function, SOURCE)))
    assert report.result == "undecided"
    assert dict(report.plan.skipped) == {"new": DEPENDS_ON_THE_RECORD}


def lookup_world(tmp_path: Path, join: str) -> World:
    """Return a world with a lookup that has changed since the rows were made."""
    names = Dataset("names")

    def first(orders: Frame) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id", "'old' as name")

    def second(orders: Frame, known: Any) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total").sql(
            f"select changes.*, known.name from changes {join} join known using (id)"
        )

    made = one_output(names, first, SOURCE)
    looked = one_output(Dataset("current"), second, SOURCE, known=Input(names))
    world = world_with(tmp_path, made, looked)
    world.flow = looked
    return world


def test_columns_of_a_lookup_are_not_compared(tmp_path: Path) -> None:
    world = lookup_world(tmp_path, "left")
    DeltaTable(world.layout.dataset("names")).update({"name": "'new'"})
    report = audit(world)
    assert report.is_clean, report
    assert dict(result_of(report, "current").not_compared) == {"name": OF_A_LOOKUP}
    DeltaTable(world.layout.dataset("current")).update({"total": "'5'"}, predicate="id = 'k1'")
    assert dict(result_of(audit(world), "current").differences) == {"stale": 1}


def test_rows_that_a_lookup_decides_are_undecided(tmp_path: Path) -> None:
    world = lookup_world(tmp_path, "inner")
    assert audit(world).is_clean
    DeltaTable(world.layout.dataset("names")).delete("id = 'k1'")
    one = result_of(audit(world), "current")
    assert not one.has_differences
    assert dict(one.undecided) == {BY_LOOKUP: 1}


def test_a_column_that_the_function_no_longer_returns_is_told(tmp_path: Path) -> None:
    def before(orders: Frame) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")

    def after(orders: Frame) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id", "'x' as added")

    world = world_with(tmp_path, one_output(Dataset("current"), before, SOURCE))
    world.flow = one_output(Dataset("current"), after, SOURCE)
    report = audit(world)
    assert report.is_clean
    assert result_of(report, "current").not_compared["total"] == NOT_RETURNED
    assert "added" in result_of(report, "current").not_compared


def test_items_that_the_function_refuses_are_counted(tmp_path: Path) -> None:
    def function(orders: Frame) -> Frame:
        values = orders.items().arrow()["total"]
        if pc.any(pc.equal(values, 3)).as_py():
            raise ValueError("3 is refused")
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")

    world = world_with(tmp_path, one_output(Dataset("current"), function, SOURCE))
    world.stream.put(item(1, 3))
    drain_once(SOURCE, NewProcess(world.stream), world.layout, clock=world.clock)
    world.apply()
    report = audit(world)
    one = result_of(report, "current")
    assert report.is_clean, report
    assert one.refused == 1, "the older row of item 1; item 3 never had one"


def test_masks_are_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAZONE_MASK_SALT", "0123456789abcdef0123")
    masked = DynamoDBSource(
        table_name="orders", region="eu-west-1", start="trim_horizon", mask={"total": "hash"}
    )

    def function(orders: Frame) -> Frame:
        return orders.items()

    world = world_with(tmp_path, one_output(Dataset("current"), function, masked), source=masked)
    report = audit(world, source=masked, drains=False)
    assert report.is_clean, report
    assert result_of(report, "current").looked_again == 0


def test_what_time_to_live_deleted_and_the_dataset_keeps_is_no_difference(tmp_path: Path) -> None:
    kept = one_output(Dataset("kept", ttl_deletes="ignore"), items_of, SOURCE)
    world = world_with(tmp_path, kept)
    world.stream.delete(key(1), ttl=True)
    world.stream.delete(key(2))
    drain_once(SOURCE, NewProcess(world.stream), world.layout, clock=world.clock)
    world.apply()
    report = audit(world)
    assert report.is_clean, report
