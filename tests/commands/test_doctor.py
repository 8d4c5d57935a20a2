"""`datazone-dagster doctor`: each line against what it is about, with real clients and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from datazone_dagster import dagster_yaml
from datazone_dagster.api import DynamoDBSource
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.traffic import create_orders_table
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.finding import Finding
from datazone_dagster.model.layout import Layout
from datazone_dagster.observe.setup_diagnosis import dagster_findings, version_findings
from datazone_dagster.observe.source_diagnosis import BREAKS, source_findings
from datazone_dagster.pipeline import ConnectionSettings, probe_lakehouse
from datazone_dagster.source.session import Clients, build_clients
from datazone_dagster.source.source_probe import SourceProbe
from tests.commands.running import ProjectFolder

CALLER = "arn:aws:iam::123456789012:user/ann"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as running:
        create_orders_table(WireClient(running.endpoint_url))
        yield running


class OtherServices:
    """STS and Lambda, which the local DynamoDB does not have: answers in their form."""

    def __init__(self, functions: Sequence[str] = ()) -> None:
        self._functions = functions

    def get_caller_identity(self) -> dict[str, str]:
        return {"Arn": CALLER}

    def list_event_source_mappings(self, **_: object) -> dict[str, Any]:
        arns = [f"arn:aws:lambda:eu-west-1:1:function:{one}" for one in self._functions]
        return {"EventSourceMappings": [{"FunctionArn": arn} for arn in arns]}


def probe(
    server: LocalDynamoDB,
    *,
    table: str = "orders",
    denied: Sequence[str] = (),
    silent: Sequence[str] = (),
    functions: Sequence[str] = (),
    as_account: bool = False,
    monkeypatch: pytest.MonkeyPatch | None = None,
    ahead: timedelta = timedelta(),
) -> dict[str, Finding]:
    """The findings about a table, by their check."""
    settings = ConnectionSettings(endpoint_url=server.endpoint_url, max_attempts=1)
    clients = build_clients(settings, table_name=table)
    for operation in denied:
        answer_instead(clients, operation, 400, "AccessDeniedException")
    for operation in silent:
        answer_instead(clients, operation, 503, "ServiceUnavailable")
    if as_account:
        assert monkeypatch is not None
        monkeypatch.setattr("datazone_dagster.source.source_probe.is_local", lambda _: False)
    facts = SourceProbe(
        DynamoDBSource(table),
        clients,
        lambda _: OtherServices(functions),
        clock=lambda: datetime.now(timezone.utc) + ahead,
    ).facts()
    return {one.check: one for one in source_findings(facts)}


def answer_instead(clients: Clients, operation: str, status: int, code: str) -> None:
    """Have botocore read this answer of the service in place of the real one."""
    body = json.dumps({"__type": f"com.amazon.coral#{code}", "message": "not authorized"}).encode()

    def answer(request: Any, **_: object) -> Any:
        headers: Any = {}
        response: Any = AWSResponse(request.url, status, headers, None)
        response._content = body
        return response

    ask: Any = answer  # botocore's hint has no value, which this event takes
    for client in clients:
        client.meta.events.register(f"before-send.*.{operation}", ask)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def outcomes(found: dict[str, Finding]) -> dict[str, str]:
    return {check: one.outcome for check, one in found.items() if one.outcome != "ok"}


def test_everything_is_there(server: LocalDynamoDB) -> None:
    found = probe(server)
    assert outcomes(found) == {"recovery": "warn"}
    assert set(BREAKS) <= set(found)
    assert "NEW_AND_OLD_IMAGES" in found["view_type"].what
    assert "on this machine" in found["credentials"].what


@pytest.mark.parametrize("action", sorted(BREAKS))
def test_each_action_that_is_missing_is_named_with_what_it_breaks(
    server: LocalDynamoDB, action: str
) -> None:
    operation = action.partition(":")[2]
    found = probe(server, denied=[operation])
    failing = {check for check, outcome in outcomes(found).items() if outcome == "fail"}
    assert failing == {action}
    assert found[action].what == f"Denied, so {BREAKS[action]}."
    assert f"dynamodb:{operation}" in found[action].hint


def test_a_denied_action_that_nothing_needs_is_a_warning(server: LocalDynamoDB) -> None:
    found = probe(server, denied=["DescribeContinuousBackups"])
    assert outcomes(found) == {"recovery": "warn"}
    assert "is denied" in found["recovery"].what


def test_streams_that_do_not_answer_behind_a_gateway_endpoint(server: LocalDynamoDB) -> None:
    found = probe(server, silent=["ListStreams"])
    listed = found["dynamodb:ListStreams"]
    assert listed.outcome == "fail"
    assert "DynamoDB Streams does not" in listed.what
    assert "interface endpoint" in listed.hint
    assert "dynamodb:GetRecords" in found["not_tried"].what
    assert found["dynamodb:Scan"].outcome == "ok"


@pytest.mark.parametrize(
    ("view_type", "outcome"),
    [("KEYS_ONLY", "fail"), ("OLD_IMAGE", "fail"), ("NEW_IMAGE", "warn"), (None, "fail")],
)
def test_view_types(server: LocalDynamoDB, view_type: str | None, outcome: str) -> None:
    table = f"t-{view_type}"
    stream = {"StreamEnabled": True, "StreamViewType": view_type}
    WireClient(server.endpoint_url).call(
        "CreateTable",
        TableName=table,
        KeySchema=[
            {"AttributeName": "id", "KeyType": "HASH"},
            {"AttributeName": "at", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "N"},
            {"AttributeName": "at", "AttributeType": "B"},
        ],
        BillingMode="PAY_PER_REQUEST",
        **({"StreamSpecification": stream} if view_type else {}),
    )
    found = probe(server, table=table)
    assert found["view_type"].outcome == outcome
    assert found["view_type"].hint
    assert found["dynamodb:BatchGetItem"].outcome == "ok"


def test_no_such_table(server: LocalDynamoDB) -> None:
    found = probe(server, table="nothing")
    assert found["dynamodb:DescribeTable"].outcome == "fail"
    assert "There is no table 'nothing'" in found["dynamodb:DescribeTable"].what


@pytest.mark.parametrize(
    ("functions", "outcome", "words"),
    [([], "ok", "No function"), (["mailer"], "warn", "mailer"), (["a", "b"], "warn", "third")],
)
def test_who_else_reads(
    server: LocalDynamoDB,
    monkeypatch: pytest.MonkeyPatch,
    functions: list[str],
    outcome: str,
    words: str,
) -> None:
    found = probe(server, functions=functions, as_account=True, monkeypatch=monkeypatch)
    assert found["readers"].outcome == outcome
    assert words in found["readers"].what
    assert found["credentials"].what == f"You are {CALLER}."


@pytest.mark.parametrize(("seconds", "outcome"), [(2, "ok"), (-60, "warn"), (600, "fail")])
def test_the_clock(server: LocalDynamoDB, seconds: int, outcome: str) -> None:
    assert probe(server, ahead=timedelta(seconds=seconds))["clock"].outcome == outcome


def test_a_lakehouse_on_disk(tmp_path: Path) -> None:
    [made] = probe_lakehouse(Layout(str(tmp_path / "new" / "lake")))
    assert made.outcome == "ok"
    assert "is made with the first change" in made.what
    assert list(tmp_path.iterdir()) == []  # nothing was written
    (tmp_path / "file").write_text("x")
    [refused] = probe_lakehouse(Layout(str(tmp_path / "file" / "lake")))
    assert refused.outcome == "fail"


def test_a_lakehouse_that_does_not_answer() -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-west-1",
        "max_retries": "0",
    }
    [found] = probe_lakehouse(Layout("s3://lake/x", options))
    assert found.outcome == "fail"
    assert found.hint
    assert "secret" not in found.what


def test_versions() -> None:
    needed = ["dagster<1.14,>=1.13", "dagster-aws<0.30,>=0.29", "x>=2; extra == 'polars'"]
    fitting = {"dagster": "1.13.4", "dagster-aws": "0.29.4"}
    [fine] = version_findings(needed, fitting)
    assert (fine.outcome, fine.check) == ("ok", "libraries")
    for wrong, check, outcome in (
        ({"dagster": "1.14.0", "dagster-aws": "0.29.0"}, "dagster", "fail"),
        ({"dagster": "1.13.4"}, "dagster-aws", "fail"),
        ({"dagster": "1.13.4", "dagster-aws": "0.29.5"}, "dagster", "warn"),
    ):
        [found] = version_findings(needed, wrong)
        assert (found.check, found.outcome) == (check, outcome)
        assert found.hint
    installed = {one.name: one.version for one in metadata.distributions()}
    assert [
        one.outcome
        for one in version_findings(metadata.requires("datazone-dagster") or [], installed)
    ] == ["ok"]


def test_the_settings_of_dagster() -> None:
    import yaml

    shipped = yaml.safe_load(dagster_yaml())
    assert {one.outcome for one in dagster_findings("/home", "/home/dagster.yaml", shipped)} == {
        "ok"
    }
    bare = {one.check: one.outcome for one in dagster_findings("/home", "/x", {"sensors": 3})}
    assert set(bare.values()) == {"ok", "warn"}
    assert bare["sensor_threads"] == bare["pools"] == bare["run_queue"] == "warn"
    assert [one.outcome for one in dagster_findings(None, None, None)] == ["warn", "warn"]
    assert [one.outcome for one in dagster_findings("/home", "/x", None)] == ["ok", "fail"]


def test_the_command(project: ProjectFolder, server: LocalDynamoDB) -> None:
    (project.path / "dagster.yaml").write_text(dagster_yaml(), "utf-8")
    environment = {"AWS_ENDPOINT_URL": server.endpoint_url, "DAGSTER_HOME": str(project.path)}
    before = files(project.path)
    done = project.run("doctor", **environment)
    assert done.returncode == 0, done.stdout
    assert "orders dynamodb:GetRecords: Allowed, and it answers." in done.stdout
    assert done.stdout.endswith("0 fail, 1 warn.\n")
    assert [
        path for path in sorted(project.path.rglob("*")) if "__pycache__" not in path.parts
    ] == before

    (project.path / "dagster.yaml").write_text("a: [", "utf-8")
    broken = project.run("doctor", "--json", **environment)
    assert broken.returncode == 1
    found = json.loads(broken.stdout)
    assert (found["failed"], found["warned"]) == (1, 1)
    [failing] = [one for one in found["findings"] if one["outcome"] == "fail"]
    assert (failing["subject"], failing["check"]) == ("dagster", "dagster_yaml")
