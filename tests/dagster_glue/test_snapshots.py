"""The snapshot of a source in Dagster: the sensor starts it, a run shows how it gets on."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from dagster import DagsterRunStatus, Definitions
from deltalake import DeltaTable, write_deltalake

from datazone_dagster import Dataset, Input, Output, Stream, Transform, build_definitions, transform
from datazone_dagster.dagster_glue.names import LAKEHOUSE_TAG
from datazone_dagster.errors import AccessDeniedError
from datazone_dagster.model.snapshot_state import SETTLE, Phase
from datazone_dagster.pipeline import (
    SnapshotSettings,
    cancel_snapshot,
    gap_notes,
    open_gaps,
    read_dataset,
    snapshot_status,
    want_exports,
    want_snapshot,
)
from datazone_dagster.sources import DynamoDBSource
from tests.dagster_glue.conftest import ITEM_COLUMNS, KEYS, MakeWorld, Tick, World
from tests.dagster_glue.locations import run_in

SOURCE = DynamoDBSource("orders", start="snapshot")
JOB = "snapshot_orders"
DENIED = (
    "Allow the IAM action dynamodb:Scan on table/orders. "
    'A source with start="trim_horizon" or "latest" reads no items.'
)


def copied(name: str = "orders") -> Transform:
    @transform(
        name=name,
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset(name))},
    )
    def orders(changes: Any) -> object:
        return changes.select(*ITEM_COLUMNS)

    return orders


def world_of(make_world: MakeWorld, *transforms: Transform, before: int = 30) -> World:
    world = make_world(
        *(transforms or (copied(),)),
        snapshot_settings=SnapshotSettings(run_waits_seconds=0, sweep_limit=1.0),
    )
    for number in range(before):
        world.table.put_unseen({"id": {"S": f"old{number}"}, "status": {"S": "placed"}})
    return world


def test_a_snapshot_of_another_lakehouse_holds_nobody_up(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    world.location = "shop"
    run_in(world.instance, "eu", JOB, {LAKEHOUSE_TAG: "s3://eu"})
    cancelled = run_in(world.instance, "eu", JOB, {LAKEHOUSE_TAG: "s3://eu"})
    world.instance.report_run_canceled(cancelled)
    [request] = world.tick().requests
    assert (request.job_name, request.tags[LAKEHOUSE_TAG]) == (JOB, world.layout.uri)
    run_in(world.instance, "shop", JOB, request.tags)
    assert jobs_of(world.tick()) == []


def jobs_of(tick: Tick) -> list[str | None]:
    return [request.job_name for request in tick.requests]


def take(world: World, tick: Tick) -> None:
    for request in tick.requests:
        assert request.job_name is not None
        world.run(request.job_name)


def last_observation(world: World) -> dict[str, Any]:
    """Metadata of the last observation of the change log in a run."""
    found = [one for one in world.run(JOB).all_events if one.is_asset_observation]
    metadata = found[-1].asset_observation_data.asset_observation.metadata
    return {name: value.value for name, value in metadata.items()}


def hand_over(world: World) -> None:
    for _ in range(12):
        take(world, world.tick())
        snapshot = snapshot_status("orders", world.layout)
        if snapshot is not None and snapshot.is_over:
            world.run_until_idle()
            return
        world.clock.advance(SETTLE + timedelta(seconds=2))
    raise AssertionError("the snapshot never ends")


def expected(world: World) -> dict[str, str]:
    return {one["id"]["S"]: one["status"]["S"] for one in world.stream.items.values()}


def test_a_new_source_gets_its_snapshot_and_says_since_when_it_is_consistent(
    make_world: MakeWorld,
) -> None:
    world = world_of(make_world)
    world.put("new")
    tick = world.tick()
    assert JOB in jobs_of(tick)
    assert not tick.checks()["orders:complete"].passed
    hand_over(world)
    assert world.rows() == expected(world)
    assert len(world.rows()) == 31
    check = world.latest(KEYS.dataset_check("orders", "complete"))
    assert check is not None
    assert check.passed
    assert "Consistent with the table since" in (check.description or "")
    assert "consistent_since" in check.metadata
    assert JOB not in jobs_of(world.tick())


def test_a_run_shows_how_far_it_got(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    world.tick()
    first = last_observation(world)
    assert first["snapshot_phase"] == "announced"
    assert "drain" in first["waits_for"]
    assert first["read_units_estimated"] > 0
    assert "price_estimated" in first
    world.clock.advance(SETTLE + timedelta(seconds=2))
    world.tick()
    last = last_observation(world)
    assert last["rows_scanned"] == 30
    assert last["percent"] == 100.0
    assert last["read_units_used"] > 0


def test_the_end_of_a_snapshot_is_told_once(make_world: MakeWorld) -> None:
    world = world_of(make_world, before=1)
    logged: list[str] = []
    observed: list[str] = []
    while not any("is complete" in one for one in logged):
        for request in world.tick().requests:
            result = world.run(request.job_name or "")
            for entry in world.instance.all_logs(result.run_id):
                event = entry.dagster_event
                logged += [entry.user_message] if event is None else []
                if event is not None and event.is_asset_observation:
                    seen = event.asset_observation_data.asset_observation
                    observed.append(seen.description or "")
        world.clock.advance(SETTLE + timedelta(seconds=2))
    assert [len([one for one in told if "is complete" in one]) for told in (logged, observed)] == [
        1,
        1,
    ]


def test_one_run_at_a_time(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    assert jobs_of(world.tick()) == [JOB]
    run = world.instance.create_run_for_job(
        world.defs.resolve_job_def("resync_orders"), status=DagsterRunStatus.STARTING
    )
    tick = world.tick()
    assert jobs_of(tick) == []
    assert "running or queued" in str(tick.skip)
    world.instance.delete_run(run.run_id)
    assert jobs_of(world.tick()) == [JOB]


def test_no_run_is_started_for_a_snapshot_that_waits_for_an_export(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    tick = world.tick()
    assert jobs_of(tick) == [JOB]
    want_exports(SOURCE.name, world.layout)
    world.clock.advance(timedelta(minutes=10))
    assert jobs_of(world.tick()) == []


def test_a_run_that_only_waited_is_followed_by_longer_and_longer_pauses(
    make_world: MakeWorld,
) -> None:
    world = world_of(make_world)
    world.tick()
    for pause in (15, 30, 60):
        world.run(JOB)
        assert jobs_of(world.tick()) == []
        world.clock.now = world.clock.now.replace(microsecond=0) + timedelta(seconds=pause + 3)
        if pause < 60:
            assert jobs_of(world.tick()) == [JOB]


def test_a_cancelled_run_is_not_started_again_until_someone_says_so(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    world.tick()
    run = world.instance.create_run_for_job(
        world.defs.resolve_job_def(JOB), status=DagsterRunStatus.STARTED
    )
    world.instance.report_run_canceling(run)
    world.instance.report_run_canceled(run)
    world.clock.advance(timedelta(hours=1))
    tick = world.tick()
    assert jobs_of(tick) == []
    assert "cancelled by hand" in str(tick.skip)
    health = tick.checks()["dynamodb/orders:stream_health"]
    assert "datazone-dagster resync orders" in (health.description or "")

    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    assert jobs_of(world.tick()) == [JOB]
    hand_over(world)
    assert world.rows() == expected(world)


def test_without_the_actions_the_run_and_the_check_say_which_start_needs_none(
    make_world: MakeWorld,
) -> None:
    def deny(operation: str, _: int) -> None:
        if operation == "Scan":
            raise AccessDeniedError("Scan of table 'orders': access denied.", hint=DENIED)

    world = world_of(make_world)
    world.tick()
    world.run(JOB)
    world.clock.advance(SETTLE + timedelta(seconds=2))
    world.tick()
    world.table.fault = deny
    # The first one still gets on: it starts the scan. The clock is ahead of Dagster's by a minute.
    for _ in range(5):
        result = world.run(JOB, raise_on_error=False)
        assert not result.success
        [failure] = result.get_step_failure_events()
        assert "trim_horizon" in str(failure.step_failure_data.error)
    tick = world.tick()
    assert jobs_of(tick) == []
    assert "goes on in" in str(tick.skip)
    health = tick.checks()["dynamodb/orders:stream_health"]
    assert not health.passed
    assert "trim_horizon" in (health.description or "")
    world.table.fault = lambda operation, number: None
    world.clock.advance(timedelta(minutes=20))
    hand_over(world)
    assert world.rows() == expected(world)


def test_a_change_log_of_an_older_version_gets_no_snapshot(make_world: MakeWorld) -> None:
    @transform(
        name="orders",
        input_mapping={
            "changes": Input(Stream(source=DynamoDBSource("orders", start="trim_horizon")))
        },
        output_mapping={"rows": Output(Dataset("orders"))},
    )
    def earlier(changes: Any) -> object:
        return changes.select(*ITEM_COLUMNS)

    old = make_world(earlier)
    old.put("a")
    old.run_until_idle()
    world = world_of(make_world)
    world.stream = old.stream
    world.put("b")
    assert JOB not in jobs_of(world.tick())


def test_a_run_that_stops_with_a_question_takes_the_answer(make_world: MakeWorld) -> None:
    world = make_world(copied(), snapshot_settings=SnapshotSettings(run_waits_seconds=0))
    for number in range(4):
        world.put(f"k{number}")
    hand_over(world)
    for number in range(3):
        world.table.delete_unseen({"id": {"S": f"k{number}"}})
    want_snapshot("orders", world.layout, "resync")  # at the time by which Dagster's runs end
    with pytest.raises(Exception, match="sweep_limit"):
        hand_over(world)
    tick = world.tick()
    assert jobs_of(tick) == []
    assert "stopped with a question" in str(tick.skip)
    assert not tick.checks()["dynamodb/orders:stream_health"].passed
    job = world.defs.resolve_job_def(JOB)
    answer = {"ops": {f"{JOB}_op": {"config": {"sweep_limit": 1.0}}}}
    assert job.execute_in_process(instance=world.instance, run_config=answer).success
    world.run_until_idle()
    assert world.rows() == expected(world)
    assert len(world.rows()) == 1


def test_merged_calls_share_the_jobs_and_wait_for_the_datasets_of_both(
    make_world: MakeWorld,
) -> None:
    world = world_of(make_world, copied("one"), copied("two"))
    hand_over(world)
    assert world.rows("one") == world.rows("two") == expected(world)
    # Names that no other test has: Dagster keeps some definitions of other tests alive.
    first, second = copied("first_copy"), copied("second_copy")
    merged = Definitions.merge(build_definitions([first]), build_definitions([second]))
    assert merged.resolve_job_def(JOB)
    assert merged.resolve_job_def("resync_orders")


def test_the_resync_job_takes_a_new_snapshot(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    hand_over(world)
    before = snapshot_status("orders", world.layout)
    world.table.put_unseen({"id": {"S": "lost"}, "status": {"S": "paid"}})
    world.run("resync_orders")
    after = snapshot_status("orders", world.layout)
    assert before is not None
    assert after is not None
    assert after.phase is Phase.ANNOUNCED
    assert after.epoch == before.epoch + 1
    world.clock.advance(SETTLE + timedelta(seconds=2))
    hand_over(world)
    assert world.rows() == expected(world)
    assert world.rows()["lost"] == "paid"


def test_the_run_that_hands_over_audits_a_sample(make_world: MakeWorld) -> None:
    world = world_of(make_world)
    world.put("new")
    world.tick()
    hand_over(world)
    seen = last_observation(world)
    assert (seen["audit_result"], seen["audit_items"]) == ("clean", 31)
    assert (seen["audit_missing"], seen["audit_extra"], seen["audit_stale"]) == (0, 0, 0)
    DeltaTable(world.layout.dataset("orders")).delete("id = 'old3'")
    result = world.run(JOB)
    assert result.success, "without a drain it is undecided, not an alarm"
    assert last_observation(world)["audit_undecided"] == 1
    row = read_dataset(world.layout, "orders").slice(0, 1)
    at = row.column_names.index("_dz_key")
    unkeyed = row.set_column(at, "_dz_key", pa.array([None], pa.string()))
    write_deltalake(world.layout.dataset("orders"), unkeyed, mode="append")
    assert not world.run(JOB, raise_on_error=False).success, "a difference that needs no drain"


def lose_changes(world: World) -> None:
    """An item changes and one is deleted while nobody drains for more than a day."""
    world.clock.advance(timedelta(hours=26))
    world.put("a", "lost")
    world.stream.delete({"id": {"S": "b"}})
    world.stream.trim()
    world.put("c")


def world_with_gap(make_world: MakeWorld, *, mode: Any = "merge", **on_gap: Any) -> World:
    source = DynamoDBSource("orders", start="trim_horizon", **on_gap)

    @transform(
        name="orders",
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset("orders", mode=mode))},
    )
    def orders(changes: Any) -> object:
        return changes.select(*ITEM_COLUMNS)

    world = make_world(
        orders, snapshot_settings=SnapshotSettings(run_waits_seconds=0, sweep_limit=1.0)
    )
    for key in ("a", "b"):
        world.put(key)
    world.run_until_idle()
    lose_changes(world)
    return world


BUDGET = {"on_gap": "resync", "resync_max_items": 10, "resync_max_read_units": 10}


def test_a_gap_within_the_budget_is_repaired_by_itself(make_world: MakeWorld) -> None:
    world = world_with_gap(make_world, **BUDGET)
    health = world.tick().checks()["dynamodb/orders:stream_health"]
    assert "resync was asked for" in (health.description or "")
    assert open_gaps("orders", world.layout)
    hand_over(world)
    assert open_gaps("orders", world.layout) == ()
    [note] = gap_notes("orders", world.layout)
    snapshot = snapshot_status("orders", world.layout)
    assert snapshot is not None
    assert note.is_repaired
    assert note.accepted_by == f"resync {snapshot.id}"
    assert world.rows() == expected(world) == {"a": "lost", "c": "placed"}
    tick = world.tick()
    assert JOB not in jobs_of(tick)
    check = world.latest(KEYS.dataset_check("orders", "complete"))
    assert check is not None
    assert check.passed


@pytest.mark.parametrize(
    ("on_gap", "why"),
    [
        ({}, ""),
        ({**BUDGET, "resync_max_items": 1}, "resync_max_items is 1"),
        ({**BUDGET, "resync_max_read_units": 0.001}, "resync_max_read_units is 0"),
    ],
)
def test_a_gap_over_the_budget_waits_for_somebody(
    make_world: MakeWorld, on_gap: dict[str, Any], why: str
) -> None:
    world = world_with_gap(make_world, **on_gap)
    tick = world.tick()
    assert why in (tick.checks()["dynamodb/orders:stream_health"].description or "")
    assert JOB not in jobs_of(world.tick())
    assert open_gaps("orders", world.layout)
    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    hand_over(world)
    assert open_gaps("orders", world.layout) == ()
    assert world.rows() == expected(world)


@pytest.mark.parametrize("behind_seconds", [0, 30])
def test_a_resync_that_was_given_up_is_not_asked_for_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, behind_seconds: int
) -> None:
    """Also where the clock of the machine is behind that of the service, which dates gaps."""
    world = world_with_gap(make_world, **BUDGET)
    behind = timedelta(seconds=behind_seconds)
    monkeypatch.setattr(
        world.stream, "told_time", lambda: (world.clock() + behind, time.monotonic())
    )
    world.tick()
    cancel_snapshot("orders", world.layout)
    world.clock.advance(timedelta(minutes=1))
    assert JOB not in jobs_of(world.tick())
    snapshot = snapshot_status("orders", world.layout)
    assert snapshot is not None
    assert snapshot.phase is Phase.CANCELLED


def test_a_history_says_where_its_states_are_unknown(make_world: MakeWorld) -> None:
    world = world_with_gap(make_world, mode="history", **BUDGET)
    world.tick()
    hand_over(world)
    world.put("d")
    world.run_until_idle()
    check = world.latest(KEYS.dataset_check("orders", "complete"))
    snapshot = snapshot_status("orders", world.layout)
    assert check is not None
    assert snapshot is not None
    unknown = str(check.metadata["states_unknown"].value)
    assert snapshot.id in unknown
    assert " UTC to " in unknown
