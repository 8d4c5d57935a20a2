from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from datazone_dagster.errors import (
    AccessDeniedError,
    CredentialsError,
    DefinitionError,
    SourceError,
)
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.endpoints import is_local
from datazone_dagster.source.session import (
    Clients,
    ConnectionSettings,
    build_clients,
)
from tests.source.scripted import Answer, ScriptedService, ok

ROLE = "arn:aws:iam::123456789012:role/stream-reader"
FAR = "2099-01-01T00:00:00Z"
KEYS: dict[str, Any] = {"aws_access_key_id": "AKIDOWN", "aws_secret_access_key": "own-secret"}
EMPTY = {"Records": [], "NextShardIterator": "next"}


def _key_of(headers: Any) -> str:
    return str(headers["Authorization"].split("Credential=")[1].split("/")[0])


def _credentials(clients: Clients) -> str | None:
    """Return the access key that signs requests of these clients."""
    signer = clients.streams._request_signer  # type: ignore[attr-defined] # no public way to ask
    credentials = signer._credentials
    return None if credentials is None else str(credentials.access_key)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://localhost:8000", True),
        ("http://dynamodb.localhost:8000", True),
        ("http://[::1]:8000", True),
        ("https://streams.dynamodb.us-west-2.amazonaws.com", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1:8000", False),
        ("http://dynamodb:8000", False),
    ],
)
def test_what_is_local(url: str, local: bool) -> None:
    assert is_local(url) is local


def test_a_local_endpoint_needs_no_aws_setup(service: ScriptedService) -> None:
    service.script("GetRecords", ok(EMPTY))
    clients = build_clients(ConnectionSettings(endpoint_url=service.url))
    BotoStreamClient("orders", clients).get_records("i")
    assert _key_of(service.requests[0].headers) == "local"
    assert clients.streams.meta.region_name == "us-east-1"


