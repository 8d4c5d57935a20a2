"""One run for all transforms of a source: they take turns, and fail and wait one by one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    ExecuteInProcessResult,
    RetryPolicy,
    in_process_executor,
    multiprocess_executor,
)

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply import run as apply_run
from datazone_dagster.dagster_glue.assets import source_run
from datazone_dagster.dagster_glue.names import END_TAG, FAILURE_TAG, TURN_TAG, VERSION_TAG
from datazone_dagster.dagster_glue.runs import staying_runs
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model import retries
from datazone_dagster.pipeline import ApplySettings, apply_transform, backlog
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, FixedClock, ScriptedStream
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    KEYS,
    SOURCE,
    MakeWorld,
    ScriptedResource,
    World,
)

JOB = "apply_source_orders"
NAMES = ("a", "b", "c")
SMALL_CHUNKS = ApplySettings(chunk_bytes=1, idle_seconds=0.3)
"""Each batch is a chunk."""


def flow(name: str, on_call: Callable[[str], None] = lambda _: None) -> Transform:
    """A transform that calls a function with its name before each chunk."""

    @transform(
        name=name,
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset(name))},
        version="1",
    )
    def apply(changes: Any) -> Any:
        on_call(name)
        return changes.select(*ITEM_COLUMNS)

    return apply


def shared(make_world: MakeWorld, *transforms: Transform, **options: Any) -> World:
    settings = {"apply_settings": SMALL_CHUNKS, **options}
    return make_world(*transforms, one_run_per_source=True, **settings)


def requested(world: World, **more: Any) -> ExecuteInProcessResult:
    """Run what the next tick requests, with the tags of the request."""
    [request] = world.tick().requests
    assert request.job_name == JOB
    return world.run(JOB, tags=request.tags, **more)


def materialized(result: ExecuteInProcessResult) -> list[str]:
    return [
        event.asset_key.path[-1]
        for event in result.all_events
        if event.is_step_materialization and event.asset_key
    ]


def evaluated(result: ExecuteInProcessResult) -> list[AssetCheckKey]:
    return [one.asset_check_key for one in result.get_asset_check_evaluations()]


def failed(result: ExecuteInProcessResult) -> list[str]:
    return [one.step_key or "" for one in result.get_step_failure_events()]


def positions(world: World) -> dict[str, int]:
    return {name: backlog("orders", name, world.layout).position for name in NAMES}


def test_three_transforms_take_turns_in_one_run(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply_run, "REPORT_EVERY_SECONDS", 0.0)
    calls: list[str] = []
    world = shared(make_world, *(flow(name, calls.append) for name in NAMES))
    for number in range(3):
        world.put(f"k{number}")
        tick = world.tick()
    assert [one.job_name for one in tick.requests] == [JOB]
    result = requested(world)
    assert result.success
    assert calls == list("abcabcabc")
    for name in NAMES:
        assert set(world.rows(name)) == {"k0", "k1", "k2"}
    assert sorted(materialized(result)) == sorted(NAMES * 4)  # each chunk, and the end
    checks = {key for name in NAMES for key in KEYS.dataset_checks(name)}
    assert set(evaluated(result)) == checks
    assert not world.tick().requests


def test_one_that_fails_is_one_asset_that_failed(make_world: MakeWorld) -> None:
    broken = [True]

    def call(name: str) -> None:
        if name == "b" and broken:
            raise ValueError("boom")
        if name == "c" and len(world.rows("a")) < 2:  # what lands after the failure is applied, too
            world.put("later")
            assert not world.tick().requests

    world = shared(make_world, *(flow(name, call) for name in NAMES))
    world.put("first")
    result = requested(world, raise_on_error=False)
    assert not result.success
    assert failed(result) == ["b"]
    assert set(world.rows("a")) == set(world.rows("c")) == {"first", "later"}
    assert positions(world) == {"a": 2, "b": 0, "c": 2}
    assert set(materialized(result)) == {"a", "c"}
    told = {(one.asset_key.path[-1], one.name) for one in evaluated(result)}
    assert {("b", name) for name in ("lag", "quarantine", "complete", "function")} <= told
    run = world.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[FAILURE_TAG].startswith("b: TransformError")

    broken.clear()
    world.clock.advance(timedelta(seconds=15))
    assert requested(world).success
    assert positions(world) == {"a": 2, "b": 2, "c": 2}


def test_a_transform_that_failed_waits_while_the_others_get_runs(make_world: MakeWorld) -> None:
    calls: list[str] = []

    def call(name: str) -> None:
        calls.append(name)
        if name == "b":
            raise ValueError("boom")

    world = shared(make_world, flow("a", call), flow("b", call))
    world.put("first")
    requested(world, raise_on_error=False)  # ends as nothing else lands
    tick = world.tick()
    assert not tick.requests
    assert (tick.skip or "").endswith("shard open; b failed once and is retried in 15 s")

    world.put("second")
    calls.clear()
    assert requested(world).success  # of what need not wait: b is left out
    assert calls == ["a"]
    assert "b failed once" in (world.tick().skip or "")
    world.clock.advance(timedelta(seconds=16))
    result = requested(world, raise_on_error=False)
    assert "b failed 2 times in a row and is retried in 30 s" in (world.tick().skip or "")
    world.clock.advance(timedelta(seconds=29))
    lag = world.tick().checks()["b:lag"]
    assert "Failures in a row: 2, the last one: TransformError" in (lag.description or "")
    assert lag.metadata["failed_run_id"].value == result.run_id


def test_a_transform_that_kills_the_process_holds_back_no_other(make_world: MakeWorld) -> None:
    """It fails on its own: it has a wait of its own, and comes last in the next run."""
    deadly, calls = [True], list[str]()

    def call(name: str) -> None:
        calls.append(name)
        if name == "a" and deadly:
            raise Crash

    def dies() -> None:
        [request] = world.tick().requests
        with pytest.raises(Crash):
            world.run(JOB, tags=request.tags)
        record = world.instance.get_run_records(limit=1)[0]
        if record.dagster_run.status is not DagsterRunStatus.FAILURE:
            world.instance.report_run_failed(record.dagster_run)  # as the drain sensor does

    world = shared(make_world, *(flow(name, call) for name in NAMES))
    world.put("first")
    dies()
    assert calls == ["a"]
    assert not world.tick().requests
    world.clock.advance(retries.FIRST_WAIT + timedelta(seconds=5))
    dies()
    assert calls == ["a", "b", "c", "a"]
    assert positions(world) == {"a": 0, "b": 1, "c": 1}
    assert "a failed 2 times in a row and is retried in" in (world.tick().skip or "")
    deadly.clear()
    world.put("second")
    assert requested(world).success
    assert positions(world) == {"a": 0, "b": 2, "c": 2}
    world.clock.advance(2 * retries.FIRST_WAIT)
    lag = world.tick().checks()["a:lag"].description or ""
    assert "Failures in a row: 2, the last one: The process of the run ended" in lag
    assert requested(world).success
    assert set(world.rows("a")) == {"first", "second"}
    record = world.instance.get_run_records(limit=1)[0]
    assert not record.dagster_run.tags[TURN_TAG]


def test_a_run_ends_as_failed_once_the_transform_is_to_be_tried_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", timedelta(seconds=0.5))

    def call(name: str) -> None:
        if name == "b":
            raise ValueError("boom")

    world = shared(
        make_world, flow("a", call), flow("b", call), apply_settings=ApplySettings(idle_seconds=600)
    )
    world.put("first")
    assert failed(requested(world, raise_on_error=False)) == ["b"]
    world.clock.advance(timedelta(seconds=1))  # the clock of the sensor: time has passed in the run
    assert world.tick().requests


def test_a_step_that_dagster_repeats_applies_its_own_transform(make_world: MakeWorld) -> None:
    calls: list[str] = []

    def call(name: str) -> None:
        calls.append(name)
        if calls.count(name) == 1:
            raise ValueError("boom")

    policy = RetryPolicy(max_retries=1)
    world = shared(make_world, flow("a", call), flow("b", call), retry_policy=policy)
    world.put("first")
    assert requested(world).success
    assert calls == ["a", "b", "a", "b"]
    assert world.rows("a") == world.rows("b") == {"first": "placed"}
    world.put("second")
    assert requested(world).success  # what was repeated does not count as failed


def test_a_lookup_is_read_by_the_run_that_made_it(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE)), "names": Input(Dataset("a"))},
        output_mapping={"rows": Output(Dataset("joined"))},
    )
    def joined(changes: Any, names: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    world = shared(make_world, joined, flow("a"))
    world.put("first")
    result = requested(world)
    assert world.rows("joined") == {"first": "placed"}
    assert materialized(result) == ["a", "joined", "a", "joined"]


def test_the_reports_of_steps_that_dagster_skips_are_told(make_world: MakeWorld) -> None:
    """A step is skipped if one of its lookups failed, although its transform went on."""

    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE)), "names": Input(Dataset("a"))},
        output_mapping={"rows": Output(Dataset("joined"))},
    )
    def joined(changes: Any, names: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    def call(_: str) -> None:
        if broken:
            raise ValueError("boom")

    broken: list[bool] = []
    world = shared(make_world, joined, flow("a", call))
    world.put("first")
    requested(world)
    broken.append(True)
    for key in ("second", "third"):
        world.put(key)
        world.tick()
    result = requested(world, raise_on_error=False)
    assert failed(result) == ["a"]
    assert set(world.rows("joined")) == {"first", "second", "third"}
    read = [
        event.step_materialization_data.materialization.metadata["records_read"].value
        for event in result.all_events
        if event.is_step_materialization
    ]
    assert read == [1, 1]  # at once, and at the end


def test_a_run_of_the_former_code_is_told_to_end(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staying_runs, "ASK_EVERY_SECONDS", 0.0)

    def deploy(name: str) -> None:
        if len(world.instance.get_run_records()) == 1 and name == "a":
            [record] = world.instance.get_run_records()
            world.instance.add_run_tags(record.dagster_run.run_id, {VERSION_TAG: "0"})
            assert "former version" in (world.tick().skip or "")

    world = shared(
        make_world, flow("a", deploy), flow("b"), apply_settings=ApplySettings(idle_seconds=600)
    )
    world.put("first")
    assert requested(world).success
    assert world.rows("a") == {"first": "placed"}


@pytest.mark.parametrize("name", ["a", "b"])
def test_one_dataset_is_materialized_alone(make_world: MakeWorld, name: str) -> None:
    world = shared(make_world, flow("a"), flow("b"))
    world.put("first")
    world.tick()
    job = world.defs.resolve_implicit_global_asset_job_def()
    result = job.get_subset(asset_selection={KEYS.dataset(name)}).execute_in_process(
        instance=world.instance
    )
    assert materialized(result) == [name]
    other = {"a": "b", "b": "a"}[name]
    assert backlog("orders", other, world.layout).position == 0
    assert materialized(world.run(f"apply_{other}")) == [other]
    part = world.defs.resolve_job_def(JOB).get_subset(asset_selection={KEYS.dataset(name)})
    assert materialized(part.execute_in_process(instance=world.instance)) == [name]


def test_the_run_started_by_hand_ends_when_nothing_waits(make_world: MakeWorld) -> None:
    world = shared(make_world, flow("a"), flow("b"), apply_settings=ApplySettings(idle_seconds=600))
    world.put("first")
    world.tick()
    assert sorted(materialized(world.run(JOB))) == ["a", "b"]
    assert set(world.rows("a")) == set(world.rows("b")) == {"first"}


def test_the_setting_can_be_changed_while_runs_are_there(make_world: MakeWorld) -> None:
    """The run of before is told to end; meanwhile there is no other."""
    alone = make_world(flow("a"), flow("b"))
    alone.put("first")
    for request in alone.tick().requests:
        job = alone.defs.resolve_job_def(request.job_name or "")
        alone.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED, tags=request.tags)
    together = make_world(flow("a"), flow("b"), one_run_per_source=True)
    ScriptedResource.streams = {"orders": alone.stream}
    tick = together.tick()
    assert not tick.requests
    assert "apply_a, apply_b ends before the run of all" in (tick.skip or "")
    for record in alone.instance.get_run_records():
        run = record.dagster_run
        assert run.tags[END_TAG] == "the transforms of orders share a run now"
        alone.instance.report_run_canceled(run)

    [request] = together.tick().requests
    job = together.defs.resolve_job_def(JOB)
    run = together.instance.create_run_for_job(
        job, status=DagsterRunStatus.STARTED, tags=request.tags
    )
    tick = alone.tick()
    assert not tick.requests
    assert f"{JOB} ends before the runs of single transforms" in (tick.skip or "")
    ended = alone.instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.tags[END_TAG] == "the transforms of orders have runs of their own now"
    alone.instance.report_run_canceled(ended)
    assert {one.job_name for one in alone.tick().requests} == {"apply_a", "apply_b"}


@pytest.mark.timeout(60)  # without the claim, Dagster waits for the slot
def test_a_transform_whose_pool_is_taken_joins_once_it_is_free(
    tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools of an instance without configuration count ops: each transform needs its slot."""
    monkeypatch.setattr(source_run, "AGAIN_SECONDS", 0.1)
    pool, calls = "datazone/apply_b", list[str]()
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        storage = instance.event_log_storage

        def call(name: str) -> None:
            calls.append(name)
            if calls == ["a"]:
                world.put("later")
                world.tick()
            if calls == ["a", "a"]:  # b had to wait all the time
                storage.free_concurrency_slot_for_step("other", "step")
            if name == "b":
                assert storage.get_concurrency_info(pool).active_run_ids == {
                    one.dagster_run.run_id for one in instance.get_run_records()
                }

        world = World(
            tmp_path,
            instance,
            clock,
            ScriptedStream("orders", clock=clock),
            [flow("a", call), flow("b", call)],
            {"one_run_per_source": True, "apply_settings": SMALL_CHUNKS},
        )
        storage.set_concurrency_slots(pool, 1)
        assert storage.claim_concurrency_slot(pool, "other", "step").is_claimed
        world.put("first")
        result = requested(world)
        assert calls == ["a", "a", "b", "b"]
        assert set(world.rows("b")) == {"first", "later"}
        assert sorted(set(materialized(result))) == ["a", "b"]
        for name in ("a", "b"):
            info = storage.get_concurrency_info(f"datazone/apply_{name}")
            assert not info.active_run_ids
            assert not info.pending_steps


