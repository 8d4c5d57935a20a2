"""Checks of tables and change logs: small files, unique keys, headroom, snapshot."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
from dagster import AssetCheckEvaluation, AssetCheckKey, AssetKey
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.dataset.key_report import key_report
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe.headroom import headroom_status
from datazone_dagster.observe.health import StreamHealth
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.table_status import small_files_status
from datazone_dagster.pipeline import SnapshotSettings
from datazone_dagster.sources import DynamoDBSource
from tests.dagster_glue.conftest import KEYS, SOURCE, MakeWorld, World, orders_transform


def latest(world: World, key: AssetKey, name: str) -> AssetCheckEvaluation:
    found = world.latest(AssetCheckKey(key, name))
    assert found is not None
    return found


def doubled(uri: str) -> None:
    """Append a row of a key again, with another version: what another program may do."""
    rows = DeltaTable(uri).to_pyarrow_table().slice(0, 1)
    at = rows.column_names.index("_dz_version")
    write_deltalake(uri, rows.set_column(at, "_dz_version", [["9" * 50]]), mode="append")


@pytest.mark.parametrize("mode", ["merge", "history"])
def test_keys_with_rows_of_several_changes_fail_at_night_until_they_are_gone(
    make_world: MakeWorld, mode: str
) -> None:
    world = make_world(orders_transform(mode=mode))
    world.put("a")
    world.put("b")
    world.run_until_idle()
    world.put("a", "paid")  # in a history, a second row of the same key
    world.run_until_idle()
    last = latest(world, KEYS.dataset("orders"), "unique_keys")
    assert (last.passed, last.description) == (
        True,
        "Not checked yet: the nightly maintenance checks it, and so does a run of this check "
        "alone.",
    )
    world.run("datazone_maintenance")
    last = latest(world, KEYS.dataset("orders"), "unique_keys")
    assert (last.passed, last.metadata["keys"].value) == (True, 2)
    doubled(f"{world.layout.uri}/orders")
    world.run("datazone_maintenance")
    last = latest(world, KEYS.dataset("orders"), "unique_keys")
    assert (last.passed, last.metadata["keys_doubled"].value) == (False, 1)
    assert "1 of 2 keys have rows of several changes at once" in (last.description or "")
    # A run that reads no keys does not clear it.
    world.put("c")
    world.run_until_idle()
    assert not latest(world, KEYS.dataset("orders"), "unique_keys").passed


def test_keys_are_read_by_a_run_of_the_check_alone(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("a")
    world.run_until_idle()
    key = AssetCheckKey(KEYS.dataset("orders"), "unique_keys")
    extra = dg.define_asset_job("keys", selection=dg.AssetSelection.checks(key))
    world.defs = dg.Definitions.merge(world.defs, dg.Definitions(jobs=[extra]))
    world.run("keys")
    assert latest(world, KEYS.dataset("orders"), "unique_keys").metadata["keys"].value == 1


def test_events_have_no_keys_to_check(make_world: MakeWorld) -> None:
    world = make_world(orders_transform(mode="append"))
    world.put("a")
    world.run_until_idle()
    world.run("datazone_maintenance")
    assert world.latest(AssetCheckKey(KEYS.dataset("orders"), "unique_keys")) is None
    assert latest(world, KEYS.dataset("orders"), "small_files").passed


def test_a_table_with_too_many_rows_is_not_read(make_world: MakeWorld) -> None:
    world = make_world()
    for number in range(3):
        world.put(f"k{number}")
    world.run_until_idle()
    found = key_report(Layout(world.layout.uri), "orders", 64 << 20, limit_rows=2)
    assert found is not None
    assert (found.rows, found.keys) == (3, 0)
    assert key_report(Layout(world.layout.uri), "nothing", 64 << 20) is None


def test_many_small_files_warn() -> None:
    assert small_files_status(0, 0).level is Level.OK
    assert small_files_status(200, 200).level is Level.OK
    assert small_files_status(201, 201 * (4 << 20)).level is Level.OK
    many = small_files_status(201, 201 * 1000)
    assert many.level is Level.WARN
    assert many.plain == {"files": 201, "bytes": 201_000, "bytes_per_file": 1000}


@pytest.mark.parametrize(
    ("hours", "level"),
    [(24.0, Level.OK), (6.0, Level.OK), (5.9, Level.WARN), (1.9, Level.ERROR), (0.0, Level.ERROR)],
)
def test_headroom_has_two_bounds(hours: float, level: Level) -> None:
    health = StreamHealth(Level.OK, "", headroom_seconds=hours * 3600)
    assert headroom_status(health).level is level
    unknown = StreamHealth(Level.ERROR, "")
    assert headroom_status(unknown).level is Level.OK


def test_the_sensor_tells_headroom_as_it_shrinks(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("a")
    first = world.tick().checks()
    assert first["dynamodb/orders:headroom"].metadata["headroom_share"].value == 1.0
    assert first["dynamodb/orders:snapshot"].description == "No snapshot was asked for."
    world.clock.advance(timedelta(seconds=31))
    assert "dynamodb/orders:headroom" not in world.tick().checks()  # nothing new: once an hour
    world.clock.advance(timedelta(hours=1))
    assert "dynamodb/orders:headroom" in world.tick().checks()


def test_the_snapshot_is_told_until_it_is_complete(make_world: MakeWorld) -> None:
    source = DynamoDBSource("orders", start="snapshot")
    settings = SnapshotSettings(run_waits_seconds=0, sweep_limit=1.0)
    world = make_world(orders_transform_of(source), snapshot_settings=settings)
    world.put("old")
    check = AssetCheckKey(KEYS.change_log(source), "snapshot")
    world.tick()
    began = world.latest(check)
    assert began is not None
    assert (began.passed, began.severity.value) == (False, "WARN")
    assert "has not begun" in (began.description or "")
    for _ in range(8):
        world.clock.advance(timedelta(minutes=2))
        for request in world.tick().requests:
            assert request.job_name is not None
            world.run(request.job_name)
    done = world.latest(check)
    assert done is not None
    assert (done.passed, done.metadata["percent"].value) == (True, 100.0)


def orders_transform_of(source: DynamoDBSource):  # type: ignore[no-untyped-def]  # as its sibling
    from datazone_dagster import Dataset, Input, Output, Stream, transform

    return transform(
        name="orders",
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset("orders"))},
    )(lambda changes: changes.select("dynamodb.Keys.id.S as id"))


def test_bounds_of_dagster_work_on_the_numbers(make_world: MakeWorld) -> None:
    """The keys are stable, so Dagster's own checks of bounds can watch them."""
    world = make_world()
    bounds = dg.build_metadata_bounds_checks(
        assets=[KEYS.dataset("orders")],
        metadata_key="rows_inserted",
        min_value=1,
        max_value=1,
    )
    job = dg.define_asset_job(
        "bounds",
        selection=dg.AssetSelection.checks(*[key for one in bounds for key in one.check_keys]),
    )
    world.defs = dg.Definitions.merge(world.defs, dg.Definitions(asset_checks=bounds, jobs=[job]))
    (key,) = [key for one in bounds for key in one.check_keys]
    world.put("a")
    world.run_until_idle()
    world.run("bounds")
    assert latest(world, key.asset_key, key.name).passed
    world.put("b")
    world.put("c")
    world.run_until_idle()
    world.run("bounds")
    assert not latest(world, key.asset_key, key.name).passed


