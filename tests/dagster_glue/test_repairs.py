"""Rebuild and redrive as jobs: the table changes, and Dagster is told as by a run."""

from __future__ import annotations

from typing import Any

from dagster import (
    AssetKey,
    AutomationCondition,
    Definitions,
    asset,
    evaluate_automation_conditions,
)

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    KEYS,
    SOURCE,
    MakeWorld,
    World,
    orders_transform,
)


def picky(fixed: list[bool], dataset_id: str = "orders") -> Transform:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset(dataset_id))},
        on_error="quarantine",
    )
    def orders(changes: Any) -> Any:
        rows = changes.select(*ITEM_COLUMNS)
        if not fixed and any(row["status"] == "odd" for row in rows.arrow().to_pylist()):
            raise ValueError("odd")
        return rows.select("id", "upper(status) as status") if fixed else rows

    return orders


def shown(world: World, dataset_id: str = "orders") -> dict[str, Any]:
    event = world.instance.get_latest_materialization_event(AssetKey(dataset_id))
    assert event is not None
    assert event.asset_materialization is not None
    return {key: one.value for key, one in event.asset_materialization.metadata.items()}


def test_a_rebuild_is_a_materialization(make_world: MakeWorld) -> None:
    fixed: list[bool] = []
    world = make_world(picky(fixed))
    world.put("a")
    world.put("b")
    world.run_until_idle()
    before = shown(world)
    fixed.append(True)
    result = world.run("rebuild_orders")
    assert result.success
    assert world.rows() == {"a": "PLACED", "b": "PLACED"}
    after = shown(world)
    assert after.keys() >= before.keys() - {"maintenance"}
    assert after["dagster/row_count"] == 2
    assert after["dagster/uri"] == world.layout.dataset("orders")
    assert after["table_version"] > before["table_version"]
    assert after["rebuild"] == 1
    assert after["table_history"].splitlines()[2].startswith(f"| {after['table_version']} |")
    assert after["dagster/column_schema"] == before["dagster/column_schema"]
    assert [one.asset_key for one in result.asset_materializations_for_node("rebuild_orders_op")]
    for key in KEYS.dataset_checks("orders"):
        check = world.latest(key)
        assert check is not None
        assert check.passed, key


def test_a_redrive_is_a_materialization_if_rows_changed(make_world: MakeWorld) -> None:
    fixed: list[bool] = []
    world = make_world(picky(fixed))
    world.put("a")
    world.put("b", "odd")
    world.run_until_idle()
    quarantine = next(one for one in KEYS.dataset_checks("orders") if one.name == "quarantine")
    waiting = world.latest(quarantine)
    assert waiting is not None
    assert not waiting.passed

    nothing = world.run("redrive_orders")
    assert nothing.success
    assert not nothing.asset_materializations_for_node("redrive_orders_op")

    fixed.append(True)
    result = world.run("redrive_orders")
    assert len(result.asset_materializations_for_node("redrive_orders_op")) == 1
    assert world.rows() == {"a": "placed", "b": "ODD"}
    found = shown(world)
    assert (found["records_redriven"], found["rows_inserted"], found["dagster/row_count"]) == (
        1,
        1,
        2,
    )
    assert found["records_waiting"] == 0
    assert found["dagster/column_schema"].columns
    after = world.latest(quarantine)
    assert after is not None
    assert after.passed


def test_an_eager_asset_downstream_follows(make_world: MakeWorld) -> None:
    @asset(deps=[AssetKey("orders")], automation_condition=AutomationCondition.eager())
    def report() -> None: ...

    fixed: list[bool] = []
    world = make_world(picky(fixed), extra=Definitions(assets=[report]))
    world.put("a")
    world.run_until_idle()

    def evaluated(cursor: Any = None) -> Any:
        return evaluate_automation_conditions(world.defs, world.instance, cursor=cursor)

    idle = evaluated(evaluated().cursor)
    assert idle.get_num_requested(AssetKey("report")) == 0
    fixed.append(True)
    world.run("rebuild_orders")
    assert evaluated(idle.cursor).get_num_requested(AssetKey("report")) == 1


def test_every_dataset_has_both_jobs(make_world: MakeWorld) -> None:
    transforms = [orders_transform(name) for name in ("one", "with_dash", "x")]
    world = make_world(picky([], "with-dash"), *transforms)
    names = {job.name for job in world.defs.resolve_all_job_defs()}
    assert {"rebuild_one", "redrive_one", "rebuild_x", "redrive_x"} <= names
    assert {"rebuild_with_dash", "redrive_with_dash"} <= names
    assert len({one for one in names if one.startswith("rebuild_")}) == 4


def test_a_rebuild_that_can_not_be_done_says_so(make_world: MakeWorld) -> None:
    world = make_world(picky([]))
    result = world.run("rebuild_orders", raise_on_error=False)
    assert not result.success
    [failure] = result.get_step_failure_events()
    assert "can't be rebuilt" in str(failure.step_failure_data.error)


def test_a_redrive_tells_of_values_that_did_not_fit(make_world: MakeWorld) -> None:
    fixed: list[bool] = []

    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders"))},
        on_error="quarantine",
    )
    def orders(changes: Any) -> Any:
        texts = changes.select("dynamodb.NewImage.total.S as total").arrow()["total"]
        if not fixed and texts.null_count < len(texts):
            raise ValueError("odd")
        return changes.items()

    world = make_world(orders)
    world.put("a", total={"N": "1"})
    world.put("b", total={"S": "seven"})
    world.run_until_idle()
    assert shown(world)["values_in_sibling_columns"] == 0

    fixed.append(True)
    assert world.run("redrive_orders").success
    assert shown(world)["values_in_sibling_columns"] == 1
    schema = next(one for one in KEYS.dataset_checks("orders") if one.name == "schema")
    told = world.latest(schema)
    assert told is not None
    assert "1 in 'total__s'" in (told.description or "")
