"""A dataset whose runs make way for a rebuild gets none before the swap or the end of the fence."""

from __future__ import annotations

from datetime import timedelta

import pytest

from datazone_dagster.dataset.swap_fence import raise_fence
from datazone_dagster.dataset.table_shape import KIND
from datazone_dagster.delta.table import opened
from tests.dagster_glue.conftest import MakeWorld


@pytest.mark.parametrize("one_run_per_source", [False, True])
def test_no_run_is_requested_while_a_rebuild_makes_runs_wait(
    make_world: MakeWorld, *, one_run_per_source: bool
) -> None:
    world = make_world(one_run_per_source=one_run_per_source)
    world.put("a")
    world.run_until_idle()
    table = opened(world.layout.dataset("orders"), world.layout.storage_options, KIND)
    assert table is not None
    now = world.clock()
    until = now + timedelta(minutes=5)
    raise_fence(table, "orders", "id of the rebuild", until, now)
    world.put("a", "shipped")
    world.clock.advance(timedelta(seconds=31))  # unchanged checks are due then
    tick = world.tick()
    assert not tick.requests
    at = f"{until:%Y-%m-%d %H:%M:%S} UTC"
    lag = tick.checks()["orders:lag"]
    for text in (str(tick.skip), str(lag.description)):
        assert f"orders waits, until {at} at most, for dataset orders: a rebuild is" in text
    assert lag.metadata["waits_until"].value == until.timestamp()
    world.clock.advance(timedelta(minutes=6))
    assert len(world.tick().requests) == 1
