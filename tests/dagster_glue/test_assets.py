"""Assets: keys, dependencies, metadata, several outputs, and datasets in other assets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped,unused-ignore]  # has no types
import polars as pl
import pyarrow as pa
import pytest
from dagster import (
    AssetIn,
    AssetKey,
    AssetMaterialization,
    Definitions,
    MarkdownMetadataValue,
    TableColumn,
    TableColumnLineageMetadataValue,
    TableSchemaMetadataValue,
    asset,
)
from pydantic import BaseModel, Field

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.dagster_glue.checks.rendering import FEW_COLUMNS
from datazone_dagster.errors import DefinitionError
from datazone_dagster.observe.preview import preview_markdown
from tests.dagster_glue.conftest import (
    ITEM_COLUMNS,
    SOURCE,
    MakeWorld,
    World,
    orders_transform,
)

calls: list[int] = []


@transform(
    input_mapping={"changes": Input(Stream(source=SOURCE))},
    output_mapping={
        "current": Output(Dataset("current-orders", owners=["team:orders"], kinds="iceberg")),
        "events": Output(Dataset("order_events", mode="append", group_name="history")),
    },
    owners="data@example.com",
    group_name="orders",
)
def both(changes):  # type: ignore[no-untyped-def]
    """Orders now, and every event."""
    calls.append(1)
    rows = changes.select(*ITEM_COLUMNS)
    return {"current": rows, "events": rows}


def test_one_asset_per_dataset_with_the_users_arguments(make_world: MakeWorld) -> None:
    graph = make_world(both).defs.resolve_asset_graph()
    current, events = graph.get(AssetKey("current-orders")), graph.get(AssetKey("order_events"))
    assert current.description == "Orders now, and every event."
    assert current.owners == ["team:orders"]
    assert events.owners == ["data@example.com"]
    assert (current.group_name, events.group_name) == ("orders", "history")
    assert current.kinds == {"iceberg"}
    assert events.kinds == {"deltalake", "dynamodb"}
    assert current.parent_keys == {AssetKey(["dynamodb", "orders"])}
    assert current.code_version is not None
    assert current.pools == {"datazone/apply_both"}
    log = graph.get(AssetKey(["dynamodb", "orders"]))
    assert log.is_external
    assert {key.name for key in log.check_keys} == {
        *("stream_health", "headroom", "snapshot", "drain")
    }


def test_several_outputs_are_made_by_one_call_per_chunk(make_world: MakeWorld) -> None:
    world = make_world(both)
    world.put("a")
    world.put("a", "paid")
    world.tick()
    calls.clear()
    result = world.run("apply_both")
    assert len(calls) == 1
    assert world.rows("current-orders") == {"a": "paid"}
    assert {one.asset_key for one in materialized(result)} == {
        AssetKey("current-orders"),
        AssetKey("order_events"),
    }
    by_key = {one.asset_key.path[-1]: one.metadata for one in materialized(result)}
    assert by_key["current-orders"]["dagster/row_count"].value == 1
    assert by_key["order_events"]["dagster/row_count"].value == 2
    assert len(result.get_asset_check_evaluations()) == 13


@transform(
    input_mapping={"changes": Input(Stream(source=SOURCE))},
    output_mapping={"totals": Output(Dataset("totals"))},
    on_error="quarantine",
)
def totals(changes):  # type: ignore[no-untyped-def]
    return changes.select("cast(dynamodb.NewImage.total.N as decimal(5, 2)) as total")


def test_log_messages_of_a_run_are_in_its_dagster_log(make_world: MakeWorld) -> None:
    world = make_world(totals)
    world.put("1", total={"N": "5"})
    world.put("2", total={"N": "123456"})
    (request,) = world.tick().requests
    run_id = world.run(str(request.job_name)).run_id
    messages = [entry.user_message for entry in world.instance.all_logs(run_id)]
    assert any("fails on 1 of 2 changes; they go to the quarantine" in line for line in messages)


def materialized(result: Any) -> list[AssetMaterialization]:
    return [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    ]


def test_a_materialization_shows_numbers_schema_and_rows(world: World) -> None:
    world.put("a|b")
    world.put("c")
    world.tick()
    world.clock.advance(timedelta(seconds=7))
    [shown] = materialized(world.run("apply_orders"))
    found: Mapping[str, Any] = shown.metadata
    assert found["rows_inserted"].value == 2
    assert found["records_read"].value == 2
    assert (found["first_batch"].value, found["last_batch"].value) == (1, 1)
    assert found["lag_seconds"].value == found["lag_seconds_newest"].value == 7.0
    assert found["records_per_second"].value > 0
    faults = ("gaps", "missing_seconds", "records_waiting", "records_quarantined")
    assert [found[key].value for key in faults] == [0] * 4
    assert found["dagster/row_count"].value == 2
    assert found["dagster/uri"].value == world.layout.dataset("orders")
    schema = found["dagster/column_schema"]
    assert isinstance(schema, TableSchemaMetadataValue)
    assert {"id", "status"} <= {column.name for column in schema.schema.columns}
    preview = found["preview"]
    assert isinstance(preview, MarkdownMetadataValue)
    assert preview.value == preview_markdown(
        [{"id": "a|b", "status": "placed"}, {"id": "c", "status": "placed"}]
    )


def test_without_a_preview_rows_stay_out_of_the_event_log(make_world: MakeWorld) -> None:
    world = make_world(preview=False)
    world.put("secret")
    world.tick()
    [shown] = materialized(world.run("apply_orders"))
    assert "preview" not in shown.metadata


def test_a_run_by_hand_before_the_first_drain_is_fine(world: World) -> None:
    result = world.run("apply_orders")
    [shown] = materialized(result)
    assert shown.metadata["dagster/row_count"].value == 0
    assert result.get_asset_check_evaluations()[0].passed


def downstream(annotation: Any) -> tuple[list[Any], Definitions]:
    seen: list[Any] = []

    def report(orders: Any) -> None:
        seen.append(orders)

    report.__annotations__ = {"orders": annotation} if annotation else {}
    return seen, Definitions(assets=[asset(report)])


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (None, pa.Table),
        (pa.Table, pa.Table),
        (pl.DataFrame, pl.DataFrame),
        (pl.LazyFrame, pl.LazyFrame),
        (pd.DataFrame, pd.DataFrame),
        (duckdb.DuckDBPyRelation, duckdb.DuckDBPyRelation),
    ],
)
def test_other_assets_get_a_dataset_as_annotated(
    make_world: MakeWorld, annotation: Any, kind: type
) -> None:
    seen, extra = downstream(annotation)
    world = make_world(extra=extra)
    world.put("a")
    world.run_until_idle()
    job = world.defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(
        instance=world.instance, asset_selection=[AssetKey("report")]
    ).success
    [rows] = seen
    assert isinstance(rows, kind)
    frame: Any = rows.collect() if isinstance(rows, pl.LazyFrame) else rows
    assert "status" in list(frame.column_names if isinstance(frame, pa.Table) else frame.columns)


def test_an_unknown_annotation_is_refused_by_name(make_world: MakeWorld) -> None:
    _, extra = downstream(dict)
    world = make_world(extra=extra)
    world.put("a")
    world.run_until_idle()
    job = world.defs.resolve_implicit_global_asset_job_def()
    with pytest.raises(DefinitionError, match=r"'orders'.*polars\.DataFrame"):
        job.execute_in_process(instance=world.instance, asset_selection=[AssetKey("report")])


def test_a_dataset_under_another_name(make_world: MakeWorld) -> None:
    seen: list[pa.Table] = []

    @asset(ins={"rows": AssetIn(key="orders")})
    def report(rows: pa.Table) -> None:
        seen.append(rows)

    world = make_world(extra=Definitions(assets=[report]))
    world.put("a")
    world.run_until_idle()
    job = world.defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=world.instance, asset_selection=[AssetKey("report")])
    assert seen[0].num_rows == 1


def test_transforms_chain_through_datasets(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={
            "changes": Input(Stream(source=SOURCE)),
            "known": Input(Dataset("orders")),
        },
        output_mapping={"rows": Output(Dataset("joined"))},
    )
    def joined(changes, known):  # type: ignore[no-untyped-def]
        return changes.select(*ITEM_COLUMNS)

    graph = make_world(orders_transform(), joined).defs.resolve_asset_graph()
    assert graph.get(AssetKey("joined")).parent_keys == {
        AssetKey(["dynamodb", "orders"]),
        AssetKey("orders"),
    }


def test_a_wide_schema_is_shown_when_it_has_changed_and_not_in_every_run(
    make_world: MakeWorld,
) -> None:
    """The schema of 500 columns is 100 KB of the event log."""

    @transform(
        name="orders",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders"))},
    )
    def wide(changes: Any) -> object:
        return changes.items()

    world = make_world(wide)

    def shown(key: str, columns: int) -> tuple[bool, bool]:
        more: dict[str, Any] = {f"column_{number:03d}": {"S": "x"} for number in range(columns)}
        world.put(key, **more)
        world.tick()
        [one] = materialized(world.run("apply_orders"))
        return "dagster/column_schema" in one.metadata, "schema_change" in one.metadata

    narrow = FEW_COLUMNS // 2
    assert shown("a", narrow) == (True, False)
    assert shown("b", narrow) == (True, False)
    assert shown("c", FEW_COLUMNS) == (True, True)
    assert shown("d", FEW_COLUMNS) == (False, False)
    assert shown("e", FEW_COLUMNS) == (False, False)
    assert shown("f", FEW_COLUMNS + 1) == (True, True)
    assert shown("g", FEW_COLUMNS) == (False, False)


class Order(BaseModel):
    """Orders as they are now."""

    id: str
    state: str | None = Field(default=None, description="Open, paid or shipped.")
    total: int | None = None


def test_a_page_shows_where_columns_come_from_and_what_they_mean(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders", schema=Order))},
    )
    def orders(changes):  # type: ignore[no-untyped-def]
        named = changes.select(
            "dynamodb.Keys.id.S as id",
            "dynamodb.NewImage.status.S as status",
            "cast(dynamodb.NewImage.total.N as bigint) as total",
            "eventName",
        )
        return named.select("id", "upper(status) || eventName as state", "total")

    world = make_world(orders)
    world.put("a", total={"N": "1"})
    world.run_until_idle()
    lineage, columns = shown_columns(world)
    assert lineage == {
        "id": [("dynamodb/orders", "dynamodb.Keys.id.S")],
        "state": [
            ("dynamodb/orders", "dynamodb.NewImage.status.S"),
            ("dynamodb/orders", "eventName"),
        ],
        "total": [("dynamodb/orders", "dynamodb.NewImage.total.N")],
    }
    texts = {one.name: one.description for one in columns}
    assert texts["id"] == "From dynamodb.Keys.id.S."
    assert texts["state"] == "Open, paid or shipped."
    assert "one row per key" in (texts["_dz_key"] or "")


def test_columns_of_items_name_their_attributes(make_world: MakeWorld) -> None:
    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("orders"))},
    )
    def orders(changes):  # type: ignore[no-untyped-def]
        return changes.items().with_columns("status || 's' as states")

    world = make_world(orders)
    world.put("a")
    world.run_until_idle()
    lineage, _ = shown_columns(world)
    assert lineage["id"] == [("dynamodb/orders", "dynamodb.NewImage.id")]
    assert lineage["states"] == [("dynamodb/orders", "dynamodb.NewImage.status")]


def shown_columns(world: World) -> tuple[dict[str, list[tuple[str, str]]], Sequence[TableColumn]]:
    """The lineage and the schema of the last materialization."""
    event = world.instance.get_latest_materialization_event(AssetKey("orders"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    lineage, schema = metadata["dagster/column_lineage"], metadata["dagster/column_schema"]
    assert isinstance(lineage, TableColumnLineageMetadataValue)
    assert isinstance(schema, TableSchemaMetadataValue)
    return {
        name: [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps]
        for name, deps in lineage.value.deps_by_column.items()
    }, schema.schema.columns


def test_a_source_is_a_group_of_its_own(world: World) -> None:
    graph = world.defs.resolve_asset_graph()
    for key in (AssetKey("orders"), AssetKey(["dynamodb", "orders"])):
        assert graph.get(key).group_name == "orders"
        assert graph.get(key).metadata["dagster/storage_kind"] == "deltalake"
