"""The newest commits of a table, by whoever wrote them, without a request of their own."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.delta.commit_history import COMMITS_KEPT, with_commit
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import newest_snapshot
from datazone_dagster.observe.table_history import history_markdown

HEAD = "| version | time (UTC) | operation | inserted | updated | deleted |"


def test_commits_of_delta_rs(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    write_deltalake(uri, pa.table({"k": [1, 2], "v": [1, 1]}))
    source = pa.table({"k": [2, 3], "v": [2, 2]})
    (
        DeltaTable(uri)
        .merge(source, "s.k = t.k", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )
    DeltaTable(uri).delete("k = 1")
    snapshot = newest_snapshot(TableStore(uri, {}))
    assert snapshot is not None
    found = [(one.version, one.operation, one.deleted) for one in snapshot.history]
    assert found == [(0, "WRITE", None), (1, "MERGE", 0), (2, "DELETE", 1)]
    merge = snapshot.history[1]
    assert (merge.inserted, merge.updated) == (1, 1)
    assert snapshot.history[0].inserted == 2
    assert all(one.at and one.at.tzinfo is timezone.utc for one in snapshot.history)


def test_only_the_newest_commits_are_kept() -> None:
    history: tuple[Any, ...] = ()
    for version in range(COMMITS_KEPT + 5):
        history = with_commit(history, version, [{"commitInfo": {"operation": "WRITE"}}])
    assert [one.version for one in history] == list(range(5, COMMITS_KEPT + 5))


@pytest.mark.parametrize(
    "info",
    [
        None,
        {},
        {"timestamp": "yesterday", "operation": None, "operationMetrics": "many"},
        {"timestamp": 10**30, "operationMetrics": {"numAddedRows": "-1", "numDeletedRows": None}},
        {"timestamp": True, "operationMetrics": {"num_added_rows": 1.5}},
    ],
)
def test_a_log_that_says_little_is_shown_as_it_is(info: Any) -> None:
    [commit] = with_commit((), 3, [{"commitInfo": info}, {"add": {}}])
    assert (commit.at, commit.inserted, commit.updated, commit.deleted) == (None,) * 4
    assert history_markdown([commit]).splitlines()[2] == "| 3 |  |  |  |  |  |"


def test_the_newest_is_first_and_nothing_is_markup() -> None:
    at = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc).timestamp() * 1000)
    metrics = {"numTargetRowsInserted": "1234", "numTargetRowsDeleted": 0}
    info = {"timestamp": at, "operation": "a|b<img>[x](y)", "operationMetrics": metrics}
    history = with_commit((), 7, [{"commitInfo": {"operation": "WRITE"}}])
    history = with_commit(history, 8, [{"commitInfo": info}])
    lines = history_markdown(history).splitlines()
    assert lines[0] == HEAD
    assert lines[2] == (r"| 8 | 2026-01-02 03:04:05 | a\|b&lt;img&gt;\[x\](y) | 1,234 |  | 0 |")
    assert lines[3] == "| 7 |  | WRITE |  |  |  |"
    assert history_markdown(()) == ""
