"""Datasets with buckets after a RESTORE: no bucket loses the position that it brings back."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from datazone_dagster.dataset import restored
from datazone_dagster.dataset.dataset_progress import require_not_restored
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.delta.log_upkeep import make_checkpoint
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table_state import forget
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, backlog
from tests.apply.test_buckets import LATER, MANY, apply_all, land, path_flow, same_as_one_run


def read_anew(layout: Layout) -> None:
    """Forget what this process knows, after a checkpoint: as in a new process, later."""
    state = dataset_state(layout, "d")
    table = state.now()
    assert table is not None
    make_checkpoint(state, table)
    forget(layout.dataset("d"))
    restored._below_checkpoints.clear()


def test_a_bucket_that_lags_after_a_restore_does_not_lose_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restored, "LOOKED_BACK", 2)
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 1)
    land(layout, MANY)
    apply_all(layout, 2)
    version = DeltaTable(layout.dataset("d")).version()
    land(layout, LATER)
    apply_all(layout, 2)
    DeltaTable(layout.dataset("d")).restore(version)
    table = dataset_state(layout, "d").now()
    assert table is not None
    with pytest.raises(ConcurrentWriterError, match="restored"):
        require_not_restored(table, "orders")
    first, second = key_buckets(2)
    for _ in range(3):
        land(layout, LATER)
        apply_transform(path_flow("d", 2), layout, bucket=first)
    # Erasures and redrives need no run of the former number of buckets.
    table = dataset_state(layout, "d").now()
    assert table is not None
    require_not_restored(table, "orders")
    read_anew(layout)
    assert [backlog("orders", "d", layout, bucket=one).position for one in (first, second)] == [
        6,
        2,
    ]
    apply_transform(path_flow("d", 2), layout, bucket=second)
    assert same_as_one_run(layout)


def test_entries_below_a_checkpoint_are_read_once_for_all_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 4)
    for _ in range(3):
        land(layout, LATER[:1])
        apply_all(layout, 4)
    read_anew(layout)
    read: list[str] = []
    original = TableStore.read

    def noted(store: TableStore, path: str) -> bytes | None:
        read.append(path)
        return original(store, path)

    monkeypatch.setattr(TableStore, "read", noted)
    backlog("orders", "d", layout)
    entries = [path for path in read if path.endswith(".json")]
    assert entries
    assert len(entries) == len(set(entries))
