"""The datasets of a source are found in the lakehouse; none is stranded by a truncation."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.errors import SourceMismatchError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    datasets_of_source,
    drain_once,
    read_dataset,
    rebuild_dataset,
    redrive_dataset,
    truncate_applied,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.faults.object_store import BUCKET, faulty_store

SOURCES = {name: DynamoDBSource(name) for name in ("orders", "payments")}


def into(dataset_id: str, source: str = "orders") -> Transform:
    return transform(
        name=f"into_{dataset_id}",
        input_mapping={"changes": Input(Stream(source=SOURCES[source]))},
        output_mapping={"rows": Output(Dataset(dataset_id))},
    )(lambda changes: changes.select("dynamodb.Keys.id.S as id"))


class World:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.clock = FixedClock()
        self.streams = {name: ScriptedStream(name, clock=self.clock) for name in SOURCES}

    def land(self, key: str, source: str = "orders") -> None:
        self.streams[source].put({"id": {"S": key}})
        stream: Any = self.streams[source]
        while not drain_once(SOURCES[source], stream, self.layout, clock=self.clock).caught_up:
            pass

    def apply(self, transform: Transform) -> None:
        apply_transform(transform, self.layout, clock=self.clock)

    def truncate(self, *declared: str) -> int:
        before = self.clock() - timedelta(days=3)
        return truncate_applied("orders", declared, self.layout, created_before=before)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Layout(str(tmp_path)))


def test_only_the_datasets_of_the_source_are_listed(world: World) -> None:
    assert datasets_of_source("orders", world.layout) == {}
    world.land("a")
    world.land("p", "payments")
    world.apply(into("here"))
    world.apply(into("there"))
    world.apply(into("paid", "payments"))
    world.land("b")
    world.apply(into("here"))
    write_deltalake(world.layout.uri + "/of_others", pa.table({"x": [1]}))
    (Path(world.layout.uri) / "not a dataset").mkdir()
    (Path(world.layout.uri) / "empty").mkdir()
    assert datasets_of_source("orders", world.layout) == {"here": 2, "there": 1}
    assert datasets_of_source("payments", world.layout) == {"paid": 1}


def apply_to(transform: Transform, dataset_id: str, layout: Layout) -> None:
    apply_transform(transform, layout, only=[dataset_id])


@pytest.mark.parametrize("write", [apply_to, rebuild_dataset, redrive_dataset])
def test_a_dataset_takes_no_changes_of_another_source(world: World, write: Any) -> None:
    world.land("a")
    world.apply(into("here"))
    world.land("a", "payments")
    world.streams["payments"].delete({"id": {"S": "a"}})
    world.land("p", "payments")
    of_payments = into("here", "payments")
    with pytest.raises(SourceMismatchError, match="from the changes of source 'orders'") as refused:
        write(of_payments, "here", world.layout)
    assert "Give the dataset a new id" in str(refused.value)
    assert read_dataset(world.layout, "here")["id"].to_pylist() == ["a"]
    assert datasets_of_source("payments", world.layout) == {}
    world.land("b")
    world.apply(into("here"))
    assert sorted(read_dataset(world.layout, "here")["id"].to_pylist()) == ["a", "b"]


def test_a_dataset_of_another_code_location_is_not_stranded(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.land("a")
    world.apply(into("here"))
    world.apply(into("there"))  # declared elsewhere, and its runs fail from now on
    world.land("b")
    world.apply(into("here"))
    world.clock.advance(timedelta(days=4))
    with caplog.at_level(logging.INFO):
        assert world.truncate("here") == 1  # only what both have applied
    assert "'there'" in caplog.text
    assert "batch 1" in caplog.text
    world.apply(into("there"))
    assert sorted(read_dataset(world.layout, "there")["id"].to_pylist()) == ["a", "b"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert world.truncate("here") == 1
    assert caplog.text == ""


def test_a_declared_dataset_without_a_table_keeps_everything(world: World) -> None:
    world.land("a")
    world.apply(into("here"))
    world.clock.advance(timedelta(days=4))
    assert world.truncate("here", "new") == 0
    log = ChangeLog(world.layout, "orders").open()
    assert log is not None
    assert log.truncated_through == 0


def test_in_an_object_store(tmp_path: Path) -> None:
    with faulty_store() as store:
        world = World(Layout(f"s3://{BUCKET}/deep/lake", store.options))
        assert datasets_of_source("orders", world.layout) == {}
        world.land("a")
        world.apply(into("here"))
        world.apply(into("there"))
        assert datasets_of_source("orders", world.layout) == {"here": 1, "there": 1}
