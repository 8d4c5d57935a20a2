"""Maintenance of a dataset whose number of buckets got smaller, and what it announces."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import maintain_dataset
from datazone_dagster.process import crash_points
from datazone_dagster.rows.append import append
from datazone_dagster.rows.bucket_files import tag_in
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.apply.test_buckets import (
    LATER,
    MANY,
    apply_all,
    land,
    operations,
    path_flow,
    rows_of,
    same_as_one_run,
)
from tests.apply.test_idle_buckets import table_of


def maintain(layout: Layout, buckets: int, *, days: int = 0) -> None:
    (dataset,) = path_flow("d", buckets).outputs.values()
    now = datetime.now(timezone.utc) + timedelta(days=days)
    budget = 8 << 30  # a process of many tests retains more than a run may take
    report = maintain_dataset(dataset, layout, memory_budget=budget, clock=lambda: now)
    assert report is not None
    assert not report.lost_race


def tags(layout: Layout) -> list[str]:
    table = dataset_state(layout, "d").now()
    assert table is not None
    return sorted(str(tag_in(file)) for file in table.files)


def test_files_of_a_larger_number_of_buckets_are_joined(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 4)
    before = rows_of(layout, "d")
    maintain(layout, 4)
    assert len(tags(layout)) == 4
    maintain(layout, 2)
    assert tags(layout) == ["0-127", "128-255"]
    assert rows_of(layout, "d") == before
    land(layout, LATER)
    apply_all(layout, 2)
    assert same_as_one_run(layout)
    maintain(layout, 1)
    assert tags(layout) == ["None"]
    apply_all(layout, 2)
    assert same_as_one_run(layout)


def change_twice(layout: Layout) -> None:
    """Make some commits: then a checkpoint is due, and with it the search."""
    for value in ("y", "z"):
        land(layout, [(1, value)])
        apply_all(layout, 1)


def test_files_are_deleted_after_a_commit_that_says_so(tmp_path: Path) -> None:
    """A commit that waited for longer than the retention may come in the middle: it is refused."""
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    maintain(layout, 1)
    change_twice(layout)
    files = len(list(Path(layout.dataset("d")).glob("*.parquet")))
    seen: list[tuple[str, int]] = []

    def look() -> None:
        left = len(list(Path(layout.dataset("d")).glob("*.parquet")))
        seen.append((operations(layout)[-1], left))

    with at_point(crash_points.BEFORE_CLEANING, look):
        maintain(layout, 1, days=8)
    assert seen == [("VACUUM START", files)]
    assert operations(layout)[-1] == "VACUUM END"
    assert len(list(Path(layout.dataset("d")).glob("*.parquet"))) < files
    assert same_as_one_run(layout)


def test_a_search_that_dies_is_done_again(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    maintain(layout, 1)
    change_twice(layout)
    with pytest.raises(Crash), crash_at(crash_points.BEFORE_CLEANING):
        maintain(layout, 1, days=8)
    maintain(layout, 1, days=8)
    assert operations(layout)[-1] == "VACUUM END"
    assert len(list(Path(layout.dataset("d")).glob("*.parquet"))) == 1


def test_an_append_that_was_frozen_is_not_put_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may be deleted by then, as one that no version has."""
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    stale, current = table_of(layout), table_of(layout)
    append(current, current.schema.empty_table())
    monkeypatch.setattr("datazone_dagster.rows.append.FRESH_SECONDS", 0.0)
    with pytest.raises(ConcurrentWriterError):
        append(stale, stale.schema.empty_table(), attempts=5)
    monkeypatch.undo()
    append(stale, stale.schema.empty_table(), attempts=5)
