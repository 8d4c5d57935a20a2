"""Slots of pools that count ops, until the last step of a shared run has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance

from datazone_dagster import Transform
from datazone_dagster.dagster_glue.assets import source_run
from datazone_dagster.dagster_glue.names import ALIVE_TAG
from datazone_dagster.dagster_glue.runs import heartbeat
from datazone_dagster.pipeline import ApplySettings
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.dagster_glue.conftest import World
from tests.dagster_glue.test_source_runs import SMALL_CHUNKS, flow, requested

POOL = "datazone/apply_b"

pytestmark = pytest.mark.timeout(90)  # a step that is never given its slot waits for it


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance without configuration: its pools count ops."""
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        yield instance


def world_on(
    instance: DagsterInstance, clock: FixedClock, folder: Path, *flows: Transform, **settings: Any
) -> World:
    stream = ScriptedStream("orders", clock=clock)
    options = {"one_run_per_source": True, "apply_settings": SMALL_CHUNKS, **settings}
    return World(folder, instance, clock, stream, list(flows), options)


def test_no_other_run_comes_between_the_work_and_its_step(
    instance: DagsterInstance, tmp_path: Path, clock: FixedClock
) -> None:
    storage = instance.event_log_storage

    def call(name: str) -> None:
        if name == "b":  # a redrive, say, which waits for the pool
            assert not storage.claim_concurrency_slot(POOL, "other", "step").is_claimed

    world = world_on(instance, clock, tmp_path, flow("a"), flow("b", call))
    world.put("first")
    assert requested(world).success
    assert world.rows("b") == {"first": "placed"}
    assert storage.claim_concurrency_slot(POOL, "other", "step").is_claimed  # its turn, now
    assert not source_run._handed


def test_a_run_that_waits_for_a_pool_at_its_end_is_alive(
    instance: DagsterInstance,
    tmp_path: Path,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(source_run, "AGAIN_SECONDS", 0.05)
    storage, add_run_tags = instance.event_log_storage, instance.add_run_tags

    def heartbeat_seen(run_id: str, tags: dict[str, str]) -> None:
        add_run_tags(run_id, tags)
        if ALIVE_TAG in tags and source_run._handed:
            storage.free_concurrency_slot_for_step("other", "step")

    monkeypatch.setattr(instance, "add_run_tags", heartbeat_seen)
    assert storage.claim_concurrency_slot(POOL, "other", "step").is_claimed
    settings = ApplySettings(chunk_bytes=1, idle_seconds=0.1, max_run_minutes=0.01)
    world = world_on(instance, clock, tmp_path, flow("a"), flow("b"), apply_settings=settings)
    world.put("first")
    assert requested(world).success
    assert world.rows("a") == {"first": "placed"}
    info = storage.get_concurrency_info(POOL)
    assert not info.active_run_ids
    assert not info.pending_steps
    assert not source_run._handed
