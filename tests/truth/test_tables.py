"""Tables of every mode hold what plain Python computes from the changes of their stream."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.stored_state import stored_state
from datazone_dagster.delta.table import opened
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import SEQUENCE_DIGITS
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    drain_once,
    read_dataset,
    rebuild_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.examples import examples
from tests.truth.items import OPERATIONS
from tests.truth.reference import (
    Change,
    Expected,
    Item,
    Row,
    RowsOf,
    appended,
    in_text,
    intervals,
    marked,
    merged,
    plain_item,
    shown,
    value,
)
from tests.types.table_items import item_of

SOURCE = DynamoDBSource("orders", start="trim_horizon")
GROUPED = (
    "select _dz_key, max(_dz_version) as _dz_version, max(_dz_event_time) as _dz_event_time, "
    "arg_max(dynamodb, _dz_version) as dynamodb from changes group by _dz_key"
)
PATHS = (
    'dynamodb.NewImage."a".S as a',
    'dynamodb.NewImage."A".N as n',
    "dynamodb.NewImage.tags.SS as tags",
)


class Shape(NamedTuple):
    """A function, and its rows for one change; None: those of `items()`."""

    function: Callable[[Frame], object]
    rows_of: Callable[[Change], Sequence[Row]] | None = None


def of_paths(change: Change) -> list[dict[str, Any]]:
    return [
        {
            "a": value(change.new, "a", "S"),
            "n": value(change.new, "A", "N"),
            "tags": value(change.new, "tags", "SS"),
        }
    ]


def unnested(change: Change) -> list[Row]:
    (row,) = of_paths(change)
    return [{**row, "tag": tag} for tag in row["tags"] or ()]


def with_text(change: Change) -> list[dict[str, Any]]:
    return of_paths(change) if value(change.new, "a", "S") is not None else []


def shuffled(frame: Frame) -> pa.Table:
    rows = frame.select(*PATHS).arrow()
    order = random.Random(len(rows)).sample(range(len(rows)), len(rows))
    return rows.take(pa.array(order, pa.int64()))


ROW_BY_ROW = {
    "paths": Shape(lambda frame: frame.select(*PATHS), of_paths),
    "filtered": Shape(
        lambda frame: frame.filter('dynamodb.NewImage."a".S is not null').select(*PATHS), with_text
    ),
    "unnested": Shape(
        lambda frame: frame.select(*PATHS, "unnest(dynamodb.NewImage.tags.SS) as tag"), unnested
    ),
    "shuffled": Shape(shuffled, of_paths),
    "items": Shape(lambda frame: frame.items()),
}
# Of the newest change of a chunk: only where the others leave no trace.
OF_NEWEST = {
    "grouped": Shape(lambda frame: frame.sql(GROUPED).items()),
    "grouped paths": Shape(lambda frame: frame.sql(GROUPED).select(*PATHS), of_paths),
}
SHAPES = ROW_BY_ROW | OF_NEWEST

Reference = Callable[[Sequence[Change], RowsOf], list[Expected]]
MODES: Mapping[str, tuple[Mapping[str, Any], Reference]] = {
    "merge": ({}, merged),
    "vectors": ({"deletion_vectors": True}, merged),
    "soft": ({"deletes": "soft"}, marked),
    "append": ({"mode": "append"}, appended),
    "history": ({"mode": "history"}, intervals),
}


class World:
    """A stream, and a dataset of a mode that a function of a shape makes from it."""

    def __init__(self, root: Path, mode: str, shape: str, ignores: bool, chunk_bytes: int) -> None:
        self.layout = Layout(str(root))
        self.clock = FixedClock(datetime(2024, 1, 1, tzinfo=timezone.utc))
        self.stream = ScriptedStream("orders", clock=self.clock, shards=2)
        self.shape = SHAPES[shape]
        dataset, self.reference = MODES[mode]
        self.ignores = ignores
        self.settings = ApplySettings(chunk_bytes=chunk_bytes or None, linger_seconds=0)
        ttl: Any = "ignore" if ignores else "apply"

        def function(changes: Frame) -> object:
            return self.shape.function(changes)

        self.flow: Transform = transform(
            name="flow",
            input_mapping={"changes": Input(Stream(source=SOURCE))},
            output_mapping={"d": Output(Dataset("d", ttl_deletes=ttl, **dataset))},
        )(function)

    def write(self, operations: Sequence[tuple[str, Item | str]]) -> None:
        for key, written in operations:
            if isinstance(written, str):
                self.stream.delete({"id": {"S": key}}, ttl=written == "expire")
            else:
                self.stream.put({"id": {"S": key}, **written})
            self.clock.advance(timedelta(seconds=len(key)))
        while not drain_once(SOURCE, self.stream, self.layout, clock=self.clock).caught_up:
            pass

    def apply(self) -> None:
        apply_transform(self.flow, self.layout, settings=self.settings, clock=self.clock)

    def rebuild(self) -> None:
        rebuild_dataset(self.flow, "d", self.layout, settings=self.settings, clock=self.clock)

    def changes(self) -> list[Change]:
        found = [
            Change(
                one.sequence_number,
                json.loads(one.keys)["id"]["S"],
                json.loads(one.new_image or "null"),
                json.loads(one.old_image or "null"),
                datetime.fromtimestamp(one.created_at, timezone.utc),
                one.user_type == "Service",
            )
            for one in self.stream.changes
        ]
        return [one for one in found if not (self.ignores and one.is_ttl)]

    def check(self) -> None:
        def rows_of(change: Change) -> Sequence[Row]:
            if self.shape.rows_of is not None:
                return self.shape.rows_of(change)
            return [in_text(plain_item(change.new) | {"id": change.key})]

        reference = self.reference(self.changes(), rows_of)
        expected = [{"#": one.number, "of": one.of_mode, **one.values} for one in reference]
        of_mode = {name for one in reference for name in one.of_mode}
        table = opened(self.layout.dataset("d"), {}, KIND)
        assert table is not None
        mapping = stored_state(table.at, "orders").attributes
        found = []
        for row in read_dataset(self.layout, "d").to_pylist():
            values = (
                in_text(item_of(row, mapping))
                if self.shape.rows_of is None
                else {name: one for name, one in row.items() if not name.startswith("_dz_")}
            )
            number = int(row["_dz_version"][-SEQUENCE_DIGITS:])
            found.append({"#": number, "of": {name: row[name] for name in of_mode}, **values})
        assert shown(found) == shown(expected)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(12), deadline=None)
@given(
    st.data(),
    st.lists(st.lists(OPERATIONS, min_size=5, max_size=15), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from([0, 1, 900]),
)
def test_a_dataset_holds_what_python_computes(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    data: st.DataObject,
    batches: list[list[tuple[str, Item | str]]],
    ignores: bool,
    chunk_bytes: int,
) -> None:
    latest_only = MODES[mode][1] is merged and not ignores
    shape = data.draw(st.sampled_from(list(SHAPES if latest_only else ROW_BY_ROW)))
    world = World(tmp_path_factory.mktemp("lake"), mode, shape, ignores, chunk_bytes)
    for operations in batches:
        world.write(operations)
        if world.stream.changes:
            world.apply()
            world.check()
    if world.stream.changes:
        world.apply()
        world.check()
        world.rebuild()
        world.check()