def test_own_credentials_and_region_are_used_on_a_local_endpoint(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    clients = build_clients(ConnectionSettings(endpoint_url=service.url))
    assert _credentials(clients) == "AKIDENV"
    assert clients.streams.meta.region_name == "eu-central-1"


def test_static_keys_win_over_the_environment(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert _credentials(build_clients(ConnectionSettings(region="us-west-2", **KEYS))) == "AKIDOWN"


@pytest.mark.parametrize("url", [None, "https://dynamodb.example.com"])
def test_a_real_endpoint_gets_no_placeholders(url: str | None) -> None:
    clients = build_clients(ConnectionSettings(region="us-west-2", endpoint_url=url))
    assert _credentials(clients) is None
    with pytest.raises(SourceError, match="no AWS region"):
        build_clients(ConnectionSettings(endpoint_url=url))


@pytest.mark.parametrize(
    "variables",
    [
        ("AWS_ENDPOINT_URL",),
        ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS"),
    ],
)
@pytest.mark.parametrize("mode", [None, "preferred", "required"])
def test_an_endpoint_of_the_environment_wins_over_account_endpoints(
    service: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
    variables: tuple[str, ...],
    mode: Any,
) -> None:
    for name in variables:
        monkeypatch.setenv(name, service.url)
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    service.script("GetRecords", ok(EMPTY))
    service.script("ListStreams", ok({"Streams": []}))
    settings = ConnectionSettings(account_id_endpoint_mode=mode, max_attempts=1)
    client = BotoStreamClient("orders", build_clients(settings))
    iterator = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026|1|abc"
    assert client.get_records(iterator).next_iterator == "next"
    with pytest.raises(SourceError, match="HTTP 500"):
        client.stream_arns()  # DescribeTable came here too
    assert [request.operation for request in service.requests] == [
        "GetRecords",
        "ListStreams",
        "DescribeTable",
    ]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS"])
def test_half_an_emulator_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:8000")
    with pytest.raises(SourceError, match="Only one of them is on this machine"):
        build_clients(ConnectionSettings(region="us-west-2"))


def test_own_endpoint_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    clients = build_clients(ConnectionSettings(endpoint_url="http://127.0.0.1:2"))
    assert {client.meta.endpoint_url for client in clients} == {"http://127.0.0.1:2"}


def test_settings_reach_botocore() -> None:
    settings = ConnectionSettings(
        region="us-west-2", max_attempts=4, retry_mode="adaptive", max_pool_connections=33
    )
    for client in build_clients(settings):
        config: Any = client.meta.config
        assert config.connect_timeout == 5.0
        assert config.read_timeout == 10.0
        assert config.max_pool_connections == 33
        assert config.retries["mode"] == "adaptive"
        assert config.retries["total_max_attempts"] == 4
        assert config.account_id_endpoint_mode == "preferred"
    for client in build_clients(ConnectionSettings(endpoint_url="http://127.0.0.1:2")):
        assert client.meta.config.account_id_endpoint_mode == "disabled"  # type: ignore[attr-defined] # botocore sets its options at run time


def test_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text("[profile lake]\nregion = eu-west-1\n")
    keys = tmp_path / "credentials"
    keys.write_text("[lake]\naws_access_key_id = AKIDLAKE\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    clients = build_clients(ConnectionSettings(profile_name="lake"))
    assert clients.streams.meta.region_name == "eu-west-1"
    assert _credentials(clients) == "AKIDLAKE"
    with pytest.raises(CredentialsError, match="ProfileNotFound"):
        build_clients(ConnectionSettings(profile_name="typo"))


def test_a_broken_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(SourceError, match="AWS_ENDPOINT_URL"):
        build_clients(ConnectionSettings(region="us-west-2"))


def _sts_answer(key: str, expiration: str) -> Answer:
    return Answer(
        f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
        <AssumeRoleResult><Credentials><AccessKeyId>{key}</AccessKeyId>
        <SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token</SessionToken>
        <Expiration>{expiration}</Expiration></Credentials></AssumeRoleResult>
        </AssumeRoleResponse>""".encode()
    )


def _sts_error(code: str, status: int) -> Answer:
    return Answer(
        f"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>
        <Code>{code}</Code><Message>no</Message></Error></ErrorResponse>""".encode(),
        status,
    )


def _with_role(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> BotoStreamClient:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
    settings = ConnectionSettings(
        region="us-west-2",
        endpoint_url=service.url,
        role_arn=ROLE,
        external_id="shared-word",
        max_attempts=1,
        **KEYS,
    )
    return BotoStreamClient("orders", build_clients(settings), role_arn=ROLE)


def test_a_role_is_assumed_on_first_use(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.script("STS", _sts_answer("AKIDROLE", FAR))
    service.script("GetRecords", ok(EMPTY))
    client = _with_role(service, monkeypatch)
    assert service.requests == []
    client.get_records("i")
    client.get_records("i")

    (asked,) = service.calls("STS")
    form = parse_qs(asked.body.decode())
    assert form["RoleArn"] == [ROLE]
    assert form["RoleSessionName"] == ["datazone-dagster"]
    assert form["ExternalId"] == ["shared-word"]
    assert _key_of(asked.headers) == "AKIDOWN"
    assert {_key_of(r.headers) for r in service.calls("GetRecords")} == {"AKIDROLE"}


def test_the_credentials_of_a_role_are_renewed(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # botocore renews when ten minutes are left.
    soon = (datetime.now(timezone.utc) + timedelta(minutes=5)).isoformat()
    service.script("STS", _sts_answer("AKIDROLE", soon), _sts_answer("AKIDNEXT", FAR))
    service.script("GetRecords", ok(EMPTY))
    client = _with_role(service, monkeypatch)
    for _ in range(3):
        client.get_records("i")
    keys = [_key_of(request.headers) for request in service.calls("GetRecords")]
    assert keys[-1] == "AKIDNEXT"
    assert len(service.calls("STS")) == 2


def test_new_credentials_that_are_expired_by_this_clock(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.script("STS", _sts_answer("AKIDROLE", "2020-01-01T00:00:00Z"))
    with pytest.raises(CredentialsError, match="clock"):
        _with_role(service, monkeypatch).get_records("i")


def test_a_role_that_refuses(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.script("STS", _sts_error("AccessDenied", 403))
    with pytest.raises(AccessDeniedError, match="sts:AssumeRole") as caught:
        _with_role(service, monkeypatch).get_records("i")
    assert ROLE in str(caught.value)
    assert "own-secret" not in str(caught.value)


def test_keys_that_sts_refuses(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.script("STS", _sts_error("InvalidClientTokenId", 403))
    with pytest.raises(CredentialsError, match="STS refused"):
        _with_role(service, monkeypatch).get_records("i")


def test_a_role_without_credentials_to_assume_it(service: ScriptedService) -> None:
    with pytest.raises(CredentialsError, match="NoCredentialsError"):
        build_clients(
            ConnectionSettings(region="us-west-2", endpoint_url=service.url, role_arn=ROLE)
        )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_pool_connections": 0}, "max_pool_connections"),
        ({"connect_timeout_seconds": 0}, "connect_timeout_seconds"),
        ({"read_timeout_seconds": 61}, "read_timeout_seconds"),
        ({"retry_mode": "legacy"}, "adaptive"),
        ({"account_id_endpoint_mode": "off"}, "preferred"),
        ({"role_arn": "stream-reader"}, "arn:aws:iam"),
        ({"endpoint_url": "localhost:8000"}, "http"),
        ({"endpoint_url": "https://me:hush@proxy:1"}, "proxy"),
        ({"aws_access_key_id": "AKID"}, "aws_secret_access_key"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        ConnectionSettings(**wrong)
    assert named in str(caught.value)
    assert "hush" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    settings = ConnectionSettings(
        aws_access_key_id="AKID",
        aws_secret_access_key="hush",
        aws_session_token="token",
        external_id="word",
    )
    assert not any(secret in repr(settings) for secret in ("AKID", "hush", "token=", "word"))
