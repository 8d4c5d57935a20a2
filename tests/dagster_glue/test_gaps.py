"""A gap in Dagster: the stream and its datasets fail their checks until the gap is accepted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dagster import AssetCheckSeverity, ExecuteInProcessResult

from datazone_dagster.pipeline import accept_gaps
from tests.dagster_glue.conftest import KEYS, SOURCE, World


def lose_changes(world: World) -> None:
    world.put("a")
    world.run_until_idle()
    world.clock.advance(timedelta(hours=26))
    world.put("b")
    world.stream.trim()
    world.put("c")


def metadata(result: ExecuteInProcessResult) -> Any:
    [event] = result.get_asset_materialization_events()
    return {
        name: entry.value
        for name, entry in event.step_materialization_data.materialization.metadata.items()
    }


def test_datasets_are_marked_incomplete_until_the_gap_is_accepted(world: World) -> None:
    lose_changes(world)
    tick = world.tick()
    stream = tick.checks()["dynamodb/orders:stream_health"]
    assert (stream.passed, stream.severity) == (False, AssetCheckSeverity.ERROR)
    assert stream.metadata["state"].value == "GAP"
    assert stream.metadata["missing_seconds"].value == 26 * 3600
    complete = tick.checks()["orders:complete"]
    assert (complete.passed, complete.severity) == (False, AssetCheckSeverity.ERROR)
    for words in ("shardId-", "93,600 s", "accept-gap orders"):
        assert words in (complete.description or "")

    shown = metadata(world.run("apply_orders"))
    assert (shown["complete"], shown["gaps"], shown["missing_seconds"]) == (0, 1, 26 * 3600)
    of_run = world.latest(KEYS.dataset_check("orders", "complete"))
    assert of_run is not None
    assert not of_run.passed

    accept_gaps(SOURCE.name, world.layout, by="ann", why="copied by hand", clock=world.clock)
    tick = world.tick()
    assert tick.checks()["orders:complete"].passed
    assert tick.checks()["dynamodb/orders:stream_health"].passed
    world.put("d")
    world.tick()
    shown = metadata(world.run("apply_orders"))
    assert (shown["complete"], shown["gaps"], shown["missing_seconds"]) == (1, 0, 0)


def test_headroom_is_in_check_and_metadata_and_warns_under_six_hours(world: World) -> None:
    from datazone_dagster.errors import ServiceUnavailableError

    world.put("a")
    tick = world.tick()
    [materialization] = tick.materializations()
    assert materialization.metadata["headroom_seconds"].value == 24 * 3600
    world.put("b")
    down = ServiceUnavailableError("scripted")
    world.stream.faults = lambda operation, *_: down if operation == "GetRecords" else None
    world.clock.advance(timedelta(hours=19))
    world.tick()
    found = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert found is not None
    assert found.metadata["headroom_seconds"].value == 5 * 3600
    assert "may be trimmed in 5 h" in (found.description or "")