def test_bounds_of_dagster_find_numbers_that_are_0(make_world: MakeWorld) -> None:
    world = make_world()
    watched = {
        KEYS.change_log("orders"): ("gaps", "shards_failing", "records_malformed"),
        KEYS.dataset("orders"): ("records_quarantined", "records_waiting", "rows_hidden"),
    }
    bounds = [
        one
        for asset, names in watched.items()
        for name in names
        for one in dg.build_metadata_bounds_checks(assets=[asset], metadata_key=name, max_value=0)
    ]
    keys = [key for one in bounds for key in one.check_keys]
    job = dg.define_asset_job("bounds", selection=dg.AssetSelection.checks(*keys))
    world.defs = dg.Definitions.merge(world.defs, dg.Definitions(asset_checks=bounds, jobs=[job]))
    world.put("a")
    world.run_until_idle()
    found = world.run("bounds").get_asset_check_evaluations()
    assert {one.check_name: one.passed for one in found} == {key.name: True for key in keys}


def test_a_run_by_hand_evaluates_every_check_of_the_change_log(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("a")
    job = dg.define_asset_job(
        "by_hand", selection=dg.AssetSelection.checks(*KEYS.source_checks(SOURCE))
    )
    world.defs = dg.Definitions.merge(world.defs, dg.Definitions(jobs=[job]))
    world.run("by_hand")
    found = [latest(world, key.asset_key, key.name) for key in KEYS.source_checks(SOURCE)]
    assert [one.check_name for one in found] == [
        *("stream_health", "headroom", "snapshot", "drain")
    ]
