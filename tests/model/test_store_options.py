"""Options of a store: every spelling is understood or refused, nothing is dropped in silence."""

from __future__ import annotations

import pytest

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import Layout, root_of
from datazone_dagster.model.store_options import checked_options, plain_secrets
from datazone_dagster.model.store_uri import check_uri


@pytest.mark.parametrize(
    ("uri", "given", "canonical"),
    [
        ("s3://b/x", "AWS_REGION", "aws_region"),
        ("s3://b/x", "aws_region", "aws_region"),
        ("s3://b/x", "Region", "aws_region"),
        ("s3a://b/x", "AWS_DEFAULT_REGION", "aws_region"),
        ("s3://b/x", "AWS_ENDPOINT_URL", "aws_endpoint"),
        ("s3://b/x", "endpoint_url", "aws_endpoint"),
        ("s3://b/x", "AWS_ENDPOINT_URL_S3", "aws_endpoint"),
        ("s3://b/x", "token", "aws_session_token"),
        ("s3://b/x", "AWS_ALLOW_HTTP", "allow_http"),
        ("s3://b/x", "allow_http", "allow_http"),
        ("s3://b/x", "sse_kms_key_id", "aws_sse_kms_key_id"),
        ("s3://b/x", "REQUEST_PAYER", "aws_request_payer"),
        ("abfss://c@a/x", "account_name", "azure_storage_account_name"),
        ("az://c/x", "AZURE_STORAGE_ACCOUNT_KEY", "azure_storage_account_key"),
        ("az://c/x", "account_key", "azure_storage_account_key"),
        ("az://c/x", "azure_client_id", "azure_storage_client_id"),
        ("az://c/x", "tenant_id", "azure_storage_tenant_id"),
        ("az://c/x", "sas_token", "azure_storage_sas_key"),
        ("az://c/x", "token", "azure_storage_token"),
        ("az://c/x", "use_azure_cli", "azure_use_azure_cli"),
        ("gs://b/x", "service_account_path", "google_service_account"),
        ("gs://b/x", "GOOGLE_SERVICE_ACCOUNT_KEY", "google_service_account_key"),
        ("gs://b/x", "application_credentials", "google_application_credentials"),
        # A local lakehouse reads exports from S3 with its options.
        ("/tmp/lake", "AWS_REGION", "aws_region"),
        ("gs://b/x", "AWS_REGION", "aws_region"),
    ],
)
def test_every_spelling_of_an_option(uri: str, given: str, canonical: str) -> None:
    assert checked_options(uri, {given: "1"}) == {canonical: "1"}
    assert checked_options(uri, {canonical: "1"}) == {canonical: "1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"AWS_REGOIN": "eu-west-1"}, "Did you mean AWS_REGION?"),
        ({"regionn": "eu-west-1"}, "Did you mean AWS_REGION?"),
        ({"azure_storage_acount_name": "a"}, "not an option of this store"),
        ({"wholly_unknown": "a"}, "AWS_REGION"),
        ({"AWS_REGION": "a", "region": "b"}, "same option"),
        ({"AWS_S3_ALLOW_UNSAFE_RENAME": "true"}, "overwrite each other's commits"),
        ({"AWS_S3_LOCKING_PROVIDER": "dynamodb"}, "dropped that lock"),
        ({"AWS_CONDITIONAL_PUT": "disabled"}, "not supported"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/f"}, "in the environment of the Dagster process"),
        ({"AWS_ROLE_ARN": "arn"}, "role_to_assume"),
        (
            {"AWS_PROFILE": "p", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
            "both a profile and access keys",
        ),
        ({"AWS_PROFILE": "p", "AWS_SKIP_SIGNATURE": "true"}, "no credentials"),
        ({"aws_iam_role_external_id": "x"}, "no role to assume"),
        ({"max_retries": "many"}, "whole number"),
        ({"retry_timeout": "soon"}, "duration"),
    ],
)
def test_options_that_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Layout("s3://lake/x", options)
    assert message in str(caught.value)


def test_options_without_effect_are_left_out() -> None:
    options = {"AWS_FORCE_CREDENTIAL_LOAD": "true", "AWS_S3_ALLOW_UNSAFE_RENAME": "false"}
    assert checked_options("s3://lake/x", options) == {}


def test_the_requester_in_both_spellings_of_a_value() -> None:
    options = {"AWS_REQUEST_PAYER": "requester", "request_payer": "Requester"}
    assert checked_options("s3://lake/x", options) == {"aws_request_payer": "true"}


def test_secrets_are_found_in_every_spelling() -> None:
    options = {"AWS_REGION": "r", "secret_access_key": "s", "AWS_SESSION_TOKEN": "t"}
    assert plain_secrets("s3://b/x", options) == ["secret_access_key", "AWS_SESSION_TOKEN"]
    assert plain_secrets("az://b/x", {"account_key": "s", "sas_key": "t", "account_name": "n"}) == [
        "account_key",
        "sas_key",
    ]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://lake", "s3://lake/", "s3://lake/a b/ü=1/x+y", "gs://lake/a:b@c",
        "abfss://container@account.dfs.core.windows.net/lake", "/tmp/a#b", "/tmp/a?b", "/tmp/100%",
        "relative/dir", "../up", "file:///tmp/a%20b", "s3://lake/50%",
    ],
)  # fmt: skip
def test_locations_that_every_library_reads_alike(uri: str) -> None:
    check_uri(uri)
    check_uri(uri.rstrip("/") + "/_changelog/orders")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://lake/a%20b", "s3://lake/a%41b", "s3://lake/a?b", "s3://lake/a#b", "s3://lake/a\\b",
        "s3://lake/a[b]", "s3://lake/a^b", "s3://lake/a|b", "s3://lake/a\tb", "s3://lake/../b",
        "s3://lake/./b", "s3://lake//b", "s3://lake/a//b", "/tmp/a%41b", "/tmp/a%20b", "/tmp/a\\b",
        "/tmp/a[1]", "/tmp/a\nb", "file:///tmp/a#b", "file:///tmp/a?b", "az://c/a%2Fb",
    ],
)  # fmt: skip
def test_locations_that_libraries_read_differently_are_refused(uri: str) -> None:
    with pytest.raises(DefinitionError, match="The uri"):
        Layout(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:hush@lake/x", "s3://hush@lake/x", "abfss://c:hush@a.dfs.core.windows.net/x",
        "https://hush@host/x", "s3://lake/x?sig=hush",
    ],
)  # fmt: skip
def test_a_secret_in_a_uri_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Layout(uri)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "root"),
    [
        ("s3://lake/orders", "s3://lake"),
        ("s3://lake/a/b/orders", "s3://lake/a/b"),
        ("s3://lake/a/_changelog/orders", "s3://lake/a"),
        ("s3://lake/a/_rebuild/d/1/_changelog/orders", "s3://lake/a"),
        ("abfss://c@a.dfs.core.windows.net/x/_tombstones/d", "abfss://c@a.dfs.core.windows.net/x"),
        ("s3://lake", "s3://lake"),
        ("s3://lake/a/_checkpoints", "s3://lake/a"),
    ],
)
def test_the_lakehouse_of_a_table(table: str, root: str) -> None:
    assert root_of(table) == root
