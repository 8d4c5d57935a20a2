"""One identity: whatever names it, every request of all three libraries is signed by it."""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import polars as pl
import pyarrow as pa
import pytest

from datazone_dagster import Lakehouse
from datazone_dagster.delta import create_table, store_access
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once, maintain_dataset, open_dataset
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import SOURCE, current_rows, expected_rows, flow, order
from tests.store.proxy import Counts, Proxy
from tests.store.servers import (
    ACCESS_KEY,
    BUCKET,
    OTHER_KEY,
    OTHER_SECRET_KEY,
    REGION,
    SECRET_KEY,
)

ROLE = "arn:aws:iam::123456789012:role/lake-writer"


class Aws:
    """A home with AWS settings: profiles, and the processes that print credentials."""

    def __init__(self, home: Path, proxy: Proxy) -> None:
        self.home, self.config = home, home / "config"
        self.config.write_text("")
        self._proxy = proxy

    def profile(self, name: str, **settings: str) -> None:
        header = "[default]" if name == "default" else f"[profile {name}]"
        lines = [header, *(f"{key} = {value}" for key, value in settings.items()), ""]
        self.config.write_text(self.config.read_text() + "\n".join(lines))

    def process(self, key: str, secret: str, *, seconds: float | None = None) -> str:
        """Command line that prints these credentials, as `credential_process` has it."""
        printed: dict[str, object] = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret}
        if seconds is not None:
            ends = datetime.now(timezone.utc) + timedelta(seconds=seconds)
            printed["Expiration"] = ends.isoformat()
        file = self.home / "credentials.json"
        file.write_text(json.dumps(printed))
        return f"{sys.executable} -c \"print(open('{file}').read())\""


