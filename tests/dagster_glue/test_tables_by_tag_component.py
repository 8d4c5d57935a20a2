"""`DynamoDBTablesByTagComponent`: what a refresh finds, and what is built from it without AWS."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from datazone_dagster import DynamoDBTablesByTagComponent
from datazone_dagster.errors import DefinitionError, SourceError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import connect, drain_once, read_dataset
from tests.dagster_glue.test_stream_component import properties
from tests.local.stream_reading import Clients, clients_of, create_table

ARN = "arn:aws:dynamodb:us-west-2:000000000000:table/"


@pytest.fixture(scope="module")
def running() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as server:
        yield server


@pytest.fixture
def server(running: LocalDynamoDB) -> LocalDynamoDB:
    running.admin.reset()
    return running


@pytest.fixture
def clients(server: LocalDynamoDB) -> Clients:
    return clients_of(server)


def tagged(clients: Clients, *names: str) -> None:
    for name in names:
        create_table(clients, name)
        tags = [{"Key": "team", "Value": "shop"}]
        clients.dynamodb.tag_resource(ResourceArn=ARN + name, Tags=tags)


def untag(clients: Clients, name: str) -> None:
    clients.dynamodb.untag_resource(ResourceArn=ARN + name, TagKeys=["team"])


def turn_off(clients: Clients, name: str) -> None:
    clients.dynamodb.update_table(TableName=name, StreamSpecification={"StreamEnabled": False})


def component(server: LocalDynamoDB, more: str = "") -> Any:
    text = f"""
