"""`key_prefix`: every asset and check has it, no table, job or sensor does."""

# No postponed annotations here: Dagster reads the real ones of assets.

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from dagster import (
    AssetCheckKey,
    AssetIn,
    AssetKey,
    AssetSpec,
    DagsterEventType,
    DagsterInvalidDefinitionError,
    Definitions,
    EventRecordsFilter,
    TableColumnLineageMetadataValue,
    asset,
)

from datazone_dagster import (
    CheckEvent,
    DagsterDatazoneTranslator,
    Dataset,
    Input,
    Lakehouse,
    Output,
    Stream,
    Transform,
    build_definitions,
    on_applied,
    transform,
)
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.names import WATCH_SENSOR
from datazone_dagster.dagster_glue.translator import DatazoneAssetData
from datazone_dagster.errors import DefinitionError
from datazone_dagster.pipeline import SnapshotSettings, read_dataset
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    SOURCE,
    MakeWorld,
    ScriptedResource,
    World,
    orders_transform,
)

PREFIX = ["team", "raw"]
KEYS = AssetKeys(("team", "raw"))
ORDERS = Dataset("orders", expect={"named": "id is not null"})


@transform(
    input_mapping={"changes": Input(Stream(source=SOURCE))},
    output_mapping={"orders": Output(ORDERS)},
)
def orders(changes: Any) -> Any:
    return changes.select(*ITEM_COLUMNS)


@transform(
    input_mapping={"changes": Input(Stream(source=SOURCE)), "known": Input(ORDERS)},
    output_mapping={"seen": Output(Dataset("seen", mode="append"))},
)
def seen(changes: Any, known: Any) -> Any:
    return changes.select("dynamodb.Keys.id.S as id")


@asset(
    ins={"rows": AssetIn(key=AssetKey([*PREFIX, "orders"]))},
    io_manager_key="datazone_io_manager",
    automation_condition=on_applied(),
)
def report(rows: pa.Table) -> pa.Table:
    return pa.table({"rows": [len(rows)]})


def assets_in(world: World) -> set[AssetKey]:
    """Return the assets that any event in the instance is of."""
    return set(world.instance.all_asset_keys())


def checks_in(world: World) -> set[AssetCheckKey]:
    """Return the checks that were evaluated."""
    wanted = EventRecordsFilter(DagsterEventType.ASSET_CHECK_EVALUATION)
    return {
        facts.asset_check_key
        for record in world.instance.get_event_records(wanted)
        if (event := record.event_log_entry.dagster_event) is not None
        if (facts := event.asset_check_evaluation_data) is not None
    }


def test_every_event_is_of_a_key_with_the_prefix(make_world: MakeWorld) -> None:
    extra = Definitions(assets=[report])
    world = make_world(
        orders,
        seen,
        extra=extra,
        key_prefix=PREFIX,
        audit_cron="0 4 * * *",
        snapshot_settings=SnapshotSettings(run_waits_seconds=0),
    )
    graph = world.defs.get_repository_def().asset_graph
    ours = {KEYS.change_log(SOURCE), KEYS.dataset("orders"), KEYS.dataset("seen")}
    assert graph.get_all_asset_keys() == {*ours, AssetKey("report")}
    assert graph.get(KEYS.dataset("seen")).parent_keys == ours - {KEYS.dataset("seen")}
    assert graph.get(AssetKey("report")).parent_keys == {KEYS.dataset("orders")}

    world.put("a")
    assert [one.asset_key for one in world.tick().materializations()] == [KEYS.change_log(SOURCE)]
    world.run_until_idle()
    world.put("b")
    world.tick(WATCH_SENSOR)
    world.run_until_idle()
    for job in ("rebuild_orders", "redrive_orders", "resync_orders", "datazone_maintenance"):
        world.run(job)
    checks = {
        *KEYS.dataset_checks("orders", expect=ORDERS.expect),
        *KEYS.dataset_checks("seen", has_keys=False),
        *KEYS.source_checks(SOURCE),
    }
    assert graph.asset_check_keys == {*checks, KEYS.audit_check(SOURCE)}
    assert checks_in(world) == checks
    assert assets_in(world) == ours
    assert world.rows() == {"a": "placed", "b": "placed"}
    assert len(read_dataset(world.layout, "seen")) == 2

    shown = world.instance.get_latest_materialization_event(KEYS.dataset("orders"))
    assert shown is not None
    assert shown.asset_materialization is not None
    lineage = shown.asset_materialization.metadata["dagster/column_lineage"]
    assert isinstance(lineage, TableColumnLineageMetadataValue)
    (dep,) = lineage.value.deps_by_column["status"]
    assert dep.asset_key == KEYS.change_log(SOURCE)


def test_a_run_of_all_transforms_has_the_prefix(make_world: MakeWorld) -> None:
    world = make_world(orders, seen, key_prefix=PREFIX, one_run_per_source=True)
    world.put("a")
    assert [one.job_name for one in world.tick().requests] == ["apply_source_orders"]
    world.run_until_idle()
    assert assets_in(world) == {
        KEYS.change_log(SOURCE),
        KEYS.dataset("orders"),
        KEYS.dataset("seen"),
    }
    assert checks_in(world) >= {
        *KEYS.dataset_checks("orders", expect=ORDERS.expect),
        *KEYS.dataset_checks("seen", has_keys=False),
    }
    assert {one.asset_key.path[0] for one in checks_in(world)} == {"team"}


