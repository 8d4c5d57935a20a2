"""Checks and reports while a transform of a shared run has to wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    ExecuteInProcessResult,
)
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import RunOpConcurrency

from datazone_dagster import Dataset, Expect, Input, Output, Stream, Transform, transform
from datazone_dagster.dagster_glue.checks import expectation_checks
from datazone_dagster.dagster_glue.names import pool_name
from tests.dagster_glue.conftest import ITEM_COLUMNS, KEYS, SOURCE, MakeWorld
from tests.dagster_glue.test_source_runs import JOB, flow, requested, shared

PLACED = AssetCheckKey(KEYS.dataset("b"), "expect_placed")


def shown(instance: DagsterInstance, key: AssetCheckKey) -> bool | None:
    """Whether the newest row of a check, which Dagster shows, passed; None if it is planned."""
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record and record.event else None
    facts = event.event_specific_data if event is not None else None
    return facts.passed if isinstance(facts, AssetCheckEvaluation) else None


def expecting(name: str) -> Transform:
    @transform(
        name=name,
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={
            "rows": Output(
                Dataset(name, expect={"placed": Expect("status = 'placed'", on_violation="fail")})
            )
        },
        version="1",
    )
    def apply(changes: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    return apply


def test_a_check_that_fails_is_shown_and_told_while_its_transform_waits(
    make_world: MakeWorld,
) -> None:
    told: list[tuple[str, bool]] = []
    in_run: list[bool | None] = []

    def call(_: str) -> None:
        in_run.append(shown(world.instance, PLACED))

    world = shared(
        make_world,
        flow("c", call),
        expecting("b"),
        on_check=lambda one: told.append((one.check, one.passed)),
    )
    world.put("first")
    requested(world)
    assert shown(world.instance, PLACED) is True
    world.put("second", "bad")
    requested(world, raise_on_error=False)
    assert shown(world.instance, PLACED) is False
    world.put("third")
    world.tick()
    world.put("fourth")
    in_run.clear()
    assert requested(world).success  # b waits
    assert in_run == [False, False]
    for key in KEYS.dataset_checks("b"):
        assert shown(world.instance, key) is not None, key
    assert shown(world.instance, PLACED) is False
    world.tick("datazone_check_alerts")
    assert ("expect_placed", False) in told


def test_a_failed_expectation_is_told_at_once(make_world: MakeWorld) -> None:
    in_run: list[bool | None] = []

    def call(_: str) -> None:
        in_run.append(shown(world.instance, PLACED))

    world = shared(make_world, expecting("b"), flow("c", call))
    world.put("first")
    requested(world)
    in_run.clear()
    world.put("second", "bad")
    world.tick()
    requested(world, raise_on_error=False)
    assert in_run == [False]  # its turn was before


def read_records(result: ExecuteInProcessResult, name: str) -> list[Any]:
    return [
        event.step_materialization_data.materialization.metadata["records_read"].value
        for event in result.all_events
        if event.is_step_materialization
        and event.asset_key is not None
        and event.asset_key.path[-1] == name
    ]


def test_the_last_report_is_told_while_the_transform_of_its_lookup_waits(
    make_world: MakeWorld,
) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE)), "names": Input(Dataset("a"))},
        output_mapping={"rows": Output(Dataset("joined", expect={"placed": "status = 'placed'"}))},
    )
    def joined(changes: Any, names: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    def call(_: str) -> None:
        if broken:
            raise ValueError("boom")

    broken: list[bool] = []
    world = shared(make_world, joined, flow("a", call), flow("c"))
    world.put("first")
    requested(world)
    broken.append(True)
    world.put("second")
    requested(world, raise_on_error=False)
    world.put("third")
    world.tick()
    world.put("fourth", "bad")
    result = requested(world, raise_on_error=False)
    assert result.success
    assert set(world.rows("joined")) == {"first", "second", "third", "fourth"}
    assert sum(read_records(result, "joined")) == 2
    for check in ("expect_placed", "lag", "small_files"):
        key = AssetCheckKey(KEYS.dataset("joined"), check)
        assert shown(world.instance, key) is (check != "expect_placed")


def test_a_failed_check_is_found_behind_many_planned_ones(
    make_world: MakeWorld, monkeypatch: Any
) -> None:
    monkeypatch.setattr(expectation_checks, "LOOKED_AT", 2)
    world = shared(make_world, flow("b"))
    key = AssetCheckKey(KEYS.dataset("b"), "unique_keys")
    world.instance.report_runless_asset_event(
        AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=False)
    )
    job = world.defs.resolve_job_def("apply_b")
    for _ in range(5):  # as runs that were cut off before they evaluated it
        world.instance.create_run_for_job(job)
    assert shown(world.instance, key) is None
    last = expectation_checks.last_evaluation(world.instance, key)
    assert last is not None
    assert not last.passed


def test_a_transform_that_recovered_no_longer_counts_as_failed(make_world: MakeWorld) -> None:
    broken, calls, reasons = [True], list[str](), list[str]()

    def call(name: str) -> None:
        if broken and name == "b":
            raise ValueError("boom")
        calls.append(name)
        if calls[-2:] == ["b", "a"] and not broken and not reasons:  # b has applied its chunk
            world.put("later")
            reasons.append(world.tick().skip or "")

    world = shared(make_world, flow("a", call), flow("b", call))
    world.put("first")
    requested(world, raise_on_error=False)
    broken.clear()
    world.clock.advance(timedelta(seconds=16))
    for key in ("second", "third"):
        world.put(key)
        world.tick()
    requested(world)
    [reason] = reasons
    assert f"{JOB} is running or queued" in reason
    assert "failed" not in reason


def test_a_shared_run_in_the_queue_says_what_it_waits_for(make_world: MakeWorld) -> None:
    """Where pools count runs, Dagster starts it when the pools of all its transforms are free."""
    world = shared(make_world, flow("a"), flow("b"))
    world.put("first")
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="here")
    repository = RemoteRepositoryOrigin(location, "__repository__")
    pools = {name: pool_name(flow(name)) for name in ("a", "b")}

    def add(job: str, status: DagsterRunStatus, *needed: str) -> None:
        run = DagsterRun(
            job,
            status=status,
            remote_job_origin=repository.get_job_origin(job),
            run_op_concurrency=RunOpConcurrency(
                root_key_counts={}, has_unconstrained_root_nodes=False, all_pools=set(needed)
            ),
        )
        world.instance.add_run(run)

    add(JOB, DagsterRunStatus.QUEUED, *pools.values())
    add("other", DagsterRunStatus.STARTED, "other")
    assert (
        world.tick().skip
        == f"Read 1 record in batch 1, caught up, 1 shard open; {JOB} is running or queued"
    )
    add("redrive_a", DagsterRunStatus.STARTED, pools["a"])
    skip = world.tick().skip
    assert skip is not None
    assert skip.endswith(
        f"{JOB} waits in the queue for the pool of a run at work: redrive_a, which has {pools['a']}"
    )
