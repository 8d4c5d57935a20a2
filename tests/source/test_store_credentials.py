"""Region, endpoint and credentials of an S3 lakehouse, as botocore's chain resolves them."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster.errors import DefinitionError, StorageError
from datazone_dagster.source import store_credentials
from datazone_dagster.source.store_credentials import store_access

KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "hush"}


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of profiles, in an environment without any setting of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return file


def test_what_is_said_nearer_wins(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {**KEYS, "aws_endpoint": "http://option"}
    assert store_access(here).region == "us-east-1"
    config.write_text("[default]\nregion = eu-west-1\nendpoint_url = http://profile\n")
    # A new environment is a new access: a process does not keep the old one for it.
    monkeypatch.setenv("AWS_PROFILE", "default")
    assert store_access(KEYS).endpoint_url == "http://profile"
    assert store_access(KEYS).region == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert store_access(here).region == "eu-west-2"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert store_access(here).region == "eu-west-3"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")
    assert store_access(KEYS).endpoint_url == "http://s3"
    options = {**here, "aws_region": "eu-north-1"}
    assert store_access(options).region == "eu-north-1"
    assert store_access(options).endpoint_url == "http://option"


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("us-east-1", "https://s3.us-east-1.amazonaws.com"),
        ("eu-west-1", "https://s3.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_endpoint_of_a_region(region: str, endpoint: str) -> None:
    assert store_access({**KEYS, "aws_region": region}).endpoint_url == endpoint


def test_an_identity_is_resolved_once() -> None:
    assert store_access(KEYS) is store_access(dict(KEYS))
    assert store_access(KEYS) is not store_access({**KEYS, "aws_access_key_id": "other"})
    assert "hush" not in repr(store_access(KEYS).credentials())


def test_an_environment_that_keeps_changing_is_not_kept_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(40):
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", str(number))
        store_access({**KEYS, "aws_endpoint": "http://option"})
    assert len(store_credentials._cache) <= store_credentials._IDENTITIES_MOST


def test_credentials_that_expire_are_asked_for_again(config: Path, tmp_path: Path) -> None:
    printed = tmp_path / "printed.json"
    config.write_text(
        "[profile lake]\n"
        f"credential_process = {sys.executable} -c \"print(open('{printed}').read())\"\n"
    )
    access = store_access({"aws_profile": "lake"})
    for key in ("first", "second"):
        ends = datetime.now(timezone.utc) + timedelta(seconds=60)
        printed.write_text(
            json.dumps(
                {
                    "Version": 1,
                    "AccessKeyId": key,
                    "SecretAccessKey": "s",
                    "SessionToken": "t",
                    "Expiration": ends.isoformat(),
                }
            )
        )
        found = access.credentials()
        assert (found.access_key_id, found.session_token, found.expires) == (key, "t", True)
    assert not store_access(KEYS).credentials().expires


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"aws_profile": "nobody"}, "profile 'nobody'"),
        ({}, "the environment of this process"),
        ({"aws_iam_role_arn": "arn:aws:iam::123456789012:role/x"}, "role arn:aws:iam::1234"),
        ({"aws_endpoint": "http://127.0.0.1:9"}, "endpoint http://127.0.0.1:9"),
    ],
)
def test_no_credentials_is_an_error_that_names_who_has_none(
    options: dict[str, str], named: str
) -> None:
    with pytest.raises(StorageError) as caught:
        store_access({"aws_endpoint": "https://s3.test", **options}).credentials()
    assert named in str(caught.value)
    assert "AWS_PROFILE" in str(caught.value)


def test_a_role_that_is_no_arn() -> None:
    with pytest.raises(DefinitionError, match="role_arn='writer'"):
        store_access({**KEYS, "aws_iam_role_arn": "writer"})
