"""The drain sensor: rows, checks, run requests, and a cursor that is only a hint."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta

import pytest
from dagster import (
    AssetKey,
    DagsterRunStatus,
    DefaultSensorStatus,
    SensorDefinition,
)
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dagster_glue.runs.job_runs import ACTIVE
from datazone_dagster.errors import (
    AccessDeniedError,
    DefinitionError,
    ServiceUnavailableError,
    SourceMismatchError,
    TransformError,
)
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.pipeline import DrainSettings
from datazone_dagster.process import shutdown
from datazone_dagster.testing import Fault, FaultKind, FaultPlan
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    KEYS,
    SOURCE,
    MakeWorld,
    ScriptedResource,
    World,
    orders_transform,
)


def sensor_of(world: World) -> SensorDefinition:
    return world.defs.resolve_sensor_def("drain_orders")


def test_a_tick_drains_a_run_applies_and_the_rows_are_there(world: World) -> None:
    world.put("a")
    world.put("b", "paid")
    tick = world.tick()
    assert [request.job_name for request in tick.requests] == ["apply_orders"]
    assert tick.requests[0].tags["datazone/source"] == "orders"
    [materialization] = tick.materializations()
    assert materialization.asset_key == AssetKey(["dynamodb", "orders"])
    assert materialization.metadata["records_landed"].value == 2

    result = world.run("apply_orders")
    assert world.rows() == {"a": "placed", "b": "paid"}
    checks = {one.asset_check_key: one for one in result.get_asset_check_evaluations()}
    assert checks[KEYS.dataset_check("orders", "lag")].passed

    world.stream.delete({"id": {"S": "a"}})
    world.put("b", "shipped")
    world.run_until_idle()
    assert world.rows() == {"b": "shipped"}


def test_it_runs_every_five_seconds_by_default(world: World) -> None:
    sensor = sensor_of(world)
    assert sensor.minimum_interval_seconds == 5
    assert sensor.default_status is DefaultSensorStatus.RUNNING


def test_an_idle_tick_gives_a_reason_and_writes_no_materialization(world: World) -> None:
    world.put("a")
    world.run_until_idle()
    before = len(_materializations(world))
    tick = world.tick()
    assert tick.skip == "Caught up, 1 shard open"
    assert not tick.materializations()
    assert len(_materializations(world)) == before == 1


def _materializations(world: World) -> list[object]:
    key = AssetKey(["dynamodb", "orders"])
    return list(world.instance.fetch_materializations(key, limit=100).records)


def begin_next_second() -> None:
    """Wait until rows that Dagster stores, with whole seconds, are later than those before."""
    until = int(time.time()) + 1
    while time.time() < until:
        time.sleep(0.01)


def test_checks_are_written_every_thirty_seconds_under_traffic_and_rarely_when_idle(
    world: World,
) -> None:
    always = {"dynamodb/orders:stream_health", "orders:lag"}
    rarely = {"dynamodb/orders:headroom", "dynamodb/orders:snapshot"}
    assert set(world.tick().checks()) == always | rarely
    world.clock.advance(timedelta(seconds=25))
    world.put("a")
    assert not world.tick().checks()
    world.clock.advance(timedelta(seconds=6))
    world.put("b")
    assert set(world.tick().checks()) == always
    world.run("apply_orders")
    begin_next_second()
    world.clock.advance(timedelta(seconds=31))
    assert set(world.tick().checks()) == always  # once more, now that all is quiet
    world.clock.advance(timedelta(minutes=29))
    assert not world.tick().checks()
    world.clock.advance(timedelta(minutes=1))
    assert set(world.tick().checks()) == always
    world.clock.advance(timedelta(hours=1))
    assert set(world.tick().checks()) == always | rarely


def test_a_level_that_changes_is_written_at_once(world: World) -> None:
    world.tick()
    world.put("a")
    world.tick()
    world.clock.advance(timedelta(seconds=29))
    assert not world.tick().checks()
    world.clock.advance(timedelta(seconds=31))
    warned = world.tick().checks()["orders:lag"]
    assert (warned.passed, warned.severity.value) == (False, "WARN")
    world.clock.advance(timedelta(minutes=4))
    late = world.tick().checks()["orders:lag"]
    assert (late.passed, late.severity.value) == (False, "ERROR")
    assert late.metadata["lag_seconds"].value == 300.0
    world.run("apply_orders")
    assert world.tick().checks()["orders:lag"].passed


LONG_AGO = '{"v":2,"caught_up":1600000000,"evaluated":1600000000}'
CURSORS = [
    *["", "garbage", "[]", '{"v":2,"caught_up":1e300,"levels":[1]}', '{"v":99}', "9" * 5000],
    LONG_AGO,
    None,
]


def test_no_cursor_loses_or_duplicates_changes(world: World) -> None:
    world.put("a")
    world.run_until_idle()
    for number, cursor in enumerate(CURSORS):
        world.put("b", str(number))
        world.put(f"c{number}")
        world.cursors["drain_orders"] = cursor
        world.run_until_idle()
        placed = dict.fromkeys(["a", *(f"c{one}" for one in range(number + 1))], "placed")
        assert world.rows() == {**placed, "b": str(number)}, cursor


def test_the_cursor_stays_under_a_kilobyte_with_many_datasets_behind(
    make_world: MakeWorld,
) -> None:
    world = make_world(*(orders_transform(f"orders_by_warehouse_{n:03}") for n in range(60)))
    world.put("a")
    world.tick()
    world.clock.advance(timedelta(minutes=10))
    tick = world.tick()
    assert len(tick.cursor or "") <= 1_000
    world.clock.advance(timedelta(seconds=10))
    assert not world.tick().checks()


def test_one_run_at_a_time_is_requested(world: World) -> None:
    world.put("a")
    assert world.tick().requests
    assert DagsterRunStatus.QUEUED in ACTIVE  # only a daemon can make one of those
    for status in (
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
    ):
        run = world.instance.create_run_for_job(
            world.defs.resolve_job_def("apply_orders"), status=status
        )
        tick = world.tick()
        assert not tick.requests, status
        assert "apply_orders is running or queued" in (tick.skip or "")
        world.instance.delete_run(run.run_id)
    assert world.tick().requests


def test_a_failing_transform_is_retried_after_a_wait_that_doubles(
    make_world: MakeWorld,
) -> None:
    fixed: list[bool] = []

    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("broken"))},
    )
    def broken(changes):  # type: ignore[no-untyped-def]
        if not fixed:
            raise ValueError("boom")
        return changes.select(*ITEM_COLUMNS)

    world = make_world(broken, orders_transform())
    world.put("a")
    assert len(world.tick().requests) == 2
    assert not world.run("apply_broken", raise_on_error=False).success
    world.run("apply_orders")
    assert world.rows() == {"a": "placed"}  # the other one goes on

    tick = world.tick()
    assert not tick.requests
    assert "broken failed once and is retried in" in (tick.skip or "")
    world.clock.advance(timedelta(seconds=20))
    assert [one.job_name for one in world.tick().requests] == ["apply_broken"]
    world.run("apply_broken", raise_on_error=False)
    world.clock.advance(timedelta(seconds=5))
    assert "failed 2 times in a row" in (world.tick().skip or "")
    world.clock.advance(timedelta(minutes=5))
    fixed.append(True)
    world.run_until_idle()
    assert world.rows("broken") == {"a": "placed"}


def test_a_failed_run_names_its_cause(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("broken"))},
    )
    def broken(changes):  # type: ignore[no-untyped-def]
        raise ValueError("boom")

    world = make_world(broken)
    world.put("a")
    world.tick()
    with pytest.raises(TransformError, match="boom"):
        world.run("apply_broken")


def test_a_lookup_without_a_table_is_waited_for(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={
            "changes": Input(Stream(source=SOURCE)),
            "known": Input(Dataset("orders")),
        },
        output_mapping={"rows": Output(Dataset("joined"))},
    )
    def joined(changes, known):  # type: ignore[no-untyped-def]
        return changes.select(*ITEM_COLUMNS)

    world = make_world(joined, orders_transform())
    world.put("a")
    tick = world.tick()
    assert [request.job_name for request in tick.requests] == ["apply_orders"]
    world.run("apply_orders")
    assert [request.job_name for request in world.tick().requests] == ["apply_joined"]
    world.run("apply_joined")
    assert world.rows("joined") == {"a": "placed"}
    world.put("b")
    world.run("apply_orders")
    [*_, entry] = sorted((world.root / "lake" / "orders" / "_delta_log").glob("*.json"))
    entry.write_text("not a log")
    tick = world.tick()
    assert not tick.requests
    assert "joined waits for its lookups, which can't be opened" in (tick.skip or "")


def fail_with(world: World, error: Exception | None) -> None:
    world.stream.faults = (lambda *_: error) if error else None  # type: ignore[assignment]


def test_a_stream_that_cannot_be_read_fails_the_tick_and_the_check(world: World) -> None:
    world.put("a")
    world.run_until_idle()
    fail_with(world, AccessDeniedError("dynamodb:ListStreams is missing"))
    with pytest.raises(AccessDeniedError):
        world.tick()
    health = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert health is not None
    assert (health.passed, health.severity.value) == (False, "ERROR")
    assert "dynamodb:ListStreams" in (health.description or "")

    count = _evaluation_id(world)
    world.clock.advance(timedelta(seconds=5))
    with pytest.raises(AccessDeniedError):
        world.tick()
    assert _evaluation_id(world) == count  # no event per failing tick

    fail_with(world, None)
    world.tick()
    recovered = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert recovered is not None
    assert recovered.passed


def _evaluation_id(world: World) -> int:
    record = world.instance.get_latest_asset_check_evaluation_record(
        KEYS.source_check(SOURCE, "stream_health")
    )
    assert record is not None
    return record.id


def test_a_failing_drain_does_not_delay_earlier_batches(world: World) -> None:
    world.put("a")
    world.tick()  # the run request is lost
    fail_with(world, ServiceUnavailableError("no network"))
    tick = world.tick()
    assert [request.job_name for request in tick.requests] == ["apply_orders"]
    assert not tick.checks()["dynamodb/orders:stream_health"].passed
    world.run("apply_orders")
    with pytest.raises(ServiceUnavailableError):
        world.tick()


@pytest.mark.parametrize("reset", [False, True])
def test_a_stuck_drain_makes_its_datasets_late(world: World, reset: bool) -> None:
    world.put("a")
    world.run_until_idle()
    fail_with(world, ServiceUnavailableError("no network"))
    for _ in range(7):
        world.clock.advance(timedelta(seconds=50))
        if reset:
            world.cursors.clear()
            world.__post_init__()  # the code server restarts, too
        with pytest.raises(ServiceUnavailableError):
            world.tick()
    late = world.latest(KEYS.dataset_check("orders", "lag"))
    assert late is not None
    assert (late.passed, late.severity.value) == (False, "ERROR")
    assert "last read to its end 5 min 50 s ago" in (late.description or "")
    assert late.metadata["unlanded_seconds"].value == 350.0

    # A run by hand sees the same, though it has nothing to apply.
    of_run = world.run("apply_orders").get_asset_check_evaluations()[0]
    assert not of_run.passed

    fail_with(world, None)
    assert world.tick().checks()["orders:lag"].passed


def test_a_poisoned_shard_is_reported_while_the_others_go_on(world: World) -> None:
    for number in range(8):
        world.put(f"before-{number}")
    world.run_until_idle()
    world.stream.split()
    poisoned = world.stream.shard_ids()[1]
    world.stream.faults = FaultPlan(
        [Fault("GetRecords", FaultKind.INTERNAL_ERROR, shard=poisoned, times=None)]
    )
    for number in range(8):
        world.put(f"after-{number}")
    world.run_until_idle()
    check = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert check is not None
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert poisoned in (check.description or "")
    assert 8 < len(world.rows()) < 16, "the other shard has to go on"

    world.clock.advance(timedelta(minutes=2))
    check = world.tick().checks()["dynamodb/orders:stream_health"]
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert check.metadata["shards_failing"].value == 1

    world.stream.faults = None
    world.run_until_idle()
    assert len(world.rows()) == 16
    health = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert health is not None
    assert health.passed


def test_lost_changes_fail_the_stream_check_by_name(world: World) -> None:
    world.put("a")
    world.run_until_idle()
    world.stream.roll()
    world.put("b")
    world.stream.trim()
    tick = world.tick()
    gap = world.latest(KEYS.source_check(SOURCE, "stream_health"))
    assert gap is not None
    assert not gap.passed
    assert gap.severity.value == "ERROR"
    assert "shardId-" in (gap.description or "")
    assert tick.materializations() == []


def test_one_client_serves_all_ticks(world: World) -> None:
    for _ in range(3):
        world.tick()
    assert ScriptedResource.built == ["orders"]


def test_the_cursor_holds_no_positions(world: World) -> None:
    world.put("a")
    cursor = json.loads(world.tick().cursor or "")
    assert set(cursor) == {*("v", "caught_up", "evaluated", "hourly", "polled", "newest")}
    assert len(world.cursors["drain_orders"] or "") < 120


def test_the_tick_after_a_lost_request_requests_again(world: World) -> None:
    world.put("a")
    assert world.tick().requests
    assert world.tick().requests
    world.run("apply_orders")
    world.run("apply_orders")
    assert not world.tick().requests
    assert world.rows() == {"a": "placed"}


def test_only_applied_changes_past_their_retention_are_removed(make_world: MakeWorld) -> None:
    world = make_world(drain_settings=DrainSettings(keep_changes=timedelta(days=3)))
    world.put("a")
    world.tick()
    world.clock.advance(timedelta(days=4))
    world.put("b")
    world.tick()
    assert _stored_changes(world) == 2  # both wait for the dataset
    world.run_until_idle()
    world.tick()
    assert _stored_changes(world) == 2  # truncation runs once an hour
    world.clock.advance(timedelta(hours=1))
    world.tick()
    assert _stored_changes(world) == 1
    world.put("a", "paid")
    world.run_until_idle()
    assert world.rows() == {"a": "paid", "b": "placed"}


def test_changes_are_retained_for_good_by_default(world: World) -> None:
    world.put("a")
    world.run_until_idle()
    world.clock.advance(timedelta(days=400))
    world.tick()
    assert _stored_changes(world) == 1
    with pytest.raises(DefinitionError, match="2 days or more"):
        DrainSettings(keep_changes=timedelta(hours=47))


def _stored_changes(world: World) -> int:
    table = DeltaTable(world.layout.change_log("orders"))
    return len(table.to_pyarrow_table(columns=["batch"]))


def test_a_tick_with_several_batches_reports_them_as_one(make_world: MakeWorld) -> None:
    world = make_world(drain_settings=DrainSettings(budget_bytes=1, max_workers=1))
    world.stream._page_records = 2
    for key in "abcde":
        world.put(key)
    tick = world.tick()
    [materialization] = tick.materializations()
    assert materialization.description == "Batches 1 to 3: 5 records."
    assert materialization.metadata["records_landed"].value == 5
    world.run_until_idle()
    assert set(world.rows()) == set("abcde")


def test_a_change_log_of_another_table_fails_the_tick_and_requests_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes that wait there are not those of this code location."""
    world.put("a")
    world.tick()
    log = ChangeLog(world.layout, "orders").open()
    assert log is not None
    log.record_owner(
        SourceIdentity("orders", table_arn="arn:aws:dynamodb:us-east-1:1:table/orders")
    )
    found = SourceIdentity("orders", table_arn="arn:aws:dynamodb:eu-west-1:1:table/orders")
    monkeypatch.setattr(world.stream, "identity", lambda: found, raising=False)
    with pytest.raises(SourceMismatchError, match=r"us-east-1.*eu-west-1.*name="):
        world.tick()


def test_a_change_log_shows_its_shards_as_a_picture(world: World) -> None:
    world.put("a")
    [materialization] = world.tick().materializations()
    shards = materialization.metadata["shards"].value
    assert isinstance(shards, str)
    # Dagster's pages render an image of a data URI in Markdown, not one in HTML.
    assert shards.startswith("Shards: 1 open\n\n![1 open](data:image/svg+xml;base64,")


def test_a_tick_whose_process_was_told_to_end_says_why_it_read_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    told.set()
    world.put("first")
    with monkeypatch.context() as patched:
        patched.setattr(shutdown, "_requested", told)
        tick = world.tick()
    assert not tick.requests
    assert tick.skip is not None
    assert tick.skip.startswith("Reads no further, as its process was told to end")
    assert world.tick().requests