def test_a_transform_that_loses_the_race_tries_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a run of other code, or of a process that was cut off, applies the same chunk."""
    monkeypatch.setattr(source_run, "AFTER_LOST_RACE_SECONDS", 0.1)
    calls: list[str] = []

    def call(name: str) -> None:
        calls.append(name)
        if calls == ["a", "b"]:
            apply_transform(flow("b"), world.layout)
            world.put("later")
            world.tick()

    world = shared(make_world, flow("a", call), flow("b", call))
    world.put("first")
    assert requested(world).success
    assert sorted(calls) == ["a", "a", "b", "b"]
    assert set(world.rows("a")) == set(world.rows("b")) == {"first", "later"}


def test_two_sources_have_two_runs(make_world: MakeWorld, clock: FixedClock) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=DynamoDBSource("users")))},
        output_mapping={"rows": Output(Dataset("users"))},
    )
    def users(changes: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    @transform(
        input_mapping={
            "items": Input(Stream(source=DynamoDBSource("countries", stream_enabled=False)))
        },
        output_mapping={"rows": Output(Dataset("countries"))},
    )
    def countries(items: Any) -> Any:
        return items.select(*ITEM_COLUMNS)

    world = shared(
        make_world, flow("a"), flow("b"), users, countries, executor=multiprocess_executor
    )
    jobs = {one.name for one in world.defs.resolve_all_job_defs() if "apply" in one.name}
    single = {"apply_a", "apply_b", "apply_users", "apply_countries"}
    assert jobs == {*single, JOB, "apply_source_users"}
    assert world.defs.resolve_job_def(JOB).executor_def is in_process_executor
    targets = {one.job_name for one in world.defs.resolve_sensor_def("drain_users").targets}
    assert {"apply_source_users", "apply_users"} <= targets
    assert JOB not in targets


def test_calls_that_are_merged_share_the_run(make_world: MakeWorld) -> None:
    first = make_world(flow("a"), one_run_per_source=True, apply_settings=SMALL_CHUNKS)
    second = make_world(flow("b"), one_run_per_source=True, apply_settings=SMALL_CHUNKS)
    second.defs = Definitions.merge(first.defs, second.defs)
    second.put("first")
    result = requested(second)
    assert sorted(materialized(result)) == ["a", "a", "b", "b"]
    assert result.success


def test_a_transform_with_the_name_of_the_job_is_refused(make_world: MakeWorld) -> None:
    make_world(flow("source_orders"))
    with pytest.raises(DefinitionError, match=f"has the job '{JOB}'"):
        shared(make_world, flow("source_orders"))


def test_nothing_changes_without_the_setting(make_world: MakeWorld) -> None:
    world = make_world(flow("a"), flow("b"))
    assert JOB not in {one.name for one in world.defs.resolve_all_job_defs()}
    world.put("first")
    assert {one.job_name for one in world.tick().requests} == {"apply_a", "apply_b"}


def test_a_terminated_run_is_followed_by_one_that_goes_on(make_world: MakeWorld) -> None:
    calls: list[str] = []

    def call(name: str) -> None:
        calls.append(name)
        if calls == ["a", "b"]:
            os.kill(os.getpid(), signal.SIGINT)

    world = shared(make_world, flow("a", call), flow("b", call))
    world.put("first")
    [request] = world.tick().requests
    with pytest.raises(DagsterExecutionInterruptedError):
        world.run(JOB, tags=request.tags)
    assert not source_run._handed
    world.clock.advance(timedelta(minutes=1))
    requested(world)
    assert world.rows("a") == world.rows("b") == {"first": "placed"}
