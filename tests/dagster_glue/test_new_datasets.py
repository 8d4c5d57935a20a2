"""A new dataset of an old stream: its check `lag` warns with the progress, and is strict later."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import AssetCheckEvaluation, AssetCheckSeverity

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    SOURCE,
    MakeWorld,
    ScriptedResource,
    World,
    orders_transform,
)

LAG = "added:lag"
WARN, ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR


def added(*, fails: bool = False) -> Transform:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("added"))},
        version=str(fails),
    )
    def added(changes: Any) -> object:
        if fails:
            raise ValueError("no")
        return changes.select(*ITEM_COLUMNS)

    return added


def lag_of(world: World) -> AssetCheckEvaluation:
    world.clock.advance(timedelta(seconds=31))
    return world.tick().checks()[LAG]


@pytest.fixture
def old(world: World) -> World:
    """A source whose changes are a month old, with a dataset that has them."""
    now = world.clock.now
    world.clock.now = now - timedelta(days=30)
    world.put("a")
    world.run_until_idle()
    world.clock.now = now
    assert world.tick().checks()["orders:lag"].passed
    return world


def with_new(old: World, make_world: MakeWorld, transform: Transform) -> World:
    stream, changed = old.stream, make_world(orders_transform(), transform)
    changed.stream = stream
    ScriptedResource.streams = {"orders": stream}
    return changed


def test_it_warns_until_it_has_caught_up(old: World, make_world: MakeWorld) -> None:
    world = with_new(old, make_world, added())
    lag = world.tick().checks()[LAG]
    assert (lag.passed, lag.severity) == (False, WARN)
    assert "The dataset is new, and works off what was landed before it: 1 records" in str(
        lag.description
    )
    assert world.run("apply_added").success
    assert world.tick().checks()[LAG].passed
    world.put("b")
    world.tick()
    world.clock.advance(timedelta(minutes=6))
    assert lag_of(world).severity is ERROR, "it is not new any more"


def test_it_fails_if_no_run_gets_on(old: World, make_world: MakeWorld) -> None:
    world = with_new(old, make_world, added())
    assert lag_of(world).severity is WARN
    for _ in range(10):
        world.clock.advance(timedelta(seconds=30))
        world.tick()
    assert lag_of(world).severity is ERROR


def test_it_fails_if_its_runs_fail(old: World, make_world: MakeWorld) -> None:
    world = with_new(old, make_world, added(fails=True))
    assert lag_of(world).severity is WARN
    assert not world.run("apply_added", raise_on_error=False).success
    lag = lag_of(world)
    assert lag.severity is ERROR
    assert lag.metadata["failures_in_a_row"].value == 1