def test_an_asset_downstream_loads_the_dataset_by_its_id(make_world: MakeWorld) -> None:
    world = make_world(orders, extra=Definitions(assets=[report]), key_prefix=PREFIX)
    world.put("a")
    world.run_until_idle()
    job = world.defs.get_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=world.instance, asset_selection=[AssetKey("report")])
    assert done.output_for_node("report").to_pylist() == [{"rows": 1}]


def of_table(name: str) -> Transform:
    """Return a transform of another table than `orders`."""
    source = DynamoDBSource(name, start="trim_horizon")

    @transform(
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={name: Output(Dataset(name))},
        name=name,
    )
    def copy(changes: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    return copy


def test_calls_with_different_prefixes_are_one_code_location(make_world: MakeWorld) -> None:
    told: list[CheckEvent] = []
    world = make_world(orders_transform(), key_prefix="one", on_check=told.append)
    ScriptedResource.streams["users"] = ScriptedStream("users", clock=world.clock)
    users = build_definitions(
        of_table("users"),
        key_prefix="two",
        on_check=told.append,
        lakehouse=Lakehouse(uri=world.layout.uri),
        dynamodb=ScriptedResource(),
        clock=world.clock,
    )
    world.defs = Definitions.merge(world.defs, users)
    Definitions.validate_loadable(world.defs)
    for stream in ScriptedResource.streams.values():
        stream.put({"id": {"S": "a"}, "status": {"S": "placed"}})
    for sensor in ("drain_orders", "drain_users", WATCH_SENSOR):
        world.tick(sensor)
    for job in ("apply_orders", "apply_users", "datazone_maintenance"):
        world.run(job)
    one, two = AssetKeys(("one",)), AssetKeys(("two",))
    source = DynamoDBSource("users", start="trim_horizon")
    logs = {one.change_log(SOURCE), two.change_log(source)}
    assert assets_in(world) == {*logs, one.dataset("orders"), two.dataset("users")}
    assert checks_in(world) == {
        *one.source_checks(SOURCE),
        *one.dataset_checks("orders"),
        *two.source_checks(source),
        *two.dataset_checks("users"),
    }
    world.clock.advance(timedelta(minutes=6))
    world.tick(WATCH_SENSOR)
    world.tick("datazone_check_alerts")
    failing = {event.asset for event in told if event.check == "drain" and not event.passed}
    assert failing == {"one/dynamodb/orders", "two/dynamodb/users"}


def test_one_stream_has_one_prefix(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    first = make_world(orders_transform("first_p"), key_prefix="one")
    second = make_world(orders_transform("second_p"), key_prefix="two")
    assert "key_prefix is ('one',) and ('two',)" in caplog.text
    with pytest.raises(DagsterInvalidDefinitionError, match="drain_orders"):
        Definitions.merge(first.defs, second.defs).get_repository_def()


def test_a_translator_is_asked_after_the_prefix() -> None:
    asked = set()

    class Asked(DagsterDatazoneTranslator):
        def get_asset_spec(self, data: DatazoneAssetData) -> AssetSpec:
            asked.add(data.default_spec.key)
            return data.default_spec.replace_attributes(metadata={})

    defs = build_definitions(orders_transform(), key_prefix=PREFIX, translator=Asked())
    assert asked == {KEYS.change_log(SOURCE), KEYS.dataset("orders")}
    dataset = defs.get_repository_def().asset_graph.get(KEYS.dataset("orders"))
    assert dataset.metadata["datazone/dataset"] == "orders"


@pytest.mark.parametrize("key_prefix", ["", ["team", ""], ["a/b"], "a.b", [1], {"a": 1}, 7])
def test_a_prefix_is_made_of_names(key_prefix: Any) -> None:
    with pytest.raises(DefinitionError, match="key_prefix=") as caught:
        build_definitions(orders_transform(), key_prefix=key_prefix)
    assert 'key_prefix=["team", "raw"]' in str(caught.value)


@pytest.mark.parametrize("key_prefix", [None, [], ()])
def test_without_a_prefix_keys_are_as_ever(key_prefix: Any) -> None:
    defs = build_definitions(orders_transform(), key_prefix=key_prefix)
    keys = defs.get_repository_def().asset_graph.get_all_asset_keys()
    assert keys == {AssetKey(["dynamodb", "orders"]), AssetKey("orders")}


def test_another_code_location_names_the_dataset_in_the_metadata_of_its_spec(
    make_world: MakeWorld,
) -> None:
    world = make_world(orders, key_prefix=PREFIX)
    world.put("a")
    world.run_until_idle()
    metadata = {
        "datazone/dataset": "orders",
        "dagster/io_manager_key": "datazone_io_manager",
    }
    spec = AssetSpec(KEYS.dataset("orders"), metadata=metadata)
    elsewhere = Definitions(assets=[spec, report], resources=world.defs.resources)
    job = elsewhere.get_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=world.instance, asset_selection=[AssetKey("report")])
    assert done.output_for_node("report").to_pylist() == [{"rows": 1}]
