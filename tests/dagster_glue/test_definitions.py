"""Definitions: clashing transforms are refused by name, others merge and load."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    Definitions,
    EnvVar,
    QueuedRunCoordinator,
    asset,
    build_sensor_context,
    in_process_executor,
)

from datazone_dagster import (
    Dataset,
    Input,
    Lakehouse,
    Output,
    Stream,
    Transform,
    build_definitions,
    dagster_yaml,
    transform,
)
from datazone_dagster.dagster_glue import folder_names
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import DynamoDBSource
from tests.dagster_glue.conftest import SOURCE, MakeWorld, orders_transform

ROOT = Path(__file__).parents[2]


def named(
    name: str, dataset: str, source: DynamoDBSource = SOURCE, lookup: str | None = None
) -> Transform:
    inputs = {"changes": Input(Stream(source=source))}

    def plain(changes: Any) -> Any:
        return changes

    def looking_up(changes: Any, known: Any) -> Any:
        return changes

    if lookup:
        inputs["known"] = Input(Dataset(lookup))
    build = transform(
        name=name, input_mapping=inputs, output_mapping={"rows": Output(Dataset(dataset))}
    )
    return build(looking_up if lookup else plain)


def same_name() -> list[Transform]:
    return [named("a", "one"), named("a", "two")]


def same_dataset() -> list[Transform]:
    return [named("a", "one"), named("b", "one")]


def one_table_two_regions() -> list[Transform]:
    return [
        named("a", "one", replace(SOURCE, region="us-west-2")),
        named("b", "two", replace(SOURCE, region="eu-west-1")),
    ]


def one_table_two_starts() -> list[Transform]:
    return [named("a", "one"), named("b", "two", replace(SOURCE, start="latest"))]


def two_tables_one_name() -> list[Transform]:
    return [
        named("a", "one", DynamoDBSource("my.orders")),
        named("b", "two", DynamoDBSource("my-orders")),
    ]


def a_cycle() -> list[Transform]:
    return [named("a", "one", lookup="two"), named("b", "two", lookup="one")]


def twice() -> list[Transform]:
    return [named("a", "one")] * 2


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        (same_name, ["'a'", "transform(name=...)"]),
        (same_dataset, ["'one'", "'a'", "'b'"]),
        (one_table_two_regions, ["'a'", "'b'", "region is 'us-west-2' and 'eu-west-1'"]),
        (one_table_two_starts, ["start is 'trim_horizon' and 'latest'"]),
        (two_tables_one_name, ["'my.orders'", "'my-orders'", "'my_orders'"]),
        (a_cycle, ["a -> b -> a"]),
        (twice, ["given twice"]),
        (lambda: [print], ["print", "@transform"]),
        (lambda: "orders", ["'orders'", "build_definitions([my_transform])"]),
    ],
)
def test_a_clash_names_both_sides(transforms: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        build_definitions(transforms())
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("ignores_case", [True, False])
@pytest.mark.parametrize("uri", ["lake", "s3://lake"])
@pytest.mark.parametrize("kind", ["datasets", "sources"])
def test_folders_that_a_file_system_takes_for_one(
    monkeypatch: pytest.MonkeyPatch, ignores_case: bool, uri: str, kind: str
) -> None:
    assert {"darwin", "win32"} <= set(folder_names.IGNORE_CASE)
    monkeypatch.setattr(folder_names, "IGNORE_CASE", [sys.platform] if ignores_case else [])
    second = ("Orders", SOURCE) if kind == "datasets" else ("two", DynamoDBSource("Orders"))
    transforms = [named("a", "orders"), named("b", *second)]
    if not ignores_case or uri != "lake":
        build_definitions(transforms, lakehouse=Lakehouse(uri=uri))
        return
    with pytest.raises(DefinitionError, match=f"The {kind} 'orders' and 'Orders' would share"):
        build_definitions(transforms, lakehouse=Lakehouse(uri=uri))


def test_one_sensor_and_one_change_log_for_all_transforms_of_a_source() -> None:
    other = DynamoDBSource("payments")
    defs = build_definitions([named("a", "one"), named("b", "two"), named("c", "three", other)])
    assert sorted(one.name for one in defs.sensors or []) == [
        *("drain_orders", "drain_payments", "watch_drains")
    ]
    keys = set(defs.resolve_asset_graph().get_all_asset_keys())
    assert keys == {
        AssetKey(["dynamodb", "orders"]),
        AssetKey(["dynamodb", "payments"]),
        *(AssetKey(one) for one in ("one", "two", "three")),
    }


def test_a_single_transform_needs_no_list() -> None:
    Definitions.validate_loadable(build_definitions(named("a", "one")))


def test_awkward_ids_and_names_load() -> None:
    for dataset in ("with-dash", "type", "context", "1st", "a" * 60):
        Definitions.validate_loadable(build_definitions(named("a", dataset)))
    table = DynamoDBSource("Orders.v2-eu")
    defs = build_definitions(named("a", "one", table))
    assert [one.name for one in defs.sensors or []] == [*("drain_Orders_v2_eu", "watch_drains")]
    Definitions.validate_loadable(defs)


def test_it_merges_with_the_users_definitions() -> None:
    @asset
    def mine(one: Any) -> None: ...

    merged = Definitions.merge(
        build_definitions([named("a", "one")], on_check=print),
        Definitions(assets=[mine], resources={"lakehouse": "mine"}),
    )
    Definitions.validate_loadable(merged)
    assert merged.resolve_asset_graph().get(AssetKey("mine")).parent_keys == {AssetKey("one")}


def test_jobs_run_in_one_process() -> None:
    job = build_definitions([named("a", "one")]).resolve_job_def("apply_a")
    assert job.executor_def is in_process_executor
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {"one"}


def test_resources_can_come_from_the_environment(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    monkeypatch.setenv("MY_LAKE", str(tmp_path / "elsewhere"))
    defs = build_definitions(
        [orders_transform()],
        lakehouse=Lakehouse(uri=EnvVar("MY_LAKE")),
        dynamodb=(world.defs.resources or {})["datazone_dynamodb"],
        clock=world.clock,
    )
    world.put("a")
    sensor = defs.resolve_sensor_def("drain_orders")
    resources = defs.resources or {}
    with build_sensor_context(
        instance=world.instance,
        definitions=defs,
        resources={key: resources[key] for key in sensor.required_resource_keys},
    ) as context:
        assert sensor.evaluate_tick(context).run_requests
    assert defs.resolve_job_def("apply_orders").execute_in_process(instance=world.instance).success
    assert (tmp_path / "elsewhere" / "orders" / "_delta_log").is_dir()


def test_the_stream_check_drains_when_run_by_hand(make_world: MakeWorld) -> None:
    world = make_world()
    world.put("a")
    job = world.defs.resolve_implicit_global_asset_job_def()
    keys = set(job.asset_layer.asset_graph.asset_check_keys)
    [stream] = [key for key in keys if key.name == "stream_health"]
    with DagsterInstance.ephemeral() as instance:
        from dagster import AssetSelection, define_asset_job

        checked = define_asset_job("check", AssetSelection.checks(stream)).resolve(
            asset_graph=world.defs.resolve_asset_graph(), resource_defs=world.defs.resources
        )
        result = checked.execute_in_process(instance=instance)
        [health] = result.get_asset_check_evaluations()
        assert health.passed
        assert instance.get_latest_materialization_event(stream.asset_key) is not None
    world.run("apply_orders")
    assert world.rows() == {"a": "placed"}


def test_the_published_example_is_what_the_workspace_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace = (ROOT / "workspace.yaml").read_text()
    assert workspace == "load_from:\n  - python_file: definitions.py\n"
    lines = (ROOT / "definitions.py").read_text().splitlines()
    assert len(lines) < 60
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(compile("\n".join(lines), "definitions.py", "exec"), namespace)
    Definitions.validate_loadable(namespace["defs"])
    [example] = [one for one in namespace.values() if isinstance(one, Transform)]
    assert example.source == DynamoDBSource("orders", region="us-west-2")
    assert dict(example.outputs) == {
        "processed_orders": Dataset("processed_orders", tags=["orders", "real-time"])
    }
    assert not os.listdir(tmp_path)  # loading writes nothing


def test_the_shipped_instance_settings_are_dagsters_own(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(dagster_yaml())
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_settings("sensors") == {"use_threads": True, "num_workers": 16}
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit is None  # pools of others have no limit
        assert pools.pool_granularity is not None
        assert pools.pool_granularity.value == "run"
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        coordinator = instance.run_coordinator
        assert isinstance(coordinator, QueuedRunCoordinator)
        assert coordinator.dequeue_interval_seconds == 1
