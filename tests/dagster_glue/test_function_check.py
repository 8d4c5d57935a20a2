"""A changed function: the check `function` warns until the rows are rebuilt or accepted."""

from __future__ import annotations

from typing import Any

from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetKey

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.pipeline import accept_function
from tests.dagster_glue.conftest import SOURCE, MakeWorld, World

ID = "dynamodb.Keys.id.S as id"
STATUS = "dynamodb.NewImage.status.S as status"
CUSTOMER = "dynamodb.NewImage.customer_id.S as customer_id"


def plain(changes: Any) -> Any:
    return changes.select(ID, STATUS, CUSTOMER)


def upper(changes: Any) -> Any:
    return changes.select(ID, "upper(dynamodb.NewImage.status.S) as status", CUSTOMER)


def without_customer(changes: Any) -> Any:
    return changes.select(ID, STATUS)


def orders(function: Any, version: str | None = None, **dataset: Any) -> Transform:
    return transform(
        name="orders",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders", **dataset))},
        version=version,
    )(function)


def deploy(world: World, transform: Transform) -> None:
    """Load other code into the same location."""
    world.transforms[:] = [transform]
    world.__post_init__()


def applied(world: World, key: str, job: str = "apply_orders") -> AssetCheckEvaluation:
    world.put(key, customer_id={"S": "c"})
    world.tick()
    return check(world.run(job))


def check(result: Any) -> AssetCheckEvaluation:
    [found] = [one for one in result.get_asset_check_evaluations() if one.check_name == "function"]
    assert isinstance(found, AssetCheckEvaluation)
    return found


def test_it_warns_until_the_rebuild(make_world: MakeWorld) -> None:
    world = make_world(orders(plain))
    assert applied(world, "a").passed
    assert applied(world, "b").passed
    deploy(world, orders(upper))
    found = applied(world, "c")
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.WARN)
    assert "Rows of batches 1 to 2 were made by another version" in (found.description or "")
    assert "datazone-dagster rebuild orders" in (found.description or "")
    assert found.metadata["batches_of_other_versions"].value == 2
    assert not applied(world, "d").passed  # as long as it holds
    assert world.rows() == {"a": "placed", "b": "placed", "c": "PLACED", "d": "PLACED"}
    assert check(world.run("rebuild_orders")).passed
    assert world.rows() == dict.fromkeys("abcd", "PLACED")
    assert applied(world, "e").passed


def test_it_warns_before_the_new_version_has_applied_anything(make_world: MakeWorld) -> None:
    world = make_world(orders(plain))
    applied(world, "a")
    deploy(world, orders(upper))
    found = check(world.run("apply_orders"))
    assert "Rows of batch 1 were" in (found.description or "")


def test_accepted_rows_stay_and_the_next_change_warns_again(make_world: MakeWorld) -> None:
    world = make_world(orders(plain))
    applied(world, "a")
    deploy(world, orders(upper))
    assert not applied(world, "b").passed
    accept_function(world.transforms[0], "orders", world.layout)
    assert applied(world, "c").passed
    assert world.rows()["a"] == "placed"
    deploy(world, orders(plain))
    found = applied(world, "d")
    assert "batches 1 to 3" in (found.description or "")


def test_a_column_that_is_no_longer_returned(make_world: MakeWorld) -> None:
    world = make_world(orders(plain))
    applied(world, "a")
    deploy(world, orders(without_customer))
    for key in "bc":
        description = applied(world, key).description or ""
        assert "'customer_id' is no longer returned" in description
    accept_function(world.transforms[0], "orders", world.layout)
    assert applied(world, "d").passed
    deploy(world, orders(plain))
    found = applied(world, "e")
    assert "no longer returned" not in (found.description or "")


def test_a_rebuild_drops_the_lost_column(make_world: MakeWorld) -> None:
    world = make_world(orders(plain))
    applied(world, "a")
    deploy(world, orders(without_customer))
    applied(world, "b")
    assert check(world.run("rebuild_orders")).passed
    assert applied(world, "c").passed


def test_the_user_s_own_version_counts_alone(make_world: MakeWorld) -> None:
    world = make_world(orders(plain, version="1"))
    graph = world.defs.resolve_asset_graph()
    assert graph.get(AssetKey("orders")).code_version == "1"
    applied(world, "a")
    deploy(world, orders(upper, version="1"))
    assert applied(world, "b").passed
    deploy(world, orders(upper, version="2"))
    assert "batches 1 to 2" in (applied(world, "c").description or "")


def test_a_failed_run_reports_it_as_well(make_world: MakeWorld) -> None:
    def broken(changes: Any) -> Any:
        raise ValueError("broken")

    world = make_world(orders(plain))
    applied(world, "a")
    deploy(world, orders(broken))
    world.put("b")
    world.tick()
    result = world.run("apply_orders", raise_on_error=False)
    assert not result.success
    assert "another version" in (check(result).description or "")


def test_items_that_lack_an_attribute_lose_no_column(make_world: MakeWorld) -> None:
    world = make_world(orders(lambda changes: changes.items()))
    applied(world, "a")
    world.put("b")
    world.tick()
    assert check(world.run("apply_orders")).passed
