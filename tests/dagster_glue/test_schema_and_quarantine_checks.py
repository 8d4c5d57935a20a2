"""Schema changes and quarantined records are events in Dagster, and their checks alert."""

from __future__ import annotations

from typing import Any

from dagster import AssetCheckEvaluation, AssetCheckSeverity, ExecuteInProcessResult

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.testing import Crash, crash_at
from tests.dagster_glue.conftest import SOURCE, MakeWorld, World

ID = "dynamodb.Keys.id.S as id"
STATUS = "dynamodb.NewImage.status.S as status"
TOTAL = "cast(dynamodb.NewImage.total.N as bigint) as total"

columns: list[str] = []


def orders(**dataset: Any) -> Transform:
    columns[:] = [ID, STATUS]

    @transform(
        name="orders",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders", **dataset))},
    )
    def flow(changes: Any) -> object:
        return changes.select(*columns)

    return flow


def check(result: ExecuteInProcessResult, name: str) -> AssetCheckEvaluation:
    [found] = [one for one in result.get_asset_check_evaluations() if one.check_name == name]
    return found


def run(world: World) -> ExecuteInProcessResult:
    world.tick()
    return world.run("apply_orders")


def metadata(result: ExecuteInProcessResult) -> Any:
    [event] = result.get_asset_materialization_events()
    return event.step_materialization_data.materialization.metadata


def test_a_new_column_warns_once_and_shows_the_difference(make_world: MakeWorld) -> None:
    world = make_world(orders())
    world.put("a")
    first = run(world)
    assert check(first, "schema").passed
    assert "schema_change" not in metadata(first)

    columns.append(TOTAL)
    world.put("b", total={"N": "7"})
    second = run(world)
    found = check(second, "schema")
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.WARN)
    assert found.description is not None
    assert "'total' (int64) is new" in found.description
    assert found.metadata["columns_changed"].value == 1
    assert metadata(second)["schema_change"].value.splitlines()[2].startswith("| total |  |")

    world.put("c")
    assert check(run(world), "schema").passed


def test_a_change_is_reported_even_if_the_run_that_made_it_died(make_world: MakeWorld) -> None:
    world = make_world(orders())
    world.put("a")
    run(world)
    columns.append(TOTAL)
    world.put("b", total={"N": "7"})
    world.tick()
    try:
        with crash_at("after dataset commit"):
            world.run("apply_orders")
    except Crash:
        pass
    found = check(world.run("apply_orders"), "schema").description
    assert "'total' (int64) is new" in (found or "")


def test_a_wider_type_warns(make_world: MakeWorld) -> None:
    world = make_world(orders())
    columns.append("cast(dynamodb.NewImage.total.N as integer) as total")
    world.put("a", total={"N": "7"})
    run(world)
    columns[-1] = TOTAL
    world.put("b", total={"N": "8"})
    found = check(run(world), "schema").description
    assert "'total' was int32 and is int64" in (found or "")


def test_a_column_left_out_of_a_frozen_table_is_an_error_until_it_is_resolved(
    make_world: MakeWorld,
) -> None:
    world = make_world(orders(schema_policy="freeze"))
    world.put("a")
    run(world)
    columns.append(TOTAL)
    world.put("b", total={"N": "7"})
    found = check(run(world), "schema")
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.ERROR)
    assert found.description is not None
    assert "'total' (int64, since batch 2)" in found.description
    assert "rebuild orders" in found.description
    assert world.rows() == {"a": "placed", "b": "placed"}
    columns.pop()
    world.put("c")
    assert not check(run(world), "schema").passed


def test_waiting_records_warn_and_too_many_are_an_error(make_world: MakeWorld) -> None:
    alerts: list[Any] = []
    world = make_world(orders(quarantine_threshold=2), on_check=alerts.append)
    world.put("a")
    first = check(run(world), "quarantine")
    assert (first.passed, first.metadata["records_waiting"].value) == (True, 0)
    for count, severity in ((1, AssetCheckSeverity.WARN), (3, AssetCheckSeverity.ERROR)):
        while len(malformed) < count:
            malformed.append(f'{{"no": {len(malformed)}}}')
            world.stream.malformed(malformed[-1].encode())
        result = run(world)
        found = check(result, "quarantine")
        assert (found.passed, found.severity) == (False, severity)
        assert found.metadata["records_waiting"].value == count
        assert world.layout.quarantine("orders") in (found.description or "")
        assert metadata(result)["records_waiting"].value == count
        world.tick("datazone_check_alerts")
    assert [(one.check, one.severity) for one in alerts] == [
        ("quarantine", "WARN"),
        ("quarantine", "ERROR"),
    ]


malformed: list[str] = []
