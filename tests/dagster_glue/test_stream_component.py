"""`DynamoDBStreamComponent`: its schema, what it builds, what a subclass overrides, and `dg`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster.components.testing import create_defs_folder_sandbox
from dagster_aws.components import Boto3CredentialsComponent

from datazone_dagster import DatazoneAssetData, DynamoDBStreamComponent
from datazone_dagster.api.function_version import function_version
from datazone_dagster.dagster_glue.components.component_fields import DynamoDBCredentials
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import drain_once, read_dataset
from datazone_dagster.sources import KinesisSource
from datazone_dagster.testing import ScriptedStream, run_transform

SELECT = """
table_name: orders
dataset: current-orders
start: trim_horizon
select:
  - dynamodb.Keys.id.S as id
  - upper(dynamodb.NewImage.status.S) as status
"""
FUNCTIONS = """
from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.sources import DynamoDBSource

def paid(orders):
    return orders.filter("dynamodb.NewImage.status.S = 'paid'")

def paid_ids(orders):
    return paid(orders).select("dynamodb.Keys.id.S as id")

@transform(
    input_mapping={"orders": Input(Stream(source=DynamoDBSource("orders")))},
    output_mapping={"rows": Output(Dataset("rows"))},
)
def decorated(orders):
    return orders

NUMBER = 3
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "shop_functions.py").write_text(FUNCTIONS, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("shop_functions", None)


def component(text: str, kind: type[DynamoDBStreamComponent] = DynamoDBStreamComponent) -> Any:
    return kind.resolve_from_yaml(text)


def stream() -> ScriptedStream:
    made = ScriptedStream("orders", key=("id",))
    made.put({"id": {"S": "a"}, "status": {"S": "placed"}})
    made.put({"id": {"S": "b"}, "status": {"S": "paid"}})
    return made


def rows(text: str, tmp_path: Path) -> list[dict[str, object]]:
    transform = component(text).build_transform()
    [table] = run_transform(transform, stream(), tmp_path / "lake").values()
    names = [name for name in table.column_names if not name.startswith("_dz_")]
    return sorted(table.select(names).to_pylist(), key=str)


def properties(model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {}).items()


def test_every_field_says_what_it_is() -> None:
    found = list(properties(DynamoDBStreamComponent.get_model_cls()))
    assert len(found) > 35
    for name, field in found:
        assert {"title", "description", "examples"} <= field.keys(), name
        assert "default" in field or name in ("table_name", "dataset"), name
        json.dumps(field["examples"])
        assert "unset" not in str(field.get("default", "")), name


def test_the_credentials_are_named_as_those_of_dagster_aws() -> None:
    ours = DynamoDBCredentials.model().model_fields
    assert Boto3CredentialsComponent.model_fields.keys() <= ours.keys()
    made = component(SELECT + "credentials: {region_name: eu-west-1, max_attempts: 4}")
    resource = made.credentials.resource()
    assert (resource.region_name, resource.max_attempts) == ("eu-west-1", 4)


def test_a_secret_stays_the_name_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster stores and shows the settings of resources."""
    names = ("SHOP_KEY", "SHOP_SECRET", "SHOP_TOKEN", "LAKE_SECRET")
    for name in names:
        monkeypatch.setenv(name, f"hidden-{name}")
    made = component(
        f"""{SELECT}
credentials:
  aws_access_key_id: "{{{{ env.SHOP_KEY }}}}"
  aws_secret_access_key: "{{{{ env('SHOP_SECRET') }}}}"
  aws_session_token: "{{{{env.SHOP_TOKEN}}}}"
  external_id: "{{{{ env.NOT_SET }}}}"
  region_name: "{{{{ env.SHOP_KEY }}}}"
lakehouse:
  uri: s3://acme/lake
  storage_options: {{AWS_SECRET_ACCESS_KEY: "{{{{ env.LAKE_SECRET }}}}", AWS_REGION: eu-west-1}}
"""
    )
    resource, lakehouse = made.credentials.resource(), made.lakehouse.resource()
    assert resource.external_id is None
    assert resource.region_name == "hidden-SHOP_KEY"  # no secret: a value, as ever
    defs = made.build_defs(None)
    stored = RepositorySnap.from_def(defs.get_repository_def())
    text = dg.serialize_value(stored)
    for name in ("SHOP_SECRET", "SHOP_TOKEN", "LAKE_SECRET"):
        assert f"hidden-{name}" not in text
        assert name in text
    for used in (resource.process_config_and_initialize(), made.credentials.initialized()):
        assert used.aws_secret_access_key == "hidden-SHOP_SECRET"
        assert used.aws_session_token == "hidden-SHOP_TOKEN"
    options = lakehouse.process_config_and_initialize().storage_options
    assert options == {"AWS_SECRET_ACCESS_KEY": "hidden-LAKE_SECRET", "AWS_REGION": "eu-west-1"}


def test_columns_listed_in_yaml(tmp_path: Path) -> None:
    assert rows(SELECT, tmp_path) == [
        {"id": "a", "status": "PLACED"},
        {"id": "b", "status": "PAID"},
    ]


def test_a_single_column_needs_no_list(tmp_path: Path) -> None:
    text = "{table_name: orders, dataset: rows, start: trim_horizon, select: eventName as name}"
    assert rows(text, tmp_path) == [{"name": "INSERT"}] * 2


def test_changes_come_through_kinesis_where_yaml_names_a_stream() -> None:
    text = "{table_name: orders, dataset: rows, region: eu-west-1, kinesis_stream: orders-changes}"
    source = component(text).build_transform().source
    assert isinstance(source, KinesisSource)
    assert (source.table_name, source.stream_name) == ("orders", "orders-changes")
    assert source.region == "eu-west-1"
    component(text).build_defs(None)
    with pytest.raises(DefinitionError, match="kinesis_stream"):
        component(text[:-1] + ", stream_enabled: false}").build_transform()


def test_the_keys_have_the_prefix() -> None:
    text = "{table_name: orders, dataset: rows, key_prefix: [team, raw]}"
    keys = component(text).build_defs(None).resolve_all_asset_keys()
    assert set(keys) == {
        dg.AssetKey(["team", "raw", "rows"]),
        dg.AssetKey(["team", "raw", "dynamodb", "orders"]),
    }


def test_without_columns_the_attributes_of_the_items(tmp_path: Path) -> None:
    text = "{table_name: orders, dataset: rows, start: trim_horizon}"
    assert rows(text, tmp_path) == [{"id": "a", "status": "placed"}, {"id": "b", "status": "paid"}]


@pytest.mark.usefixtures("functions")
def test_a_function_alone_or_with_columns(tmp_path: Path) -> None:
    base = "table_name: orders\ndataset: rows\nstart: trim_horizon\ntransform: shop_functions."
    assert rows(f"{base}paid_ids", tmp_path) == [{"id": "b"}]
    selected = f"{base}paid\nselect: [dynamodb.NewImage.status.S as was]"
    assert rows(selected, tmp_path / "other") == [{"was": "paid"}]


@pytest.mark.usefixtures("functions")
def test_the_version_is_that_of_function_and_columns() -> None:
    base = "table_name: orders\ndataset: rows\ntransform: shop_functions."
    texts = [
        SELECT,
        SELECT + "  - eventName\n",
        f"{base}paid",
        f"{base}paid_ids",
        f"{base}paid\nselect: [eventName]",
    ]
    versions = [function_version(component(text).build_transform()) for text in texts]
    assert len(set(versions)) == len(texts)
    assert versions == [function_version(component(text).build_transform()) for text in texts]


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("transform: shop_functions.nothing", "can't be imported"),
        ("transform: nowhere.orders", "can't be imported"),
        ("transform: orders", "Name a function"),
        ("transform: shop_functions.NUMBER", "Name a function"),
        ("transform: shop_functions.decorated", "decorated one"),
        ("mode: upsert", "upsert"),
        ("buckets: 3", "power of two"),
        ("drain: often", "drain='often'"),
        ("drain: runs", "1 to 32"),
        ("drain_workers: 2", "drain='tick'"),
        ("kinesis_stream: changes\ndrain: runs", "drain: 'runs' is not allowed"),
        ("kinesis_stream: changes\ndrain_workers: 2", "drain_workers: 2 is not allowed"),
        ("tags: prod", "tags: 'prod' is not a mapping"),
        ("mask: email", "mask: 'email' is not a mapping"),
        ("lakehouse: {storage_options: quick}", "storage_options: 'quick' is not a mapping"),
        ("default_status: SLEEPING", "Allowed: RUNNING, STOPPED"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_it(more: str, words: str) -> None:
    made = component(f"table_name: orders\ndataset: rows\n{more}")
    with pytest.raises(DefinitionError, match=words):
        made.build_defs(None)


class Reported(DynamoDBStreamComponent):
    """A component of a project: other owners, and a step after the run."""

    seen: list[str] = []

    def get_asset_spec(self, data: DatazoneAssetData) -> dg.AssetSpec:
        return super().get_asset_spec(data).replace_attributes(owners=["team:shop"])

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[Any]) -> Iterator[Any]:
        self.seen.append("before")
        yield from super().execute(context, events)
        self.seen.append("after")


def test_a_subclass_changes_the_spec_and_stands_around_the_run(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "lake"))
    made = component(SELECT + f"lakehouse: {{uri: {layout.uri}}}", Reported)
    defs = made.build_defs(None)
    [transform] = [made.build_transform()]
    while not drain_once(transform.source, stream(), layout).caught_up:
        pass
    asset = defs.resolve_asset_graph().get(dg.AssetKey("current-orders"))
    assert asset.owners == ["team:shop"]
    assert "dagster/code_references" not in asset.metadata  # there is no code of the user
    job = defs.resolve_job_def("apply_current_orders")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance).success
    assert Reported.seen == ["before", "after"]
    assert read_dataset(layout, "current-orders").num_rows == 2


def test_components_of_one_table_share_its_drain(tmp_path: Path) -> None:
    lake = f"lakehouse: {{uri: {tmp_path}}}"
    one = component(SELECT + lake).build_defs(None)
    other = component((SELECT + lake).replace("current-orders", "others")).build_defs(None)
    merged = dg.Definitions.merge(one, other)
    names = [sensor.name for sensor in merged.sensors or ()]
    assert names.count("drain_orders") == names.count("watch_drains") == len(names) / 2


def test_a_dataset_with_buckets_has_a_partition_for_each(tmp_path: Path) -> None:
    made = component(f"{SELECT}lakehouse: {{uri: {tmp_path}}}\nbuckets: 4\nmode: history\n")
    asset = made.build_defs(None).resolve_asset_graph().get(dg.AssetKey("current-orders"))
    assert asset.partitions_def.get_partition_keys() == [f"{one}-of-4" for one in range(1, 5)]


def test_drain_workers_have_a_job_with_a_partition_for_each(tmp_path: Path) -> None:
    lake = f"lakehouse: {{uri: {tmp_path}}}\n"
    made = component(f"{SELECT}{lake}drain: runs\ndrain_workers: 3\n")
    job = made.build_defs(None).resolve_job_def("drain_shards_orders")
    assert job.partitions_def is not None
    assert job.partitions_def.get_partition_keys() == [f"{one}-of-3" for one in range(1, 4)]


class Around(DynamoDBStreamComponent):
    """A component of a project that does something after the run."""

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[Any]) -> Iterator[Any]:
        yield from super().execute(context, events)
        context.log.info("Applied.")


def test_components_of_one_table_share_a_run(tmp_path: Path) -> None:
    text = f"{SELECT}lakehouse: {{uri: {tmp_path}}}\none_run_per_source: true\n"
    made = [
        component(text.replace("current-orders", name), kind).build_defs(None)
        for name, kind in (
            ("one", DynamoDBStreamComponent),
            ("other", DynamoDBStreamComponent),
            ("around", Around),
        )
    ]
    job = dg.Definitions.merge(*made).resolve_job_def("apply_source_orders")
    assert {node.name for node in job.nodes} == {"one", "other"}  # not of what is around a run


@pytest.mark.parametrize("scaffold_format", ["yaml", "python"])
def test_the_scaffolded_file_loads(scaffold_format: Any) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            DynamoDBStreamComponent,
            scaffold_params={"table_name": "shop.orders", "region": "eu-west-1", "dataset": "no"},
            scaffold_format=scaffold_format,
        )
        if scaffold_format == "python":
            assert "DynamoDBStreamComponent" in (path / "component.py").read_text("utf-8")
            return
        text = (path / "defs.yaml").read_text("utf-8")
        assert "# select:" in text
        with sandbox.load_component_and_build_defs(defs_path=path) as (made, defs):
            assert isinstance(made, DynamoDBStreamComponent)
            assert (made.table_name, made.region, made.dataset) == (
                "shop.orders",
                "eu-west-1",
                "no",
            )
            assert defs.resolve_asset_graph().has(dg.AssetKey("no"))
