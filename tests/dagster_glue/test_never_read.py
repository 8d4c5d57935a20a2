"""A stream that was never read to its end is not said to have been."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from datazone_dagster.errors import TableNotFoundError
from tests.dagster_glue.conftest import KEYS, SOURCE, World


def fail(world: World) -> None:
    faults: Any = world.stream
    faults.faults = lambda *_: TableNotFoundError("DynamoDB table 'orders' does not exist.")


def failing_tick(world: World) -> None:
    with pytest.raises(TableNotFoundError):
        world.tick()


def test_a_table_that_never_existed(world: World) -> None:
    fail(world)
    failing_tick(world)
    world.clock.advance(timedelta(minutes=16))
    failing_tick(world)
    for key in (
        KEYS.source_check(SOURCE, "stream_health"),
        KEYS.dataset_check("orders", "lag"),
    ):
        found = world.latest(key)
        assert found is not None
        text = found.description or ""
        assert "never read to its end, 16 min after the first attempt" in text
        assert "last read to its end" not in text
    health = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert health is not None
    assert "caught_up_at" not in health.metadata
    # From the first full read on, it counts from there.
    world.stream.faults = None
    world.put("a")
    world.run_until_idle()
    fail(world)
    world.clock.advance(timedelta(minutes=3))
    failing_tick(world)
    found = world.latest(KEYS.dataset_check("orders", "lag"))
    assert found is not None
    assert "last read to its end 3 min ago" in (found.description or "")
