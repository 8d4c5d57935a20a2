"""The pass over the changes of a chunk: it ends at its bounds, and seldom counts the keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

import pyarrow as pa
import pytest

from datazone_dagster.apply import change_scan
from datazone_dagster.apply.change_scan import ChangeScan
from datazone_dagster.changelog.row_groups import RowGroup, RowGroups
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.dataset.latest import only_latest
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.size_policy import ChunkBounds
from datazone_dagster.model.version import row_version

ROW_BYTES = 1000.0
GROUP_ROWS = 20


class InMemory(RowGroups):
    """Row groups of a batch each."""

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self._tables = [
            rows_of(number, number * GROUP_ROWS, keys) for number, keys in enumerate(groups, 1)
        ]

    def __iter__(self) -> Iterator[RowGroup]:
        for number, rows in enumerate(self._tables):
            yield RowGroup(number, 0, len(rows), 10 * rows.nbytes)

    def read(self, row_group: RowGroup, columns: Sequence[str]) -> pa.Table:
        return self._tables[row_group.file].select(list(columns))


def rows_of(batch: int, first: int, keys: Sequence[int]) -> pa.Table:
    time = datetime(2024, 5, 6, tzinfo=timezone.utc)
    rows = [
        {
            Log.BUCKET: 0,
            Log.BATCH: batch,
            Log.STREAM_ARN: "arn",
            Log.SHARD_ID: "s",
            Log.KEYS: json.dumps({"id": {"S": f"{key:04d}"}}, separators=(",", ":")),
            Log.VERSION: row_version(0, first + at),
            Log.EVENT_NAME: "MODIFY",
            Log.EVENT_TIME: time,
            Log.SIZE_BYTES: 100,
        }
        for at, key in enumerate(keys)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def scanned(groups: Sequence[Sequence[int]], retained_bytes: int) -> ChangeScan:
    bounds = ChunkBounds(1 << 40, ROW_BYTES, retained_bytes, retained_bytes * 3 // 2)
    scan = ChangeScan(bounds, (), lambda: None, latest_only=True, reads_later=True)
    scan.run(InMemory(groups))
    return scan


@pytest.fixture
def collapses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows of each collapse."""
    found: list[int] = []

    def counted(rows: pa.Table, keys: pa.Array, versions: pa.Array) -> pa.Table:
        found.append(len(rows))
        return only_latest(rows, keys, versions)

    monkeypatch.setattr(change_scan, "only_latest", counted)
    return found


def repeated(keys: int, groups: int) -> list[list[int]]:
    """Changes of the same keys in turns."""
    return [[(GROUP_ROWS * at + one) % keys for one in range(GROUP_ROWS)] for at in range(groups)]


def test_a_chunk_near_its_bound_is_seldom_collapsed(collapses: list[int]) -> None:
    groups = repeated(100, 60)
    whole = scanned(groups, 1 << 30)
    key_bytes = whole.changes().nbytes // 100
    collapses.clear()
    scan = scanned(groups, int(100 * (ROW_BYTES + key_bytes) / 0.93))
    assert scan.records == 60 * GROUP_ROWS
    assert len(collapses) <= 25, "a collapse for each of 55 row groups would take long"
    assert scan.changes().equals(whole.changes())


def test_a_chunk_ends_where_new_keys_come_after_the_same_ones() -> None:
    known, new = repeated(100, 20), [[*range(at, at + GROUP_ROWS)] for at in range(100, 700, 20)]
    retained_bytes = int(100 * (ROW_BYTES + 250) / 0.85)
    scan = scanned([*known, *new], retained_bytes)
    assert 20 * GROUP_ROWS <= scan.records < 50 * GROUP_ROWS
    assert len(scan.changes()) * ROW_BYTES <= retained_bytes * 3 // 2
