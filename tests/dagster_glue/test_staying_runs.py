"""A run that the sensor requested stays while the stream has traffic, and ends when told to."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterExecutionInterruptedError,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    ExecuteInProcessResult,
)
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.dagster_run import RunOpConcurrency

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply import run as apply_run
from datazone_dagster.dagster_glue.assets import assets
from datazone_dagster.dagster_glue.names import ALIVE_TAG, END_TAG, VERSION_TAG, pool_name
from datazone_dagster.dagster_glue.runs import staying_runs
from datazone_dagster.dagster_glue.runs.staying_runs import told_to_end
from datazone_dagster.pipeline import ApplySettings
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    KEYS,
    SOURCE,
    MakeWorld,
    World,
    orders_transform,
)

POOL = pool_name(orders_transform())
QUICKLY_IDLE = ApplySettings(idle_seconds=0.5)


def calling(on_call: Callable[[int], None]) -> Transform:
    """A transform that calls a function with the number of its call."""
    calls: Iterator[int] = iter(range(1, 1000))

    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders"))},
        version="1",
    )
    def orders(changes):  # type: ignore[no-untyped-def]
        on_call(next(calls))
        return changes.select(*ITEM_COLUMNS)

    return orders


def requested(world: World) -> ExecuteInProcessResult:
    """Run what the next tick requests, with the tags of the request."""
    [request] = world.tick().requests
    assert request.job_name is not None
    return world.run(request.job_name, tags=request.tags)


def materializations(result: ExecuteInProcessResult) -> list[dict[str, Any]]:
    """The metadata of the materializations of the dataset in a run."""
    return [
        {key: one.value for key, one in found.materialization.metadata.items()}
        for found in (
            event.step_materialization_data
            for event in result.all_events
            if event.is_step_materialization and event.asset_key == KEYS.dataset("orders")
        )
    ]


def test_one_run_takes_what_lands_while_it_stays(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply_run, "REPORT_EVERY_SECONDS", 0.0)

    def land_more(call: int) -> None:
        if call <= 2:
            world.put(f"later-{call}")
            assert not world.tick().requests  # the run goes on by itself
        if call == 2:
            keys = KEYS.dataset_checks("orders")
            found = world.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
            assert [one.name for one in keys if found[one].status.value == "PLANNED"] == []

    world = make_world(calling(land_more), apply_settings=QUICKLY_IDLE)
    world.put("first")
    result = requested(world)
    assert set(world.rows()) == {"first", "later-1", "later-2"}

    told = materializations(result)
    assert [one["records_read"] for one in told] == [1, 1, 1, 0]
    assert sum(one["rows_inserted"] for one in told) == 3
    assert [one["position"] for one in told] == [1, 2, 3, 3]
    evaluated = [one.asset_check_key for one in result.get_asset_check_evaluations()]
    for key in KEYS.dataset_checks("orders"):
        # They pass: they are told with the first chunk and at the end. That of the keys is not made
        # by a run, which repeats the last one.
        assert evaluated.count(key) == 2, key
    assert not world.tick().requests


def test_a_check_that_recovers_while_a_run_stays_is_shown(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster shows the newest row of a check: the sensor's, which a materialization hides."""
    monkeypatch.setattr(apply_run, "REPORT_EVERY_SECONDS", 0.0)

    def recover(call: int) -> None:
        if call == 1:
            world.put("later")
            state = json.loads(world.cursors["drain_orders"] or "")
            state["levels"] = {"orders:complete": "warn"}
            world.cursors["drain_orders"] = json.dumps(state)
            world.clock.advance(timedelta(seconds=31))
            assert {complete, "orders:lag"} <= world.tick().checks().keys()

    complete = "orders:complete"
    world = make_world(calling(recover), apply_settings=QUICKLY_IDLE)
    world.put("first")
    requested(world)
    assert {complete, "orders:lag"} <= world.tick().checks().keys()
    # The database counts whole seconds: a report within that of the materialization is repeated.
    assert any(complete not in world.tick().checks() for _ in range(100))


def test_many_chunks_make_few_materializations(make_world: MakeWorld) -> None:
    def land_more(call: int) -> None:
        if call <= 5:
            world.put(f"later-{call}")
            world.tick()

    world = make_world(calling(land_more), apply_settings=QUICKLY_IDLE)
    world.put("first")
    told = materializations(requested(world))
    # The first chunk is told at once, the others with the end: half a minute has not passed.
    assert [one["records_read"] for one in told] == [1, 5]
    assert len(world.rows()) == 6


