"""`datazone-dagster tail` as a user runs it, over a change log that a drain fills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster.commands.project import load_project
from datazone_dagster.commands.tail import time_of
from datazone_dagster.errors import DefinitionError
from datazone_dagster.pipeline import ChangeTail, truncate_applied
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.commands.running import DEFINITIONS, PROGRAM, ProjectFolder, validate_json

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def test_what_landed_in_words(project: ProjectFolder) -> None:
    project.put("a", 1)
    project.put("a", 2)
    project.stream.delete({"id": {"S": "a"}})
    project.stream.malformed(b"{nonsense")
    project.drain()
    shown = project.run("tail", "orders", "--from", "start", "--no-follow")
    assert shown.returncode == 0, shown.stderr
    malformed, inserted, modified, removed = shown.stdout.splitlines()
    assert inserted.endswith("  INSERT  id=a  total: 1")
    assert modified.endswith("MODIFY  id=a  total: 1 -> 2")
    assert removed.endswith("REMOVE  id=a")
    assert "not a stream record" in malformed


def test_only_what_lands_from_now_on(project: ProjectFolder) -> None:
    project.put("a", 1)
    project.drain()
    [source] = load_project(str(project.path / "definitions.py")).sources.values()
    reader = ChangeTail(source, project.layout)
    assert list(reader.read()) == []
    project.put("b", 2)
    project.drain()
    assert [change.keys for change in reader.read()] == [{"id": {"S": "b"}}]
    assert list(reader.read()) == []


def test_the_changes_of_one_item_since_a_time(project: ProjectFolder) -> None:
    clock = FixedClock()
    project.stream = ScriptedStream(clock=clock)
    for hour in range(4):
        for key in ("a", "b"):
            project.put(key, hour)
        project.drain(clock)
        clock.advance(timedelta(hours=1))
    begin = (clock() - timedelta(hours=2, minutes=30)).isoformat()
    arguments = ("tail", "orders", "--no-follow", "--json", "--from", begin, "--filter", "id=b")
    found = [json.loads(line) for line in project.run(*arguments).stdout.splitlines()]
    assert [one["new"]["total"] for one in found] == [{"N": "2"}, {"N": "3"}]
    assert {one["keys"]["id"]["S"] for one in found} == {"b"}
    first = project.run(*arguments, "--changes", "1")
    assert len(first.stdout.splitlines()) == 1


def test_masks_are_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked = '("orders", mask={"id": "hash", "total": "null"})'
    project = ProjectFolder(tmp_path, DEFINITIONS.replace('("orders")', masked, 1))
    monkeypatch.setenv("DATAZONE_MASK_SALT", "a salt of sixteen characters")
    project.put("secret", 1)
    project.put("other", 1)
    project.drain()
    arguments = ("tail", "orders", "--from", "start", "--no-follow", "--json")
    done = project.run(*arguments, "--filter", "id=secret")
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert "secret" not in line
    assert json.loads(line)["new"]["total"] == {"NULL": True}
    assert json.loads(line)["hidden"] is False


def test_what_landed_before_a_mask_is_hidden_and_the_line_says_so(tmp_path: Path) -> None:
    project = ProjectFolder(tmp_path)
    project.put("secret", 1234567890)
    project.drain()
    masked = '("orders", mask={"id": "hash", "total": "last4"})'
    text = DEFINITIONS.replace('("orders")', masked, 1)
    (tmp_path / "definitions.py").write_text(text, "utf-8")
    arguments = ("tail", "orders", "--from", "start", "--no-follow")
    [line] = project.run(*arguments).stdout.splitlines()
    assert line.endswith("INSERT  id=****  total: ****  (landed before its mask)")
    [change] = project.run(*arguments, "--json").stdout.splitlines()
    assert json.loads(change)["hidden"] is True
    assert "secret" not in change
    assert "7890" not in change
    environment = {"DATAZONE_MASK_SALT": "a salt of sixteen characters"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*environment.popitem())
        project.put("other", 1234567890)
        project.drain()
    [_, line] = project.run(*arguments).stdout.splitlines()
    assert "before its mask" not in line
    assert line.endswith("total: ****7890")


def test_what_retention_has_removed_is_not_asked_for(project: ProjectFolder) -> None:
    clock = FixedClock()
    project.put("a", 1)
    project.drain(clock)
    project.apply()
    clock.advance(timedelta(days=3))
    assert truncate_applied("orders", [], project.layout, created_before=clock()) == 1
    project.put("b", 1)
    project.drain(clock)
    shown = project.run("tail", "orders", "--from", "start", "--no-follow")
    assert shown.returncode == 0, shown.stderr
    assert ["id=b" in line for line in shown.stdout.splitlines()] == [True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-02-01T00:00:00Z", datetime(2026, 2, 1, tzinfo=timezone.utc)),
        ("2026-02-01T01:00:00+01:00", datetime(2026, 2, 1, tzinfo=timezone.utc)),
        ("2026-02-01", datetime(2026, 2, 1, tzinfo=timezone.utc)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert time_of(text, NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "5", "5w", "999999999999999d", ""])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="is no time"):
        time_of(text, NOW)


def test_a_key_that_is_none_is_refused(project: ProjectFolder) -> None:
    project.put("a", 1)
    project.drain()
    done = project.run("tail", "orders", "--filter", "nonsense")
    assert done.returncode == 1
    assert "is no key of an item. Nothing was read." in done.stderr


@pytest.mark.parametrize("command", ["tail", "status"])
def test_it_goes_on_until_it_is_interrupted(project: ProjectFolder, command: str) -> None:
    project.put("a", 1)
    project.drain()
    options = ["--watch"] if command == "status" else ["orders", "--from", "start"]
    with subprocess.Popen(
        [str(PROGRAM), command, *options, "--json"],
        cwd=project.path,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        validate_json(command, process.stdout.readline())
        project.put("b", 2)
        project.drain()
        second = process.stdout.readline()
        validate_json(command, second)
        assert '"b"' in second or '"head_batch": 2' in second
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, process.stderr.read()
        assert process.stderr.read() == ""
