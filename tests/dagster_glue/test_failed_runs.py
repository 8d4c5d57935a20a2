"""A run that fails: its other checks are evaluated; only failed applications slow the next run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import (
    AssetCheckResult,
    AssetKey,
    DagsterRunStatus,
    Definitions,
    asset_check,
)

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.delta import table_state
from datazone_dagster.errors import TransformError
from tests.dagster_glue.conftest import ITEM_COLUMNS, SOURCE, MakeWorld, World, orders_transform

FUNCTION_FREE = ("lag", "quarantine", "complete", "function", "unique_keys")


def broken_transform(fixed: list[bool]) -> Transform:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("broken")), "more": Output(Dataset("more"))},
    )
    def broken(changes: Any) -> Any:
        if not fixed:
            raise ValueError("boom")
        rows = changes.select(*ITEM_COLUMNS)
        return {"rows": rows, "more": rows}

    return broken


def fail(world: World, times: int) -> None:
    for _ in range(times):
        assert not world.run("apply_broken", raise_on_error=False).success


def test_checks_that_do_not_need_the_function_are_evaluated(make_world: MakeWorld) -> None:
    world = make_world(broken_transform([]))
    world.put("a")
    world.tick()
    result = world.run("apply_broken", raise_on_error=False)
    assert not result.success
    found = {
        (one.asset_key.to_user_string(), one.check_name): one
        for one in result.get_asset_check_evaluations()
    }
    assert set(found) == {(key, name) for key in ("broken", "more") for name in FUNCTION_FREE}
    assert all(one.passed for one in found.values())
    assert "no open gap" in (found["broken", "complete"].description or "")
    assert not [one for one in result.all_events if one.is_step_materialization]


def test_the_error_of_the_function_is_the_error_of_the_run(make_world: MakeWorld) -> None:
    world = make_world(broken_transform([]))
    world.put("a")
    world.tick()
    with pytest.raises(TransformError, match="boom"):
        world.run("apply_broken")


def test_a_lakehouse_that_can_not_be_read_does_not_hide_the_error(make_world: MakeWorld) -> None:
    world = make_world(broken_transform([]))
    world.put("a")
    world.tick()
    log = next((world.root / "lake" / "_changelog" / "orders" / "_delta_log").glob("*0.json"))
    log.write_text("not a log")
    table_state.forget(world.layout.change_log("orders"))  # a run is a process of its own
    result = world.run("apply_broken", raise_on_error=False)
    assert not result.success
    [failure] = result.get_step_failure_events()
    assert "_changelog/orders" in str(failure.step_failure_data.error)


def test_failures_are_shown_on_the_asset_and_end_with_a_deploy(make_world: MakeWorld) -> None:
    fixed: list[bool] = []
    world = make_world(broken_transform(fixed))
    world.put("a")
    assert world.tick().requests
    fail(world, 3)
    world.clock.advance(timedelta(seconds=35))
    tick = world.tick()
    assert not tick.requests
    words = "broken failed 3 times in a row and is retried in"
    assert words in (tick.skip or "")
    for dataset in ("broken", "more"):
        lag = tick.checks()[f"{dataset}:lag"]
        assert words in (lag.description or "")
        assert "boom" in (lag.description or "")
        assert lag.metadata["failures_in_a_row"].value == 3

    fixed.append(True)
    world.__post_init__()  # the code location is loaded again
    tick = world.tick()
    assert [request.job_name for request in tick.requests] == ["apply_broken"]
    world.run_until_idle()
    assert world.rows("broken") == {"a": "placed"}
    world.clock.advance(timedelta(seconds=35))
    lag = world.tick().checks()["broken:lag"]
    assert "failed" not in (lag.description or "")
    assert lag.metadata["failures_in_a_row"].value == 0


def test_a_check_of_another_that_raises_does_not_slow_the_stream(make_world: MakeWorld) -> None:
    @asset_check(asset=AssetKey("orders"))
    def theirs() -> AssetCheckResult:
        raise ValueError("their check is broken")

    world = make_world(orders_transform(), extra=Definitions(asset_checks=[theirs]))
    for number in range(3):
        world.put(f"key-{number}")
        assert [one.job_name for one in world.tick().requests] == ["apply_orders"]
        assert not world.run("apply_orders", raise_on_error=False).success
    assert len(world.rows()) == 3


def test_a_run_that_died_is_not_a_failed_application(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("a")
    assert world.tick().requests
    job = world.defs.resolve_job_def("apply_orders")
    for _ in range(5):
        run = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        world.instance.report_run_failed(run, "the machine went away")
    tick = world.tick()
    assert not tick.requests
    assert "the last run of orders ended early; the next starts in" in (tick.skip or "")
    world.clock.advance(timedelta(hours=1))  # Dagster stamps runs by its own clock
    assert world.tick().requests