@pytest.fixture
def aws(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Aws(tmp_path, proxy)


def somewhere() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def whole_flow(layout: Layout) -> None:
    """Drain, apply, merge again, maintain and read in every way."""
    stream = ScriptedStream(shards=2)
    for status in ("placed", "paid"):
        for number in range(6):
            stream.put(order(number, status, number))
        drain_once(SOURCE, stream, layout)
        apply_transform(flow, layout)
    for dataset in flow.outputs.values():
        maintain_dataset(dataset, layout)
    expected = expected_rows(stream.changes)
    assert current_rows(layout) == expected
    scanned = open_dataset(layout, "events").lazy().select(pl.len()).collect()
    assert scanned.item() == 12


def keys_of(counts: Counts) -> set[str | None]:
    return {one.access_key for one in counts.requests}


LONG = pytest.mark.store


@pytest.mark.parametrize(
    "named_by",
    ["lakehouse", *(pytest.param(one, marks=LONG) for one in ("option", "environment", "default"))],
)
def test_a_profile_with_a_process(
    named_by: str, aws: Aws, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "default" if named_by == "default" else "lake"
    aws.profile(
        name,
        credential_process=aws.process(ACCESS_KEY, SECRET_KEY),
        region=REGION,
        endpoint_url=proxy.url,
    )
    lakehouse = Lakehouse(uri=somewhere())
    if named_by == "environment":
        monkeypatch.setenv("AWS_PROFILE", "lake")
    elif named_by != "default":
        # What the lakehouse names wins over credentials in the environment.
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
        options = {"AWS_PROFILE": "lake"} if named_by == "option" else {}
        profile = None if named_by == "option" else "lake"
        lakehouse = Lakehouse(uri=lakehouse.uri, storage_options=options, profile_name=profile)
    with proxy.counted() as counts:
        whole_flow(lakehouse.layout)
    assert keys_of(counts) == {ACCESS_KEY}


class Sts(HTTPServer):
    """Answers AssumeRole; the role's keys are those of the other account."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _StsHandler)
        self.asked: list[dict[str, str]] = []
        self.token = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _StsHandler(BaseHTTPRequestHandler):
    server: Sts

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        signed_by = self.headers.get("Authorization", "").partition("Credential=")[2]
        self.server.asked.append({**asked, "by": signed_by.partition("/")[0]})
        ends = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
        content = (
            f"<{asked['Action']}Response><{asked['Action']}Result><Credentials>"
            f"<AccessKeyId>{OTHER_KEY}</AccessKeyId>"
            f"<SecretAccessKey>{OTHER_SECRET_KEY}</SecretAccessKey>"
            f"<SessionToken>{self.server.token}</SessionToken><Expiration>{ends}</Expiration>"
            f"</Credentials></{asked['Action']}Result></{asked['Action']}Response>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    with Sts() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        yield server
        server.shutdown()


def located(proxy: Proxy) -> dict[str, str]:
    return {"endpoint_url": proxy.url, "AWS_DEFAULT_REGION": REGION}


@pytest.mark.parametrize(
    "named_by",
    ["lakehouse", *(pytest.param(one, marks=LONG) for one in ("environment", "web identity"))],
)
def test_a_role(
    named_by: str, aws: Aws, sts: Sts, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "base")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "base-secret")
    lakehouse = Lakehouse(uri=somewhere(), storage_options=located(proxy))
    if named_by == "environment":
        monkeypatch.setenv("AWS_IAM_ROLE_ARN", ROLE)
    elif named_by == "lakehouse":
        lakehouse = Lakehouse(
            uri=lakehouse.uri,
            storage_options=located(proxy),
            role_to_assume=ROLE,
            role_session_name="orders",
            external_id="word",
        )
    else:
        token = aws.home / "token"
        token.write_text("signed by the cluster")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    with proxy.counted() as counts:
        whole_flow(lakehouse.layout)
    assert keys_of(counts) == {OTHER_KEY}
    (asked,) = sts.asked
    assert asked["RoleArn"] == ROLE
    if named_by == "lakehouse":
        assert (asked["by"], asked["ExternalId"]) == ("base", "word")
        assert asked["RoleSessionName"] == "orders"


def test_the_token_of_a_role_goes_with_every_request(
    aws: Aws, sts: Sts, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # versitygw knows no tokens, so a proxy that refuses everything shows what is sent.
    sts.token = "hush-hush"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "base")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "base-secret")
    lakehouse = Lakehouse(uri=somewhere(), storage_options=located(proxy), role_to_assume=ROLE)
    with (
        proxy.broken(403, times=None),
        proxy.counted() as counts,
        pytest.raises(StorageError) as caught,
    ):
        whole_flow(lakehouse.layout)
    tokens = {one.headers.get("x-amz-security-token") for one in counts.requests}
    assert (keys_of(counts), tokens) == ({OTHER_KEY}, {"hush-hush"})
    assert "hush" not in str(caught.value)


def test_credentials_that_expire_are_renewed(
    aws: Aws, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_access, "_RENEWED_AFTER", timedelta(0))
    command = aws.process(ACCESS_KEY, SECRET_KEY, seconds=30)
    aws.profile("lake", credential_process=command, region=REGION, endpoint_url=proxy.url)
    layout = Lakehouse(uri=somewhere(), profile_name="lake").layout
    stream = ScriptedStream()
    for key, secret in ((ACCESS_KEY, SECRET_KEY), (OTHER_KEY, OTHER_SECRET_KEY)):
        aws.process(key, secret, seconds=30)
        stream.put(order(1, "placed", 1))
        with proxy.counted() as counts:
            drain_once(SOURCE, stream, layout)
            apply_transform(flow, layout)
        # obstore asks for new ones a tenth of a second after the last time, at the earliest.
        assert counts.requests[-1].access_key == key
    assert current_rows(layout) == expected_rows(stream.changes)


def test_a_store_that_is_kept_asks_for_new_credentials(
    aws: Aws, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_access, "_RENEWED_AFTER", timedelta(0))
    command = aws.process(ACCESS_KEY, SECRET_KEY, seconds=30)
    aws.profile("lake", credential_process=command, region=REGION, endpoint_url=proxy.url)
    store = TableStore(somewhere(), {"AWS_PROFILE": "lake"})
    store.write("first", b"")
    aws.process(OTHER_KEY, OTHER_SECRET_KEY, seconds=30)
    deadline = time.monotonic() + 20
    while OTHER_KEY not in keys_of(proxy.counts()):
        assert time.monotonic() < deadline
        store.replace("next", b"")


def test_a_handle_that_is_kept_is_opened_again_with_new_credentials(aws: Aws, proxy: Proxy) -> None:
    command = aws.process(ACCESS_KEY, SECRET_KEY, seconds=30)
    aws.profile("lake", credential_process=command, region=REGION, endpoint_url=proxy.url)
    uri, options = f"{somewhere()}/t", {"AWS_PROFILE": "lake"}
    create_table(uri, options, "test", pa.schema([pa.field("n", pa.int64())]))
    kept = KeptTable(uri, options, "test")
    snapshot = kept.now()
    assert snapshot is not None
    first, second = kept.handle(snapshot), kept.handle(snapshot)
    kept.give_back(first)
    assert kept.handle(snapshot) is first
    kept.give_back(first)
    aws.process(OTHER_KEY, OTHER_SECRET_KEY, seconds=30)
    with proxy.counted() as counts:
        renewed = kept.handle(snapshot)
    assert renewed is not first
    assert keys_of(counts) == {OTHER_KEY}
    kept.give_back(second)  # opened with the old ones: it is not lent again
    assert kept.handle(snapshot) is not second


@pytest.mark.parametrize(
    "settings",
    [
        {"profile_name": "nobody"},
        {"profile_name": "empty"},
        {"profile_name": "broken"},
    ],
)
def test_without_credentials_the_error_names_the_cure(
    settings: dict[str, str], aws: Aws, proxy: Proxy
) -> None:
    aws.profile("empty", region=REGION)
    aws.profile("broken", credential_process=f"{sys.executable} -c 'raise SystemExit(1)'")
    lakehouse = Lakehouse(uri=somewhere(), storage_options=located(proxy), **settings)
    with pytest.raises(StorageError) as caught:
        drain_once(SOURCE, ScriptedStream(), lakehouse.layout)
    assert settings["profile_name"] in str(caught.value)
    assert "profile_name and role_to_assume" in str(caught.value)


@pytest.mark.store
@pytest.mark.parametrize(
    "spelled",
    [
        ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("aws_endpoint", "aws_region", "aws_access_key_id", "aws_secret_access_key"),
        ("endpoint", "region", "access_key_id", "secret_access_key"),
        ("ENDPOINT_URL", "DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"),
        ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "Aws_Access_Key_Id", "SECRET_access_KEY"),
    ],
)
def test_every_spelling_works_everywhere(
    spelled: tuple[str, ...], aws: Aws, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (proxy.url, REGION, ACCESS_KEY, SECRET_KEY)
    # The environment means something else: the options win in every library.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_IAM_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "false")
    with proxy.counted() as counts:
        whole_flow(Layout(somewhere(), dict(zip(spelled, values, strict=True))))
    assert keys_of(counts) == {ACCESS_KEY}


@pytest.mark.store
@pytest.mark.parametrize("endpoint", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("region", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_everything_from_the_environment(
    endpoint: str, region: str, aws: Aws, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(endpoint, proxy.url)
    monkeypatch.setenv(region, REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with proxy.counted() as counts:
        whole_flow(Layout(somewhere()))
    assert keys_of(counts) == {ACCESS_KEY}