def test_a_run_started_by_hand_ends_when_nothing_waits(make_world: MakeWorld) -> None:
    world = make_world(calling(lambda _: None), apply_settings=ApplySettings(idle_seconds=600))
    world.put("a")
    world.tick()
    assert len(materializations(world.run("apply_orders"))) == 1


def test_a_run_of_the_former_function_is_told_to_end(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staying_runs, "ASK_EVERY_SECONDS", 0.0)

    def deploy(call: int) -> None:
        if call > 1:
            return
        [record] = world.instance.get_run_records()
        world.instance.add_run_tags(record.dagster_run.run_id, {VERSION_TAG: "0"})
        world.put("later")
        tick = world.tick()
        assert not tick.requests
        assert "former version" in (tick.skip or "")

    world = make_world(calling(deploy), apply_settings=ApplySettings(idle_seconds=600))
    world.put("first")
    result = requested(world)
    assert result.success
    assert world.rows() == {"first": "placed"}  # what landed later is for the next run
    run = world.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[END_TAG] == "the transform or its settings have changed"
    assert [one.job_name for one in world.tick().requests] == ["apply_orders"]


def test_a_change_of_the_settings_of_a_run_is_another_version(
    clock: FixedClock, tmp_path: Path
) -> None:
    def version(number: int, **options: Any) -> str:
        stream = ScriptedStream("orders", clock=clock)
        with DagsterInstance.ephemeral() as instance:
            transforms = [orders_transform()]
            world = World(
                tmp_path / f"{number}", instance, clock, stream, transforms, options, None
            )
            world.put("a")
            [request] = world.tick().requests
            return request.tags[VERSION_TAG]

    changes: list[dict[str, Any]] = [
        {},
        {"apply_settings": QUICKLY_IDLE},
        {"preview": False},
        {"op_tags": {"size": "large"}},
        {"key_prefix": "team"},
    ]
    versions = [version(number, **options) for number, options in enumerate(changes)]
    assert len(set(versions)) == len(changes)
    assert version(len(changes)) == versions[0]


def test_a_run_gives_way_to_runs_that_wait_for_long(world: World) -> None:
    job = world.defs.resolve_job_def("apply_orders")
    run = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    now = iter(range(0, 1000, 10))
    ask = told_to_end(world.instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
    queued_of_another(world.instance)
    assert not ask()
    world.clock.advance(staying_runs.QUEUED_LONG + timedelta(seconds=5))
    assert ask()


def queued_of_another(instance: DagsterInstance) -> None:
    """Queue a run as a daemon does, which has loaded its code from somewhere."""
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="other")
    origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("other")
    instance.add_run(DagsterRun("other", status=DagsterRunStatus.QUEUED, remote_job_origin=origin))


@pytest.mark.parametrize(
    ("limits", "gives_way"),
    [
        ({"max_concurrent_runs": 2}, False),
        ({"max_concurrent_runs": 1}, True),
        ({"max_concurrent_runs": -1}, False),
        ({"max_concurrent_runs": 2, "tag_concurrency_limits": [{"key": "a", "limit": 1}]}, True),
    ],
)
def test_a_run_gives_way_to_a_slow_queue_only_without_places(
    world: World, tmp_path: Path, limits: dict[str, Any], *, gives_way: bool
) -> None:
    """Dagster launches one run after another: each may take as long as a process to start."""
    queue = {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}
    job = world.defs.resolve_job_def("apply_orders")
    coordinator = {"run_coordinator": {**queue, "config": limits}}
    with DagsterInstance.local_temp(str(tmp_path), overrides=coordinator) as instance:
        now = iter(range(0, 1000, 10))
        run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        ask = told_to_end(instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
        queued_of_another(instance)
        world.clock.advance(staying_runs.QUEUED_LONG + timedelta(seconds=5))
        assert ask() is gives_way


def test_a_run_gives_way_to_one_of_its_job_that_finds_no_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with fewer workers of a broker than buckets: that queue is not Dagster's."""
    job = world.defs.resolve_job_def("apply_orders")
    world.clock.now = datetime.now(timezone.utc)
    run = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    now = iter(range(0, 1000, 10))
    ask = told_to_end(world.instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
    other = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTING)
    assert not ask()
    world.clock.advance(staying_runs.STARTING_LONG + timedelta(seconds=5))
    world.instance.add_run_tags(other.run_id, {ALIVE_TAG: world.clock.now.isoformat()})
    assert not ask()
    world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTING)
    world.clock.advance(staying_runs.STARTING_LONG + timedelta(seconds=5))
    assert ask()
    # The run that follows this one does not end for the same reason: it was in vain.
    monkeypatch.setattr(staying_runs, "STARTING_LONG", timedelta(microseconds=1))
    after = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    ask = told_to_end(world.instance, after.run_id, [POOL], world.clock, lambda: float(next(now)))
    assert not ask()


