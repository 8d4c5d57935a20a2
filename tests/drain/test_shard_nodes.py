"""The shards that a drain reports: what is not finished, and why."""

from __future__ import annotations

from pathlib import Path

from datazone_dagster.errors import ThrottledError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport
from datazone_dagster.pipeline import drain_once
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders", start="trim_horizon")


def states(report: DrainReport) -> dict[str, tuple[str | None, str]]:
    return {one.shard_id: (one.parent_id, one.state) for one in report.shards}


def test_a_split_shard_is_shown_until_its_children_are(tmp_path: Path) -> None:
    stream, layout = ScriptedStream("orders"), Layout(str(tmp_path))
    stream.put({"id": {"S": "a"}})
    [root] = stream.shard_ids()
    assert states(drain_once(SOURCE, stream, layout)) == {root: (None, "open")}

    stream.split()
    stream.put({"id": {"S": "b"}})
    left, right = sorted(set(stream.shard_ids()) - {root})
    stream.faults = lambda operation, shard_id, _: (
        ThrottledError("slow down") if (operation, shard_id) == ("GetRecords", root) else None
    )
    failing = states(drain_once(SOURCE, stream, layout))
    assert failing == {root: (None, "failing"), left: (root, "waiting"), right: (root, "waiting")}

    stream.faults = None
    drain_once(SOURCE, stream, layout)  # commits the end of the parent
    after = states(drain_once(SOURCE, stream, layout))
    assert after == {root: (None, "finished"), left: (root, "open"), right: (root, "open")}


def test_lost_changes_are_a_gap_until_somebody_accepts_them(tmp_path: Path) -> None:
    stream, layout = ScriptedStream("orders"), Layout(str(tmp_path))
    stream.put({"id": {"S": "a"}})
    drain_once(SOURCE, stream, layout)
    stream.put({"id": {"S": "b"}})
    stream.put({"id": {"S": "c"}})
    stream.trim()
    stream.put({"id": {"S": "d"}})
    [(_, state)] = states(drain_once(SOURCE, stream, layout)).values()
    assert state == "gap"


def test_a_gap_of_a_shard_that_ended_long_ago_is_shown(tmp_path: Path) -> None:
    stream, layout = ScriptedStream("orders"), Layout(str(tmp_path))
    stream.put({"id": {"S": "a"}})
    drain_once(SOURCE, stream, layout)
    [root] = stream.shard_ids()
    stream.put({"id": {"S": "b"}})
    stream.trim()
    for _ in range(3):
        stream.roll()
        stream.put({"id": {"S": "c"}})
        drain_once(SOURCE, stream, layout)
        found = states(drain_once(SOURCE, stream, layout))
    assert found[root] == (None, "gap")
