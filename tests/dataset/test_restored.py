"""After a RESTORE of a dataset's table, rows and position go back together."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.dataset_progress import require_not_restored
from datazone_dagster.dataset.restored import version_of_rows
from datazone_dagster.dataset.source_datasets import datasets_of_source
from datazone_dagster.delta import transaction
from datazone_dagster.delta.commit import FileActions, commit_files, set_properties
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.delta.table_state import forget
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    backlog,
    drain_once,
    read_dataset,
    rebuild_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders")
Mode = Literal["merge", "history", "append"]


def flow_of(mode: Mode) -> Transform:
    def use(changes: Any) -> object:
        return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N::bigint as n")

    return transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", mode=mode))},
    )(use)


class World:
    def __init__(self, root: Path, mode: Mode = "merge") -> None:
        self.layout = Layout(str(root / "lake"))
        self.stream = ScriptedStream("orders")
        self.flow = flow_of(mode)
        self.uri = self.layout.dataset("d")
        self.versions: list[int] = []

    def batch(self, number: int) -> None:
        """New items, a change of one, and a delete; then a run."""
        for key in (number, number + 100, 0):
            self.stream.put({"id": {"S": f"k{key}"}, "n": {"N": str(number)}})
        self.stream.delete({"id": {"S": f"k{number + 99}"}})
        drain_once(SOURCE, self.stream, self.layout)
        self.run()

    def run(self) -> None:
        apply_transform(self.flow, self.layout)
        self.versions.append(DeltaTable(self.uri).version())

    def rows(self) -> list[str]:
        return sorted(map(str, read_dataset(self.layout, "d").to_pylist()))

    def table(self) -> Table:
        table = opened(self.uri, {}, "dataset")
        assert table is not None
        return table

    def restore(self, to: int | datetime) -> None:
        DeltaTable(self.uri).restore(to)


@pytest.mark.parametrize("mode", ["merge", "history", "append"])
def test_the_changes_since_are_applied_again(tmp_path: Path, mode: Mode) -> None:
    world = World(tmp_path, mode)
    for number in (1, 2, 3):
        world.batch(number)
    expected = world.rows()
    world.restore(world.versions[0])
    assert world.rows() != expected
    assert backlog("orders", "d", world.layout).position == 1  # the sensor requests a run
    assert datasets_of_source("orders", world.layout) == {"d": 1}
    world.run()
    assert world.rows() == expected
    assert backlog("orders", "d", world.layout).position == 3
    world.batch(4)
    assert backlog("orders", "d", world.layout).position == 4


def test_a_restore_of_a_restore_and_one_that_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in (1, 2, 3):
        world.batch(number)
    expected = world.rows()
    world.restore(world.versions[0])
    restored = DeltaTable(world.uri).version()
    world.restore(world.versions[-1])
    assert backlog("orders", "d", world.layout).position == 3
    assert world.rows() == expected
    world.restore(restored)
    assert backlog("orders", "d", world.layout).position == 1
    world.run()
    assert world.rows() == expected


def test_a_process_that_begins_at_a_checkpoint_knows(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in (1, 2):
        world.batch(number)
    world.restore(world.versions[0])
    set_properties(world.table(), {"some.property": "1"})
    DeltaTable(world.uri).create_checkpoint()
    forget(world.uri)
    assert backlog("orders", "d", world.layout).position == 1


def test_an_unknown_position_is_an_error_that_names_rebuild(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.batch(1)
    first = DeltaTable(world.uri).history(1)[0]["timestamp"]
    world.batch(2)
    expected = world.rows()
    world.restore(datetime.fromtimestamp(first / 1000, timezone.utc))
    for call in (world.run, lambda: backlog("orders", "d", world.layout)):
        with pytest.raises(StorageError, match="datazone-dagster rebuild d") as caught:
            call()
        assert "which version" in caught.value.what
    rebuild_dataset(world.flow, "d", world.layout)
    assert world.rows() == expected
    world.run()


@pytest.mark.parametrize("mark", ["redrive/orders", "rebuild/orders", "erase/orders"])
def test_what_runs_can_not_repeat_is_an_error(tmp_path: Path, mark: str) -> None:
    world = World(tmp_path)
    world.batch(1)
    table = world.table()
    commit_files(
        table.at,
        FileActions([], []),
        operation="TEST",
        parameters={},
        metrics={},
        properties=transaction(mark, 1),
    )
    world.batch(2)
    world.restore(world.versions[0])
    with pytest.raises(StorageError, match="after version"):
        version_of_rows(world.table().at, "orders")


def test_no_other_commit_hides_a_restore(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in (1, 2):
        world.batch(number)
    require_not_restored(world.table().at, "orders")
    world.restore(world.versions[0])
    with pytest.raises(ConcurrentWriterError, match="restored"):
        require_not_restored(world.table().at, "orders")
