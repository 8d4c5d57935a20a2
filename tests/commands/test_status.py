"""`datazone-dagster status` as a user runs it."""

from __future__ import annotations

import io
import json
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from datazone_dagster.commands.project import load_project
from datazone_dagster.commands.status import sources_of
from datazone_dagster.commands.status_screen import screen
from datazone_dagster.dataset.swap_fence import ERASURE, raise_fence
from datazone_dagster.dataset.table_shape import KIND
from datazone_dagster.delta.table import opened
from datazone_dagster.pipeline import truncate_applied, utc_now, want_snapshot
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.commands.running import DEFINITIONS, ProjectFolder

WITHOUT_STREAM = """
@transform(
    input_mapping={"x": Input(Stream(source=DynamoDBSource("customers", stream_enabled=False)))},
    output_mapping={"people": Output(Dataset("people"))},
)
def people(x):
    return x.items()

defs = Definitions.merge(defs, build_definitions([people], lakehouse=Lakehouse(uri="lake")))
"""


def test_sources_datasets_snapshots_and_gaps(project: ProjectFolder) -> None:
    clock = FixedClock()
    project.put("a", 1)
    project.put("b", 2)
    project.drain(clock)
    project.apply()
    want_snapshot("orders", project.layout, "resync")
    found = project.run("status", "--json")
    assert found.returncode == 0, found.stderr
    [source] = json.loads(found.stdout)["sources"]
    assert source["head_batch"] == 1
    assert source["read_through"]
    assert source["drain"] == "reads"
    assert source["drained_at"]
    assert source["snapshot"]["snapshot_phase"] == "wanted"
    assert source["gaps"] == []
    assert source["change_log"]["truncated_through"] == 0
    assert source["change_log"]["new_datasets"] is True
    current, events = source["datasets"]
    assert (current["dataset"], current["rows"], current["position"]) == ("current", 2, 1)
    assert (events["dataset"], events["rows"], events["pending_batches"]) == ("events", 2, 0)
    assert current["consistent"] is False
    assert current["complete"] == "warn"

    clock.advance(timedelta(hours=26))
    project.put("c", 3)
    project.stream.trim()
    project.put("d", 4)
    project.drain(clock)
    shown = project.run("status").stdout
    assert "open gap: shard" in shown
    assert "Snapshot of orders has not begun." in shown
    assert "dataset current: 2 rows at batch 1, 1 behind, complete: error" in shown


def test_runs_that_wait_for_a_repair_are_said(project: ProjectFolder) -> None:
    project.put("a", 1)
    project.drain()
    project.apply()
    table = opened(project.layout.dataset("current"), project.layout.storage_options, KIND)
    assert table is not None
    now = utc_now()
    raise_fence(table, "orders", f"{ERASURE}1", now + timedelta(minutes=5), now)
    [source] = json.loads(project.run("status", "--json").stdout)["sources"]
    current, events = source["datasets"]
    assert current["waits_for"] == "keys are being erased from it"
    assert current["waits_until"]
    assert (events["waits_for"], events["waits_until"]) == (None, None)
    until = f"{now + timedelta(minutes=5):%Y-%m-%d %H:%M:%S} UTC"
    shown = project.run("status").stdout
    assert f"its runs wait until {until} at most: keys are being erased from it" in shown


def test_a_dataset_whose_change_log_was_made_again_hides_nothing_else(
    project: ProjectFolder,
) -> None:
    project.put("a", 1)
    project.drain()
    project.apply()
    for name in ("_changelog", "_checkpoints", "events"):
        shutil.rmtree(Path(project.layout.uri) / name)
    project.drain()
    found = project.run("status", "--json")
    assert found.returncode == 0, found.stderr
    current, events = json.loads(found.stdout)["sources"][0]["datasets"]
    assert "was made from another change log" in current["refusal"]
    assert (current["position"], current["rows"], current["complete"]) == (1, 1, "error")
    assert (events["refusal"], events["pending_batches"]) == (None, 1)
    shown = project.run("status").stdout
    assert "its runs are refused: The dataset at" in shown
    assert "dataset events: 0 rows at batch 0, 1 behind" in shown


