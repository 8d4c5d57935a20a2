"""Tables of every mode hold what plain Python computes from the changes of their stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.frame.frame import Frame
from tests.examples import examples
from tests.truth.items import OPERATIONS
from tests.truth.reference import Change, Item, Row, in_text, merged, plain_item, value
from tests.truth.world import MODES, World

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


def check(world: World, shape: Shape, *, ignores: bool) -> None:
    def rows_of(change: Change) -> Sequence[Row]:
        if shape.rows_of is not None:
            return shape.rows_of(change)
        return [in_text(plain_item(change.new) | {"id": change.key})]

    changes = [one for one in world.changes() if not (ignores and one.is_ttl)]
    world.check(world.reference(changes, rows_of), items=shape.rows_of is None)


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
    ttl_deletes = "ignore" if ignores else "apply"
    world = World(
        tmp_path_factory.mktemp("lake"),
        mode,
        SHAPES[shape].function,
        dataset={"ttl_deletes": ttl_deletes},
        chunk_bytes=chunk_bytes,
    )
    for operations in batches:
        world.write(operations)
        if world.stream.changes:
            world.apply()
            check(world, SHAPES[shape], ignores=ignores)
    if world.stream.changes:
        world.apply()
        check(world, SHAPES[shape], ignores=ignores)
        world.rebuild()
        check(world, SHAPES[shape], ignores=ignores)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(12), deadline=None)
@given(
    st.data(),
    st.lists(OPERATIONS, min_size=3, max_size=12),
    st.lists(st.integers(0, 11), min_size=1, max_size=6),
)
def test_a_change_that_a_chunk_has_twice_counts_once(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    data: st.DataObject,
    operations: list[tuple[str, Item | str]],
    again: list[int],
) -> None:
    shape = data.draw(st.sampled_from(list(ROW_BY_ROW)))
    world = World(tmp_path_factory.mktemp("lake"), mode, SHAPES[shape].function)
    world.write(operations)
    changes = world.stream.changes
    if not changes:
        return
    repeated = [changes[at % len(changes)] for at in again]
    log = ChangeLog(world.layout, "orders").open_or_create()
    log.append(1, [ShardRecords(world.stream.stream_arn, "again", None, repeated)])
    world.apply()
    check(world, SHAPES[shape], ignores=False)