@pytest.mark.parametrize("stuck", [1, 2])
def test_no_more_runs_give_way_than_wait_for_a_worker(world: World, stuck: int) -> None:
    """One stuck bucket of many made all of them end at once, though it needs one place."""
    job, instance = world.defs.resolve_job_def("apply_orders"), world.instance
    world.clock.now = datetime.now(timezone.utc)
    alive = {ALIVE_TAG: world.clock.now.isoformat()}
    started, starting = DagsterRunStatus.STARTED, DagsterRunStatus.STARTING
    runs = [instance.create_run_for_job(job, status=started, tags=alive) for _ in range(4)]
    for _ in range(stuck):
        instance.create_run_for_job(job, status=starting)
    now = iter(range(0, 10_000, 10))
    asks = [
        told_to_end(instance, one.run_id, [POOL], world.clock, lambda: float(next(now)))
        for one in runs
    ]
    world.clock.advance(staying_runs.STARTING_LONG + timedelta(seconds=5))
    assert [ask() for ask in asks] == [number < stuck for number in range(4)]
    for run in runs[:stuck]:
        instance.report_run_canceled(run)
    assert [ask() for ask in asks[stuck:]] == [False] * (4 - stuck), "their places are free now"
    world.clock.advance(staying_runs.STARTING_LONG)
    assert [ask() for ask in asks[stuck:]] == [number < stuck for number in range(4 - stuck)]


def test_a_run_that_was_taken_for_dead_ends(world: World) -> None:
    job = world.defs.resolve_job_def("apply_orders")
    run = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    now = iter(range(0, 1000, 10))
    ask = told_to_end(world.instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
    assert not ask()
    world.instance.report_run_failed(run, "it was silent")
    assert ask()


def test_a_run_gives_way_to_a_queued_run_that_needs_its_pool(world: World) -> None:
    """Where pools count runs, as in our dagster.yaml, a run waits for a pool in the queue."""
    job = world.defs.resolve_job_def("apply_orders")
    run = world.instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    now = iter(range(0, 1000, 10))
    ask = told_to_end(world.instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="here")
    origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("rebuild_orders")
    for pool, gives_way in (("others", False), (POOL, True)):
        world.instance.add_run(
            DagsterRun(
                "rebuild_orders",
                status=DagsterRunStatus.QUEUED,
                remote_job_origin=origin,
                run_op_concurrency=RunOpConcurrency(
                    root_key_counts={}, has_unconstrained_root_nodes=False, all_pools={pool}
                ),
            )
        )
        assert ask() is gives_way


def test_a_run_goes_on_while_one_of_another_bucket_is_queued(world: World, tmp_path: Path) -> None:
    """Buckets have one pool, with a slot for each: the queued run waits to be launched only."""
    job = world.defs.resolve_job_def("apply_orders")
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name="here")
    origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("apply_orders")
    needs = RunOpConcurrency(
        root_key_counts={}, has_unconstrained_root_nodes=False, all_pools={POOL}
    )
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, 3)
        now = iter(range(0, 1000, 10))
        run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        ask = told_to_end(instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))

        def add(status: DagsterRunStatus) -> None:
            instance.add_run(
                DagsterRun(
                    "apply_orders",
                    status=status,
                    remote_job_origin=origin,
                    run_op_concurrency=needs,
                )
            )

        add(DagsterRunStatus.QUEUED)
        assert not ask()
        add(DagsterRunStatus.STARTED)
        assert not ask()
        add(DagsterRunStatus.STARTING)  # the last slot
        assert ask()


