"""Buckets without changes cost neither a run nor a commit: runs of others move their positions."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pytest

from datazone_dagster.apply import bucket_run
from datazone_dagster.changelog import compaction
from datazone_dagster.changelog.empty_ranges import surely_lacks
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.slot_parts import BY_SLOTS, NOTED_ROWS
from datazone_dagster.dataset.bucket_positions import applied_batches
from datazone_dagster.dataset.dataset_progress import Progress, require_progress
from datazone_dagster.dataset.idle_buckets import pass_idle
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.dataset.table_shape import KIND
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    bucket_positions,
    buckets_behind,
    datasets_of_source,
    follow_changes,
)
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.apply.test_buckets import (
    MANY,
    apply_all,
    land,
    operations,
    path_flow,
    same_as_one_run,
    slots_of_ids,
)

OF = 4


def bucket_of(key: int, of: int = OF) -> KeyBucket:
    (slot,) = slots_of_ids([f"k{key}"])
    (found,) = (one for one in key_buckets(of) if one.has_some_of(slot, slot))
    return found


def behind(layout: Layout) -> tuple[KeyBucket, ...]:
    ChangeLog(layout, "orders").open()
    dataset_state(layout, "d").now()
    return buckets_behind("orders", ["d"], layout, OF)


def filled(tmp_path: Path) -> Layout:
    """Return a lakehouse whose buckets are at batch 1, and whose change log notes slots."""
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, OF)
    return layout


def test_a_change_of_one_key_is_one_run_and_two_commits(tmp_path: Path) -> None:
    layout = filled(tmp_path)
    before = operations(layout)
    for number in range(3):
        land(layout, [(7, f"z{number}")])
        assert behind(layout) == (bucket_of(7),)
        apply_transform(path_flow("d", OF), layout, bucket=bucket_of(7))
        assert behind(layout) == ()
        assert datasets_of_source("orders", layout) == {"d": 2 + number}
    since = operations(layout)[len(before) :]
    assert [one for one in since if one != "SET TBLPROPERTIES"] == ["MERGE", "WRITE"] * 3
    assert same_as_one_run(layout)


def test_a_bucket_with_changes_is_not_moved_by_others(tmp_path: Path) -> None:
    layout = filled(tmp_path)
    land(layout, [(7, "z"), (8, "z")])
    first, other = bucket_of(7), bucket_of(8)
    assert first != other
    apply_transform(path_flow("d", OF), layout, bucket=first)
    positions = bucket_positions("orders", "d", layout, OF)
    assert {one for one, at in positions.items() if at < 2} == {other}
    assert behind(layout) == (other,)
    apply_transform(path_flow("d", OF), layout, bucket=other)
    assert same_as_one_run(layout)


def test_a_run_that_dies_before_it_has_moved_the_others_is_followed_by_one_run(
    tmp_path: Path,
) -> None:
    layout = filled(tmp_path)
    land(layout, [(7, "z")])
    with suppress(Crash), crash_at(crash_points.AFTER_DATASET_COMMIT):
        apply_transform(path_flow("d", OF), layout, bucket=bucket_of(7))
    (one,) = behind(layout)
    apply_transform(path_flow("d", OF), layout, bucket=one)
    assert behind(layout) == ()
    assert same_as_one_run(layout)


def table_of(layout: Layout) -> Table:
    found = opened(layout.dataset("d"), layout.storage_options, KIND)
    assert found is not None
    return found


def test_a_run_goes_on_where_another_one_has_moved_its_bucket(tmp_path: Path) -> None:
    layout = filled(tmp_path)
    land(layout, [(7, "z")])
    apply_transform(path_flow("d", OF), layout, bucket=bucket_of(7))
    idle = next(one for one in key_buckets(OF) if one != bucket_of(7))
    at = table_of(layout).at
    assert applied_batches(at, "orders")[idle] == 2
    require_progress(at, "orders", Progress(1), idle, 2)  # its next change is in batch 3
    with pytest.raises(ConcurrentWriterError, match="at batch 2, not at 1"):
        require_progress(at, "orders", Progress(1), idle, 1)  # its next change was in batch 2


def test_a_run_that_stays_from_before_there_is_a_table_loses_no_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has moved past batches without its keys, but no table could take the position."""
    monkeypatch.setattr(bucket_run, "SAVE_EVERY_SECONDS", 0.0)
    layout = Layout(str(tmp_path))
    land(layout, [(7, "x")])
    ours = next(one for one in key_buckets(OF) if one != bucket_of(7))
    key = next(at for at in range(60) if bucket_of(at) == ours)
    asked: list[int] = []

    def told_to_end() -> bool:
        asked.append(1)
        if len(asked) == 3:
            apply_transform(path_flow("d", OF), layout, bucket=bucket_of(7))
            land(layout, [(key, "y")])
        return len(asked) > 60 or bucket_positions("orders", "d", layout, OF)[ours] == 2

    steps = follow_changes(path_flow("d", OF), layout, bucket=ours, told_to_end=told_to_end)
    assert not any(one.lost_race for one in steps)
    assert len(asked) < 60
    assert same_as_one_run(layout)


def test_a_move_is_no_move_if_a_run_of_that_bucket_came_first(tmp_path: Path) -> None:
    layout = filled(tmp_path)
    land(layout, [(7, "z")])
    stale = table_of(layout)
    land(layout, [(8, "z")])
    apply_transform(path_flow("d", OF), layout, bucket=bucket_of(8))
    with pytest.raises(ConcurrentWriterError):
        pass_idle(stale, "orders", bucket_of(7), 2, lambda *_: True, datetime.now(timezone.utc))
    assert bucket_positions("orders", "d", layout, OF)[bucket_of(8)] == 3


def test_truncated_batches_may_have_had_changes_of_any_bucket(tmp_path: Path) -> None:
    layout = filled(tmp_path)
    land(layout, [(7, "z")])
    log = ChangeLog(layout, "orders").open()
    assert log is not None
    idle = next(one for one in key_buckets(OF) if one != bucket_of(7))
    assert surely_lacks(log, 1, 2, idle)
    assert not surely_lacks(log, 0, 2, idle)
    apply_transform(path_flow("d", OF), layout, bucket=bucket_of(7))
    log = ChangeLog(layout, "orders").open()
    assert log is not None
    log.truncate(1, log.files[-1].written_at)
    assert log.truncated_through == 1
    assert not surely_lacks(log, 0, 2, idle)
    assert surely_lacks(log, 1, 2, idle)


def test_files_note_the_slots_of_small_batches_also_when_they_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCHES_PER_GROUP", 2)
    layout = Layout(str(tmp_path))
    log = ChangeLog(layout, "orders").open_or_create()
    log.set_property(BY_SLOTS, "true", "Laying out")
    land(layout, [(key, "x") for key in range(NOTED_ROWS + 1)], [(7, "z")], [(8, "z"), (7, "y")])
    seven, eight = (1 << slot for slot in slots_of_ids(["k7", "k8"]))
    log.move_on()
    assert [one.slots for one in log.files] == [None, seven, seven | eight]
    while log.maintain_once():
        pass
    assert [one.slots for one in log.files] == [None, seven | eight]


def test_a_file_that_its_commit_numbers_notes_its_slots_as_well(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    log = ChangeLog(layout, "orders").open_or_create()
    log.set_property(BY_SLOTS, "true", "Laying out")
    log.number_by_commit()
    land(layout, [(7, "z")])
    log.move_on()
    (seven,) = slots_of_ids(["k7"])
    assert [(one.slots, one.constants) for one in log.files] == [(1 << seven, {Log.BATCH: 1})]
