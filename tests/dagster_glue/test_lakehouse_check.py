"""A run that sees another lakehouse than its sensor fails and names both places."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from dagster import ExecuteInProcessResult, RunRequest

from datazone_dagster import Lakehouse, build_definitions
from tests.dagster_glue.conftest import ScriptedResource, World


def run_in(
    world: World, uri: str | None, request: RunRequest | None = None
) -> ExecuteInProcessResult:
    """Run the job as a process would that has this lakehouse."""
    defs = build_definitions(
        world.transforms,
        lakehouse=Lakehouse(uri=uri),
        dynamodb=ScriptedResource(),
        clock=world.clock,
    )
    return defs.resolve_job_def("apply_orders").execute_in_process(
        instance=world.instance,
        tags=dict(request.tags) if request is not None else {},
        raise_on_error=False,
    )


def error_of(result: ExecuteInProcessResult) -> str:
    assert not result.success
    [failure] = result.get_step_failure_events()
    assert not result.get_asset_check_evaluations()  # none is green, none is known
    return str(failure.step_failure_data.error)


def requested(world: World) -> RunRequest:
    world.put("a")
    [request] = world.tick().requests
    assert request.tags[".dagster/datazone_lakehouse"] == world.layout.uri
    return request


def test_another_working_directory(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = requested(world)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("DATAZONE_LAKEHOUSE_URI", raising=False)
    error = error_of(run_in(world, None, request))
    assert "LakehouseMismatchError" in error
    assert "This run sees no change log of 'orders'" in error
    assert str(tmp_path / "elsewhere") in error
    assert f"batch 1 in {world.layout.uri}" in error
    assert not list((tmp_path / "elsewhere").iterdir())
    assert run_in(world, world.layout.uri, request).success
    assert world.rows() == {"a": "placed"}


def test_a_change_log_that_ends_earlier(world: World, tmp_path: Any) -> None:
    requested(world)
    shutil.copytree(world.layout.uri, tmp_path / "older")
    world.put("b")
    [request] = world.tick().requests
    error = error_of(run_in(world, str(tmp_path / "older"), request))
    assert "sees a change log that ends at batch 1" in error
    assert "batch 2" in error


def test_a_run_by_hand(world: World, tmp_path: Any) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert run_in(world, nowhere).success  # there was no drain yet
    requested(world)
    error = error_of(run_in(world, nowhere))
    assert f"no change log of 'orders' at {nowhere}/_changelog/orders" in error
    assert world.layout.change_log("orders") in error
    assert run_in(world, world.layout.uri).success