tag_key: team
tag_value: shop
region: us-west-2
credentials: {{endpoint_url: "{server.endpoint_url}"}}
{more}
"""
    return DynamoDBTablesByTagComponent.resolve_from_yaml(text)


def built(made: Any, state: Path) -> list[str]:
    """Return the keys of the assets that are built from a state."""
    defs = made.build_defs_from_state(None, state)
    return sorted(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys())


def test_every_field_says_what_it_is() -> None:
    dagsters = {"key", "management_type", "refresh_if_dev"}  # fields of Dagster's own model
    for name, field in properties(DynamoDBTablesByTagComponent.get_model_cls()):
        if name not in dagsters:
            assert {"title", "description", "examples"} <= field.keys(), name
            assert "default" in field or name in ("tag_key", "tag_value"), name
            json.dumps([field["examples"], field.get("default")])


def test_every_tagged_table_gets_a_change_log_and_a_dataset(
    server: LocalDynamoDB, clients: Clients, tmp_path: Path
) -> None:
    tagged(clients, "orders.eu", "customers", "tmp_one")
    create_table(clients, "untagged")
    clients.dynamodb.put_item(
        TableName="customers", Item={"id": {"S": "a"}, "name": {"S": "Ann"}, "age": {"N": "7"}}
    )
    layout = Layout(str(tmp_path / "lake"))
    made = component(
        server,
        "dataset_prefix: raw_\nexclude: ['tmp_*']\nstart: trim_horizon\ntags: {tier: prod}\n"
        f"lakehouse: {{uri: {layout.uri}}}",
    )
    state = tmp_path / "state"
    made.write_state_to_path(state)
    calls = server.admin.counters(reset=True)["calls"]
    assert (calls["GetResources"], calls["DescribeTable"]) == (1, 3)
    defs = made.build_defs_from_state(None, state)
    assert server.admin.counters()["calls"] == {}, "loading calls nothing"
    assert built(made, state) == [
        "dynamodb/customers",
        "dynamodb/orders_eu",
        "raw_customers",
        "raw_orders_eu",
    ]
    spec = defs.resolve_asset_graph().get(dg.AssetKey("raw_customers"))
    assert spec.tags["tier"] == "prod"
    assert "dagster/code_references" not in spec.metadata
    sensors = {one.name for one in defs.sensors or ()}
    assert {"drain_customers", "drain_orders_eu"} <= sensors
    settings = made.credentials.resource().connection_settings(region="us-west-2")
    source = made._source_of("customers")
    while not drain_once(source, connect("customers", settings), layout).caught_up:
        pass
    job = defs.resolve_job_def("apply_raw_customers")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance).success
    [row] = read_dataset(layout, "raw_customers").select(["id", "name", "age"]).to_pylist()
    assert row == {"id": "a", "name": "Ann", "age": 7}


def test_a_dataset_stays_when_its_table_loses_the_tag(
    server: LocalDynamoDB, clients: Clients, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tagged(clients, "lost", "deleted", "off", "stays", "never")
    turn_off(clients, "never")
    made, state = component(server), tmp_path / "state"
    made.write_state_to_path(state)
    assert "no stream with new images, so no dataset: 'never'" in caplog.text
    all_of_them = built(made, state)
    assert "lost" in all_of_them
    assert "never" not in all_of_them
    untag(clients, "lost")
    clients.dynamodb.delete_table(TableName="deleted")
    turn_off(clients, "off")
    caplog.clear()
    made.write_state_to_path(state)
    assert "no longer found with the tag (they lost it, or were deleted): 'deleted', 'lost'." in (
        caplog.text
    )
    assert "turned off, or shows no new images any more: 'off'" in caplog.text
    assert built(made, state) == all_of_them
    without = component(server, "exclude: [lost, deleted]")
    assert "lost" not in built(without, state), "an exclusion needs no refresh"
    without.write_state_to_path(state)
    assert "lost" not in built(made, state), "and a refresh forgets the table"


@pytest.mark.parametrize(
    ("tables", "more", "words"),
    [
        ((), "", "team=shop: none found"),
        (("a-b.c", "a.b-c"), "", "both give the dataset 'a_b_c'"),
        (("orders",), "exclude: orders", "1 found, all excluded"),
        (("orders",), "required_tables: customers", "'customers' not found"),
        (("_orders",), "", "Set dataset_prefix"),
    ],
)
def test_a_refused_refresh_writes_nothing(
    server: LocalDynamoDB,
    clients: Clients,
    tmp_path: Path,
    tables: tuple[str, ...],
    more: str,
    words: str,
) -> None:
    tagged(clients, *tables)
    with pytest.raises(DefinitionError, match=words) as caught:
        component(server, more).write_state_to_path(tmp_path / "state")
    assert "Nothing was written" in caught.value.safe
    assert list(tmp_path.iterdir()) == []


def test_a_refresh_that_fails_leaves_the_former_state(
    server: LocalDynamoDB, clients: Clients, tmp_path: Path
) -> None:
    tagged(clients, "orders")
    made, state = component(server), tmp_path / "state"
    made.write_state_to_path(state)
    before = state.read_bytes()
    made.credentials.endpoint_url = "http://127.0.0.1:9"
    made.credentials.max_attempts = 1
    with pytest.raises(SourceError, match="the tables with the tag team=shop"):
        made.write_state_to_path(state)
    assert state.read_bytes() == before


def test_without_a_state_nothing_is_built_and_the_log_says_so(
    server: LocalDynamoDB, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert built(component(server), None) == []  # type: ignore[arg-type]  # no state at all
    assert "dg utils refresh-defs-state" in caplog.text


class ByTeam(DynamoDBTablesByTagComponent):
    def get_dataset_id(self, table_name: str) -> str:
        return f"{table_name.lower()}_of_shop"


def test_a_subclass_names_the_datasets(
    server: LocalDynamoDB, clients: Clients, tmp_path: Path
) -> None:
    tagged(clients, "Orders")
    made = ByTeam(tag_key="team", tag_value="shop", credentials=component(server).credentials)
    made.region = "us-west-2"
    made.write_state_to_path(tmp_path / "state")
    assert built(made, tmp_path / "state") == ["dynamodb/Orders", "orders_of_shop"]


class AsTheyAre(DynamoDBTablesByTagComponent):
    def get_dataset_id(self, table_name: str) -> str:
        return table_name


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (("orders-eu", "orders_eu"), "are named 'orders_eu'.*'orders-eu' of 'orders-eu'"),
        (("orders", "source_orders"), "the job of all transforms of 'orders'"),
    ],
)
def test_a_refresh_whose_state_could_not_be_loaded_is_refused(
    server: LocalDynamoDB, clients: Clients, tmp_path: Path, tables: tuple[str, ...], words: str
) -> None:
    tagged(clients, *tables)
    made = AsTheyAre(tag_key="team", tag_value="shop", credentials=component(server).credentials)
    made.region, made.one_run_per_source = "us-west-2", True
    with pytest.raises(DefinitionError, match=words) as caught:
        made.write_state_to_path(tmp_path / "state")
    assert "Nothing was written" in caught.value.safe
    assert "exclude" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    made.exclude = [tables[1]]
    made.write_state_to_path(tmp_path / "state")
    assert built(made, tmp_path / "state") == sorted(
        [f"dynamodb/{tables[0].replace('-', '_')}", tables[0]]
    )


def test_the_key_of_the_state_tells_components_apart(server: LocalDynamoDB) -> None:
    made = component(server, "dataset_prefix: raw_")
    assert made.defs_state_config.key == "DynamoDBTablesByTag[team=shop,us-west-2,raw_]"
    assert made.defs_state_config.refresh_if_dev is False
    own = component(server, "defs_state: {management_type: LOCAL_FILESYSTEM, key: mine}")
    assert own.defs_state_config.key == "mine"


def test_a_state_in_the_storage_of_the_instance_is_known_to_the_next_refresh(
    server: LocalDynamoDB, clients: Clients, tmp_path: Path
) -> None:
    tagged(clients, "lost", "stays")
    made = component(server, "defs_state: {management_type: VERSIONED_STATE_STORAGE}")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        asyncio.run(made.refresh_state(tmp_path))
        untag(clients, "lost")
        version = asyncio.run(made.refresh_state(tmp_path))
        storage = instance.defs_state_storage
        assert storage is not None
        storage.download_state_to_path(made.defs_state_config.key, version, tmp_path / "state")
    assert {"lost", "stays"} <= set(built(made, tmp_path / "state"))


@pytest.mark.parametrize("scaffold_format", ["yaml", "python"])
def test_the_scaffolded_file_loads(scaffold_format: Any) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            DynamoDBTablesByTagComponent,
            scaffold_params={"tag_key": "no", "tag_value": "a: b", "dataset_prefix": "raw_"},
            scaffold_format=scaffold_format,
        )
        if scaffold_format == "python":
            text = (path / "component.py").read_text("utf-8")
            assert "DynamoDBTablesByTagComponent" in text
            return
        with sandbox.load_component_and_build_defs(defs_path=path) as (made, defs):
            assert isinstance(made, DynamoDBTablesByTagComponent)
            assert (made.tag_key, made.tag_value) == ("no", "a: b")
            assert (made.region, made.dataset_prefix) == (None, "raw_")
            assert not defs.resolve_asset_graph().get_all_asset_keys()