def test_a_run_gives_way_to_what_waits_for_its_pool(world: World, tmp_path: Path) -> None:
    job = world.defs.resolve_job_def("apply_orders")
    with DagsterInstance.local_temp(str(tmp_path)) as instance:  # the one in memory has no pools
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        now = iter(range(0, 1000, 10))
        run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        ask = told_to_end(instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
        assert storage.claim_concurrency_slot(POOL, run.run_id, "orders").is_claimed
        assert not ask()
        assert not storage.claim_concurrency_slot(POOL, "rebuild", "rebuild").is_claimed
        assert ask()


def test_a_run_with_a_backlog_ends_between_two_chunks(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staying_runs, "ASK_EVERY_SECONDS", 0.0)

    def end(call: int) -> None:
        [record] = world.instance.get_run_records()
        world.instance.add_run_tags(record.dagster_run.run_id, {END_TAG: "test"})

    world = make_world(calling(end), apply_settings=ApplySettings(chunk_bytes=1))
    for number in range(3):
        world.put(f"k{number}")
        [request] = world.tick().requests
    result = world.run("apply_orders", tags=request.tags)
    assert result.success
    assert world.rows() == {"k0": "placed"}
    assert world.tick().requests


def test_a_run_looks_at_its_tags_now_and_then(world: World) -> None:
    run = world.instance.create_run_for_job(
        world.defs.resolve_job_def("apply_orders"), status=DagsterRunStatus.STARTED
    )
    now = [0.0]
    ask = told_to_end(world.instance, run.run_id, [POOL], world.clock, lambda: now[0])
    world.instance.add_run_tags(run.run_id, {END_TAG: "test"})
    assert not ask()
    now[0] = staying_runs.ASK_EVERY_SECONDS
    assert ask()
    now[0] += 1.0
    assert ask()


def test_what_the_schema_check_told_stands_at_the_end_of_the_run(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders"))},
    )
    def orders(changes):  # type: ignore[no-untyped-def]
        return changes.select(*ITEM_COLUMNS, "dynamodb.NewImage.total.S as total")

    world = make_world(orders, apply_settings=QUICKLY_IDLE)
    world.put("a", total={"N": "1"})
    result = requested(world)
    assert [one["records_read"] for one in materializations(result)] == [1, 0]
    schema = [one for one in result.get_asset_check_evaluations() if one.check_name == "schema"]
    assert [one.passed for one in schema] == [False, False]


def test_what_was_committed_is_told_although_the_run_fails(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_later(call: int) -> None:
        if call == 3:
            raise ValueError("boom")
        world.put(f"k{call}")
        world.tick()

    world = make_world(calling(fail_later), apply_settings=QUICKLY_IDLE)
    world.put("first")
    [request] = world.tick().requests
    result = world.run("apply_orders", tags=request.tags, raise_on_error=False)
    assert not result.success
    assert [one["records_read"] for one in materializations(result)] == [1, 1]
    assert set(world.rows()) == {"first", "k1"}


def test_a_storage_that_does_not_answer_ends_no_run(world: World, tmp_path: Path) -> None:
    job = world.defs.resolve_job_def("apply_orders")
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        now = iter(range(0, 1000, 10))
        run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        ask = told_to_end(instance, run.run_id, [POOL], world.clock, lambda: float(next(now)))
        [database] = (tmp_path / "home").rglob("runs.db")
        content = database.read_bytes()
        database.write_bytes(b"no database" * 100)
        assert not ask()
        database.write_bytes(content)
        instance.add_run_tags(run.run_id, {END_TAG: "test"})
        assert ask()


def test_a_run_shows_the_newest_commits_once(make_world: MakeWorld) -> None:
    def land_more(call: int) -> None:
        if call == 1:
            world.put("first", "paid")
            world.tick()

    world = make_world(calling(land_more), apply_settings=QUICKLY_IDLE)
    world.put("first")
    *before, last = materializations(requested(world))
    assert len(before) == 1
    assert "table_history" not in before[0]
    lines = last["table_history"].splitlines()
    newest = [line.split("|")[1:] for line in lines[2:4]]
    assert [[cell.strip() for cell in (one[2], *one[3:6])] for one in newest] == [
        ["MERGE", "0", "1", "0"],
        ["MERGE", "1", "0", "0"],
    ]


def test_a_run_that_is_terminated_ends_at_once_and_the_next_one_goes_on(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by *Terminate* in the UI, or by a deployment: both interrupt the process of the run."""
    world = make_world(calling(lambda _: None), apply_settings=ApplySettings(idle_seconds=600))
    world.put("first")
    [request] = world.tick().requests
    looks = iter(range(100))

    def interrupt() -> bool:
        if next(looks) == 5:  # the run waits for changes
            os.kill(os.getpid(), signal.SIGINT)
        return False

    monkeypatch.setattr(assets, "told_to_end", lambda *_: interrupt)
    with pytest.raises(DagsterExecutionInterruptedError):
        world.run("apply_orders", tags=request.tags)
    assert next(looks) == 6
    monkeypatch.undo()
    [record] = world.instance.get_run_records()
    assert record.dagster_run.is_finished
    world.put("later")
    world.clock.advance(timedelta(minutes=1))
    world.run_until_idle()
    assert world.rows() == {"first": "placed", "later": "placed"}