def test_an_idle_drain_looks_different_from_a_dead_one(project: ProjectFolder) -> None:
    clock = FixedClock(utc_now())
    project.stream = ScriptedStream(clock=clock)
    project.put("a", 1)
    project.drain(clock)
    drained = utc_now()
    loaded = load_project(str(project.path / "definitions.py"), None, project.layout.uri)

    def found(age: timedelta) -> dict[str, Any]:
        return sources_of(loaded, drained + age)[0]

    idle = found(timedelta(minutes=11))
    assert idle["drain"] == "reads"
    assert "stream last read 11 min" in idle["drain_line"]
    dead = found(timedelta(hours=3))
    assert dead["drain"] == "silent"
    assert "NOT DRAINED: stream last read 3 h" in dead["drain_line"]
    assert "in 20 h 59 min changes are lost" in dead["drain_line"]
    assert "Is sensor drain_orders on" in dead["drain_line"]
    assert "; changes are lost." in found(timedelta(hours=25))["drain_line"]
    assert _screen([dead], drained).count("NOT DRAINED") == 1

    clock.now = drained + timedelta(hours=3)
    project.drain(clock)  # there is nothing to land
    idle = found(timedelta(hours=3, minutes=1))
    assert (idle["drain"], idle["head_batch"]) == ("reads", dead["head_batch"])
    assert "stream last read 1 min" in idle["drain_line"]
    assert 59 < idle["drain_age_seconds"] < 62


def test_a_drain_that_ticks_rarely_is_waited_for(tmp_path: Path) -> None:
    lakehouse = 'lakehouse=Lakehouse(uri="lake")'
    project = ProjectFolder(
        tmp_path, DEFINITIONS.replace(lakehouse, f"{lakehouse}, tick_seconds=1200")
    )
    project.stream = ScriptedStream(clock=utc_now)
    project.put("a", 1)
    project.drain()
    loaded = load_project(str(tmp_path / "definitions.py"), None, project.layout.uri)
    now = utc_now()
    assert [
        sources_of(loaded, now + timedelta(minutes=minutes))[0]["drain"] for minutes in (70, 90)
    ] == ["reads", "silent"]


def test_what_is_left_of_a_truncated_change_log(project: ProjectFolder) -> None:
    clock = FixedClock()
    project.put("a", 1)
    project.drain(clock)
    project.apply()
    assert "change log: every change" in project.run("status").stdout
    clock.advance(timedelta(days=3))
    assert truncate_applied("orders", [], project.layout, created_before=clock()) == 1
    shown = project.run("status").stdout
    assert "no change is left; no dataset can be added or rebuilt before" in shown
    [source] = json.loads(project.run("status", "--json").stdout)["sources"]
    assert source["change_log"] == {
        "truncated_through": 1,
        "changes_since": None,
        "new_datasets": False,
        "snapshot_announced_at": None,
    }


def test_a_lakehouse_that_is_not_there_is_said(project: ProjectFolder) -> None:
    found = project.run("status")
    assert found.returncode == 1
    assert "There is no lakehouse" in found.stderr


def test_a_source_without_a_stream_is_named_as_such(tmp_path: Path) -> None:
    imported = "from dagster import Definitions\n"
    project = ProjectFolder(tmp_path, DEFINITIONS)
    project.put("a", 1)
    project.drain()
    (tmp_path / "definitions.py").write_text(imported + DEFINITIONS + WITHOUT_STREAM, "utf-8")
    shown = project.run("status")
    assert shown.returncode == 0, shown.stderr
    assert "Source customers\n  no stream: each run scans the table" in shown.stdout
    assert "Source orders\n  drain: batch 1" in shown.stdout


def _screen(sources: list[dict[str, Any]], now: datetime) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(screen(sources, now))
    return console.export_text()


def test_the_screen_shows_what_status_says(project: ProjectFolder) -> None:
    clock = FixedClock()
    project.put("a", 1)
    project.drain(clock)
    project.apply()
    clock.advance(timedelta(hours=26))
    project.put("b", 2)
    project.stream.trim()
    project.put("c", 2)
    project.drain(clock)
    loaded = load_project(str(project.path / "definitions.py"), None, project.layout.uri)
    sources = sources_of(loaded, clock())
    sources.append({"source": "other", "drained": False, "read": "never\x1b[2J", "datasets": []})
    shown = _screen(sources, clock())
    assert "source orders" in shown
    assert "read through 1 d 2 h ago" in shown
    assert "open gap: shard" in shown
    cells = [re.split(r" *│ *", line) for line in shown.splitlines()]
    assert ["", "current", "1", "1", "1", "error", "", ""] in cells
    assert "never\\x1b[2J" in shown
