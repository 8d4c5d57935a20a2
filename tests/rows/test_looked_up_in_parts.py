"""Lookup of tombstones in pieces: the size of a piece makes no difference."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.version import row_version
from datazone_dagster.rows import versions
from datazone_dagster.rows.merge_batch import CAUSE

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def keyed_changes(numbers: range, sequence: int) -> pa.Table:
    return pa.table(
        {
            KEY: [f"k{number}" for number in numbers],
            VERSION: [row_version(1, sequence)] * len(numbers),
            CAUSE: ["delete"] * len(numbers),
        }
    )


@pytest.mark.parametrize("at_a_time", [1, 3, 4, 1 << 19])
def test_every_key_gets_its_highest_tombstone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(versions, "LOOKED_UP_ROWS", at_a_time)
    tombstones = Tombstones(Layout(str(tmp_path)), "d", "orders")
    for sequence, numbers in ((10, range(4)), (30, range(2, 6)), (20, range(3, 8))):
        tombstones.write(keyed_changes(numbers, sequence), NOW)
    asked = keyed_changes(range(1, 9), 20)
    assert set(tombstones.superseded(asked)[KEY].to_pylist()) == {"k2", "k3", "k4", "k5"}
    (late,) = tombstones.superseded(keyed_changes(range(3, 4), 5)).to_pylist()
    assert late[versions.HIGHEST] == row_version(1, 30)
