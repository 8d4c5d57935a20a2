from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from datazone_dagster import Dataset, Input, Output, Stream, build_definitions, transform
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.errors import CredentialsError, DefinitionError
from datazone_dagster.model.layout import Layout
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.sources import DynamoDBSource

ROLE = "arn:aws:iam::123456789012:role/stream-reader"


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "DATAZONE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_settings_reach_the_connection() -> None:
    resource = DynamoDBStreamsResource(
        region_name="us-west-2",
        endpoint_url="http://127.0.0.1:8000",
        profile_name="lake",
        max_attempts=5,
        retry_mode="adaptive",
        connect_timeout_seconds=1.5,
        read_timeout_seconds=2.5,
        role_to_assume=ROLE,
        role_session_name="orders",
        external_id="word",
        account_id_endpoint_mode="required",
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        aws_session_token="token",
        use_ssl=False,
        verify=False,
    )
    assert resource.connection_settings(max_pool_connections=7) == ConnectionSettings(
        region="us-west-2",
        endpoint_url="http://127.0.0.1:8000",
        profile_name="lake",
        max_attempts=5,
        retry_mode="adaptive",
        connect_timeout_seconds=1.5,
        read_timeout_seconds=2.5,
        role_arn=ROLE,
        role_session_name="orders",
        external_id="word",
        account_id_endpoint_mode="required",
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        aws_session_token="token",
        max_pool_connections=7,
        use_ssl=False,
        verify=False,
    )


def test_without_settings_the_connection_has_its_defaults() -> None:
    assert DynamoDBStreamsResource().connection_settings() == ConnectionSettings()


def test_region_and_endpoint_of_a_source_win() -> None:
    resource = DynamoDBStreamsResource(region_name="us-west-2", endpoint_url="http://127.0.0.1:1")
    settings = resource.connection_settings(region="eu-west-1", endpoint_url="http://127.0.0.1:2")
    assert (settings.region, settings.endpoint_url) == ("eu-west-1", "http://127.0.0.1:2")


def test_a_client_connects_on_first_use() -> None:
    client = DynamoDBStreamsResource(region_name="us-west-2").stream_client("orders")
    with pytest.raises(CredentialsError, match="'orders'"):
        client.stream_arns()


def test_a_source_with_a_wrong_endpoint_is_refused() -> None:
    with pytest.raises(DefinitionError, match="endpoint_url"):
        DynamoDBStreamsResource().stream_client("orders", endpoint_url="127.0.0.1:8000")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"retry_mode": "legacy"},
        {"account_id_endpoint_mode": "off"},
        {"connect_timeout_seconds": 0},
        {"read_timeout_seconds": 61},
    ],
)
def test_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DynamoDBStreamsResource(**wrong)


def test_every_field_has_a_description() -> None:
    for resource in (DynamoDBStreamsResource, Lakehouse):
        for name, field in resource.model_fields.items():
            assert field.description, name


def test_secrets_are_not_shown() -> None:
    resource = DynamoDBStreamsResource(
        aws_access_key_id="AKID",
        aws_secret_access_key="hush",
        aws_session_token="tok",
        external_id="word",
    )
    lakehouse = Lakehouse(uri="s3://lake", storage_options={"AWS_SECRET_ACCESS_KEY": "hush"})
    shown = f"{resource!r} {resource} {lakehouse!r} {lakehouse} {lakehouse.layout!r}"
    assert not any(secret in shown for secret in ("AKID", "hush", "'tok'", "word"))


