"""`datazone-dagster resync` as a user runs it, against the local DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.pipeline import snapshot_status
from tests.commands.running import DEFINITIONS, ProjectFolder


class Folder(ProjectFolder):
    """A project whose table is in the local DynamoDB as well, for what commands ask of it."""

    endpoint_url: str

    def command(self, *arguments: str) -> CompletedProcess[str]:
        return self.run(*arguments, AWS_ENDPOINT_URL=self.endpoint_url)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with LocalDynamoDB() as server:
        client = WireClient(server.endpoint_url)
        client.call(
            "CreateTable",
            TableName="orders",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for number in range(3):
            client.put_item(TableName="orders", Item={"id": {"S": str(number)}})
        folder = Folder(
            tmp_path,
            DEFINITIONS.replace('Source("orders")', 'Source("orders", start="trim_horizon")'),
        )
        folder.endpoint_url = server.endpoint_url
        folder.put("a", 1)
        folder.drain()
        yield folder


def phase(folder: Folder) -> Phase | None:
    found = snapshot_status("orders", folder.layout)
    return None if found is None else found.phase


def test_plan_then_ask_then_give_up(folder: Folder) -> None:
    plan = folder.command("resync", "orders", "--json")
    assert plan.returncode == 0, plan.stderr
    found = json.loads(plan.stdout)
    assert (found["executed"], found["goes_on"], found["items"]) == (False, False, 3)
    assert found["read_units"] > 0
    assert phase(folder) is None

    asked = folder.command("resync", "orders", "--yes")
    assert asked.returncode == 0, asked.stderr
    for word in ("3 items", "read units", "$", "Risk", "snapshot_orders"):
        assert word in asked.stdout, word
    assert phase(folder) is Phase.WANTED

    given_up = folder.command("resync", "orders", "--cancel")
    assert "is cancelled" in given_up.stdout
    assert phase(folder) is Phase.CANCELLED


def test_a_no_changes_nothing(folder: Folder) -> None:
    answer = folder.command("resync", "orders")  # standard input is empty: no answer
    assert answer.returncode == 1
    assert phase(folder) is None


def test_a_table_that_is_not_there_is_said(folder: Folder) -> None:
    WireClient(folder.endpoint_url).call("DeleteTable", TableName="orders")
    answer = folder.command("resync", "orders", "--yes")
    assert answer.returncode == 1
    assert "'orders'" in answer.stderr
    assert phase(folder) is None
