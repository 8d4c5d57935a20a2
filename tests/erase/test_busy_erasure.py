"""An erasure from a lakehouse whose drains and runs never rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset
from datazone_dagster.dataset.swap_fence import PROPERTY
from datazone_dagster.delta import open_table
from datazone_dagster.rows import erase_rows
from tests.erase.lakehouse import ERASED, Lake


class Busy:
    """A drain, or a run, that commits just before each attempt of the erasure at a table."""

    def __init__(self, lake: Lake, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
        self.lake = lake
        self.attempts = 0
        self.searched = Counter[str]()
        commit, positions = erase_rows._commit, erase_rows._positions

        def committed(target: Any, *given: Any) -> None:
            if target.uri == uri:
                self.attempts += 1
                if self.attempts < erase_rows.ATTEMPTS:
                    lake.put("b", self.attempts)
                    lake.step()
            commit(target, *given)

        def searched(store: Any, file: Any, search: Any) -> Any:
            if uri in store.uri and self.attempts < erase_rows.ATTEMPTS:
                self.searched[file.path] += 1
            return positions(store, file, search)

        monkeypatch.setattr(erase_rows, "_commit", committed)
        monkeypatch.setattr(erase_rows, "_positions", searched)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path, Dataset("merged"))
    for key in ("a", ERASED):
        lake.put(key, 1)
        lake.step()
    return lake


def test_runs_make_way_for_an_erasure_that_they_were_faster_than(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy = Busy(lake, monkeypatch, lake.layout.dataset("merged"))
    assert lake.erasure().run().done
    # Twice a run was faster; the third one waits.
    assert busy.attempts == 3
    assert (
        "Runs of dataset merged were faster than the repair 2 times. They wait until it is done"
        in caplog.text
    )
    assert lake.traces() == []
    table = open_table(lake.layout.dataset("merged"), {}, "dataset")
    assert table is not None
    assert table.metadata().configuration[PROPERTY] == ""
    lake.apply()
    assert [row["id"] for row in lake.rows("merged", but="")] == ["a", "b"]


def test_a_file_is_searched_once_however_often_a_drain_is_faster(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(lake, monkeypatch, lake.layout.change_log("orders"))
    assert lake.erasure().run().done
    assert busy.attempts == erase_rows.ATTEMPTS
    assert set(busy.searched.values()) == {1}
    assert len(busy.searched) > erase_rows.ATTEMPTS
    assert lake.traces() == []
