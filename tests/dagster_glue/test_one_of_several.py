"""One dataset of several: it can be selected alone, also its checks, and it can fail alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, AssetSelection, ExecuteInProcessResult

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.pipeline import backlog
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing.storage_faults import commit_fails
from tests.dagster_glue.conftest import ITEM_COLUMNS, KEYS, SOURCE, MakeWorld, World

STATIC = DynamoDBSource("orders", stream_enabled=False)


def two_datasets(source: DynamoDBSource = SOURCE) -> Transform:
    @transform(
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset("now")), "more": Output(Dataset("copy"))},
    )
    def both(changes: Any) -> Any:
        rows = changes.select(*ITEM_COLUMNS)
        return {"rows": rows, "more": rows}

    return both


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(two_datasets())


def run(world: World, selection: AssetSelection, **more: Any) -> ExecuteInProcessResult:
    """Run a selection, as the launchpad and the button of an asset or a check do."""
    job = world.defs.resolve_implicit_global_asset_job_def()
    keys, checks = world.defs.resolve_asset_graph(), selection
    return job.get_subset(
        asset_selection=selection.resolve(keys),
        asset_check_selection=checks.resolve_checks(keys),
    ).execute_in_process(instance=world.instance, **more)


def materialized(result: ExecuteInProcessResult) -> list[AssetKey | None]:
    return [one.asset_key for one in result.all_events if one.is_step_materialization]


def evaluated(result: ExecuteInProcessResult) -> set[AssetCheckKey]:
    return {one.asset_check_key for one in result.get_asset_check_evaluations()}


def positions(world: World) -> dict[str, int]:
    return {name: backlog("orders", name, world.layout).position for name in ("now", "copy")}


@pytest.mark.parametrize("chosen", ["now", "copy"])
def test_one_dataset_is_applied_alone(world: World, chosen: str) -> None:
    world.put("a")
    world.tick()
    other = {"now": "copy", "copy": "now"}[chosen]
    result = run(world, AssetSelection.assets(chosen))
    assert materialized(result) == [KEYS.dataset(chosen)]
    assert evaluated(result) == set(KEYS.dataset_checks(chosen))
    assert positions(world) == {chosen: 1, other: 0}

    world.put("b")
    world.run_until_idle()  # the other one goes on from its own position
    assert positions(world) == {"now": 2, "copy": 2}
    assert world.rows("now") == world.rows("copy") == {"a": "placed", "b": "placed"}


def test_one_dataset_of_a_table_without_a_stream(make_world: MakeWorld) -> None:
    world = make_world(two_datasets(STATIC))
    world.table.put_unseen({"id": {"S": "a"}, "status": {"S": "placed"}})
    assert materialized(run(world, AssetSelection.assets("copy"))) == [KEYS.dataset("copy")]
    assert world.rows("copy") == {"a": "placed"}
    assert not (world.root / "lake" / "now").exists()
    check = AssetSelection.checks(KEYS.dataset_check("now", "complete"))
    assert evaluated(run(world, check)) == {KEYS.dataset_check("now", "complete")}


@pytest.mark.parametrize(
    "keys", [[KEYS.dataset_check("now", "complete")], KEYS.dataset_checks("now")]
)
def test_checks_alone_apply_nothing(world: World, keys: Collection[AssetCheckKey]) -> None:
    world.put("a")
    world.tick()
    run(world, AssetSelection.assets("now"))
    world.put("b")
    world.tick()
    result = run(world, AssetSelection.checks(*keys))
    assert evaluated(result) == set(keys)
    assert materialized(result) == []
    assert positions(world) == {"now": 1, "copy": 0}
    assert all(one.passed for one in result.get_asset_check_evaluations())


def test_a_dataset_and_a_check_of_the_other(world: World) -> None:
    world.put("a")
    world.tick()
    wanted = KEYS.dataset_check("copy", "complete")
    result = run(world, AssetSelection.assets("now") | AssetSelection.checks(wanted))
    assert evaluated(result) == {*KEYS.dataset_checks("now"), wanted}
    assert positions(world) == {"now": 1, "copy": 0}


def test_what_one_dataset_has_got_is_shown_although_the_other_failed(world: World) -> None:
    world.put("a")
    world.tick()
    with commit_fails("dataset", nth=2):
        result = world.run("apply_both", raise_on_error=False)
    assert not result.success
    assert materialized(result) == [KEYS.dataset("now")]
    assert positions(world) == {"now": 1, "copy": 0}
    [event] = [one for one in result.all_events if one.is_step_materialization]
    metadata = event.step_materialization_data.materialization.metadata
    assert (metadata["rows_inserted"].value, metadata["position"].value) == (1, 1)

    result = world.run("apply_both")  # the next run takes both to the head
    assert positions(world) == {"now": 1, "copy": 1}
