"""`datazone-dagster erase`, as an operator runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster import AssetMaterialization, DagsterInstance

from datazone_dagster.process import crash_points
from tests.commands.running import DEFINITIONS, ProjectFolder, run_command
from tests.erase.lakehouse import traces_in

KEY = "zq-someone@mail.example"


@pytest.fixture
def filled(project: ProjectFolder) -> ProjectFolder:
    for key, total in ((KEY, 1), ("b", 2)):
        project.put(key, total)
    project.drain()
    project.apply()
    project.stream.delete({"id": {"S": KEY}})
    project.drain()
    project.apply()
    return project


def traces(project: ProjectFolder) -> list[str]:
    return list(traces_in(project.path / "lake", KEY[:20]))


def test_it_explains_asks_and_erases(filled: ProjectFolder) -> None:
    asked = run_command("erase", "orders", "--key", f"id={KEY}", cwd=filled.path, answers="n\n")
    assert asked.returncode == 0, asked.stderr
    for words in (
        "1 of 1 keys",
        "change log: 2 rows to erase",
        "can't be undone",
        "DynamoDB first",
    ):
        assert words in asked.stdout
    assert traces(filled)

    done = filled.run("erase", "orders", "--key", f"id={KEY}", "--yes", DAGSTER_HOME="")
    assert done.returncode == 0, done.stderr
    assert "dataset events: 2 rows erased" in done.stdout
    assert "Done: a last search" in done.stdout
    assert "does not reach" in done.stdout
    assert "DAGSTER_HOME is not set" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert traces(filled) == []


def test_json_without_yes_is_the_plan(filled: ProjectFolder) -> None:
    keys = filled.path / "keys"
    keys.write_text(f'{{"id": {{"S": "{KEY}"}}}}\n\nid=nobody\n', "utf-8")
    planned = filled.run("erase", "orders", "--file", "keys", "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["executed"], plan["done"], plan["keys"]) == (False, False, 2)
    assert plan["found"] == ["key 1"]
    assert traces(filled)
    keys.unlink()
    with_input = run_command(
        *("erase", "orders", "--file", "-", "--json", "--yes"),
        cwd=filled.path,
        answers=f"id={KEY}\n",
    )
    report = json.loads(with_input.stdout)
    assert (report["executed"], report["done"]) == (True, True)
    tables = {table["table"]: table for table in report["tables"]}
    assert tables["change log"]["rows"] == 2
    assert set(plan) <= set(report)
    assert traces(filled) == []


def test_killed_it_goes_on(filled: ProjectFolder) -> None:
    command = ("erase", "orders", "--key", f"id={KEY}", "--yes")
    killed = filled.run(*command, DATAZONE_CRASH_AT=f"{crash_points.AFTER_ERASED_ROWS}#2")
    assert killed.returncode == -9
    assert traces(filled)
    assert filled.run(*command).returncode == 0
    assert traces(filled) == []


def test_events_that_mention_the_item_are_listed(filled: ProjectFolder, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").touch()
    environment = {"DAGSTER_HOME": str(home)}
    former = AssetMaterialization(["team", "events"], metadata={"preview": f"| {KEY} |"})
    of_others = AssetMaterialization(["events", "of_others"], metadata={"preview": KEY})
    with DagsterInstance.from_config(str(home)) as instance:
        instance.report_runless_asset_event(former)
        instance.report_runless_asset_event(of_others)
    text = DEFINITIONS.replace('uri="lake")', 'uri="lake"), key_prefix="raw"')
    (filled.path / "definitions.py").write_text(text, "utf-8")
    assert filled.run("rebuild", "events", **environment).returncode == 0
    done = filled.run("erase", "orders", "--key", f"id={KEY}", "--yes", "--json", **environment)
    report = json.loads(done.stdout)
    assert report["dagster_unread"] is None
    assert [event["what"] for event in report["dagster_events"]] == [
        "materialization of team/events",  # from before the prefix was another one
        "materialization of raw/events",
    ]
    assert KEY not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "No key is given"),
        (("--key", "customer=a"), "the key of the table is id"),
        (("--key", "nonsense"), "Key 1 is no key of an item"),
    ],
)
def test_what_it_refuses(filled: ProjectFolder, arguments: tuple[str, ...], words: str) -> None:
    done = filled.run("erase", "orders", *arguments, "--yes")
    assert done.returncode == 1
    assert words in done.stderr
    assert traces(filled)
