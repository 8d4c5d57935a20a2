"""Options as the libraries get them: explicit, and without what only another library knows."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from datazone_dagster.delta.store_access import _groups, delta_rs_options
from datazone_dagster.delta.time_limits import REQUESTS
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.store_options import checked_options

PACKAGE = Path(__file__).parents[2] / "datazone_dagster"
OPENS = re.compile(
    r"\b(DeltaTable|DeltaTable\.create|DeltaStorageHandler|scan_delta|from_url|S3Store)\("
)
GIVEN = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
}


def test_stores_are_opened_with_options_of_this_module_only() -> None:
    """A library that is given the user's options as they are looks for credentials by itself."""
    found = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if OPENS.search(re.sub(r"->.*|: .*DeltaTable", "", file.read_text("utf-8")))
    }
    assert found == {
        "delta/__init__.py",
        "delta/table_state.py",
        "delta/store_access.py",
        "dataset/read_dataset.py",
    }
    for file in found - {"delta/store_access.py"}:
        text = (PACKAGE / file).read_text("utf-8")
        assert len(OPENS.findall(text)) == text.count("delta_rs_options("), file


def test_options_go_to_the_group_that_knows_them() -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "aws_conditional_put": "etag",
        "REGION": "eu-west-1",
        "timeout": "30s",
        "max_retries": "2",
        "retry_timeout": "10s",
        "backoff_config.init_backoff": "100ms",
    }
    config, client, retry = _groups(checked_options("s3://b/x", options))
    assert config == {
        "aws_endpoint": "http://127.0.0.1:1",
        "aws_conditional_put": "etag",
        "aws_region": "eu-west-1",
    }
    assert client == {"allow_http": True, "timeout": "30s"}
    assert retry == {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=10),
        "backoff": {"init_backoff": timedelta(milliseconds=100)},
    }


def test_delta_rs_is_told_everything() -> None:
    assert delta_rs_options("s3://b/x", GIVEN) == {
        "aws_access_key_id": "k",
        "aws_secret_access_key": "s",
        "aws_region": "eu-west-1",
        "aws_endpoint": "http://127.0.0.1:1",
        "aws_endpoint_url_s3": "http://127.0.0.1:1",
        "aws_skip_signature": "false",
        "allow_http": "true",
        **REQUESTS,
    }
    assert delta_rs_options("az://c/x", {"account_name": "a"}) == {
        "azure_storage_account_name": "a",
        **REQUESTS,
    }


def test_the_endpoint_of_an_express_bucket_is_that_of_its_zone() -> None:
    options = {**GIVEN, "AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"}
    found = delta_rs_options("s3://lake--euw1-az1--x-s3/x", options)
    assert found["aws_endpoint"] == (
        "https://lake--euw1-az1--x-s3.s3express-euw1-az1.eu-west-1.amazonaws.com"
    )
    assert (found["aws_s3_express"], found["aws_virtual_hosted_style_request"]) == ("true", "true")


def test_the_host_of_a_virtual_hosted_bucket() -> None:
    options = {
        **GIVEN,
        "AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com",
        "virtual_hosted_style_request": "true",
    }
    found = delta_rs_options("s3://lake/x", options)
    assert found["aws_endpoint"] == "https://lake.s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (GIVEN, {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"}, "overwrite each other's commits"),
        (GIVEN, {"AWS_SESSION_TOKEN": "hush"}, "Unset AWS_SESSION_TOKEN"),
        ({**GIVEN, "AWS_SECRET_ACCESS_KEY": ""}, {}, "AWS_SECRET_ACCESS_KEY is missing"),
    ],
)
def test_an_environment_that_contradicts(
    options: dict[str, str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DatazoneError) as caught:
        delta_rs_options("s3://b/x", options)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)