def test_variables_are_resolved_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_SECRET", "hush")
    monkeypatch.setenv("LAKE_URI", "s3://lake")
    monkeypatch.setenv("LAKE_RETRIES", "adaptive")
    seen: list[object] = []

    @dg.asset
    def probe(streams: DynamoDBStreamsResource, lakehouse: Lakehouse) -> None:
        settings = streams.connection_settings()
        seen.extend([settings.aws_secret_access_key, settings.retry_mode])
        seen.extend([lakehouse.layout.uri, dict(lakehouse.layout.storage_options)])

    streams = DynamoDBStreamsResource(
        aws_access_key_id="AKID",
        aws_secret_access_key=dg.EnvVar("LAKE_SECRET"),
        retry_mode=dg.EnvVar("LAKE_RETRIES"),
    )
    lakehouse = Lakehouse(
        uri=dg.EnvVar("LAKE_URI"),
        storage_options={"AWS_SECRET_ACCESS_KEY": dg.EnvVar("LAKE_SECRET")},
    )
    result = dg.materialize([probe], resources={"streams": streams, "lakehouse": lakehouse})
    assert result.success
    assert seen == ["hush", "adaptive", "s3://lake", {"AWS_SECRET_ACCESS_KEY": "hush"}]


def test_a_wrong_value_in_a_variable_is_found_at_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_RETRIES", "legacy")
    resource = DynamoDBStreamsResource(retry_mode=dg.EnvVar("LAKE_RETRIES"))
    with pytest.raises((DefinitionError, ValidationError), match="legacy"):
        resource.process_config_and_initialize().connection_settings()


def test_the_default_lakehouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lakehouse = Lakehouse()
    monkeypatch.chdir(tmp_path)
    assert lakehouse.layout.uri == str(tmp_path / ".datazone" / "lakehouse")
    monkeypatch.setenv("DATAZONE_LAKEHOUSE_URI", "s3://lake/orders")
    assert lakehouse.layout.uri == "s3://lake/orders"
    assert Lakehouse(uri="tables").layout.uri == str(tmp_path / "tables")


def test_a_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Lakehouse(uri="~/lake").layout.uri == str(tmp_path / "lake")
    assert Lakehouse(uri="file:///lake").layout.uri == "file:///lake"


def test_a_lakehouse_with_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="Did you mean AWS_REGION"):
        Lakehouse(uri="s3://lake", storage_options={"AWS_REGOIN": "eu-west-1"})
    with pytest.raises(ValidationError, match="not an option"):
        Lakehouse(
            uri=dg.EnvVar("LAKE_URI"), storage_options={"AWS_SECRET_KEY_ID_": dg.EnvVar("SECRET")}
        )
    with pytest.raises(ValidationError, match="both a profile and access keys"):
        Lakehouse(
            uri="s3://lake",
            profile_name="lake",
            storage_options={"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
        )
    with pytest.raises(ValidationError, match="The uri"):
        Lakehouse(uri="s3://lake/a%20b")


def test_profile_and_role_go_with_the_options_to_any_location() -> None:
    lakehouse = Lakehouse(
        uri="s3://lake",
        storage_options={"AWS_REGION": "eu-west-1"},
        profile_name="lake",
        role_to_assume="arn:aws:iam::123456789012:role/writer",
        external_id="word",
    )
    options = {
        "AWS_REGION": "eu-west-1",
        "aws_profile": "lake",
        "aws_iam_role_arn": "arn:aws:iam::123456789012:role/writer",
        "aws_iam_role_external_id": "word",
    }
    assert lakehouse.layout.storage_options == options
    assert lakehouse.at("s3://copy").layout == Layout("s3://copy", options)
    assert "word" not in f"{lakehouse!r} {lakehouse} {lakehouse.layout!r}"


def test_secrets_in_the_code_are_warned_of() -> None:
    @transform(
        input_mapping={"orders": Input(Stream(source=DynamoDBSource(table_name="orders")))},
        output_mapping={"current": Output(Dataset(id="warned"))},
    )
    def copied(orders: Any) -> Any:
        return orders.items()

    def build(secret: str) -> None:
        options = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": secret}
        lakehouse = Lakehouse(uri="s3://lake", storage_options=options)
        build_definitions([copied], lakehouse=lakehouse)

    with pytest.warns(UserWarning, match="AWS_SECRET_ACCESS_KEY written in the code") as warned:
        build("hush")
    assert "hush" not in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(dg.EnvVar("LAKE_SECRET"))
