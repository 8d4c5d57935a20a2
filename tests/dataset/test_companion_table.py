"""Companion tables: what is read of them, how long it stays, and tables of earlier versions."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from datazone_dagster.dataset.companion_table import RETENTION, CompanionTable, Stamps
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.tombstones import KIND, SCHEMA, Tombstones
from datazone_dagster.delta import create_table
from datazone_dagster.delta.table import Table
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION
from datazone_dagster.model.layout import CHANGE_LOG_KIND, Layout
from datazone_dagster.model.snapshot_state import PROPERTY, Phase, SnapshotState
from datazone_dagster.model.version import row_version
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.merge_batch import CAUSE

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
STAMPS = Stamps(day="day", epoch="epoch", rank="rank")
ROWS = pa.schema([(KEY, pa.string()), (VERSION, pa.string())])


class World:
    """A companion table with one file per appended version, of the keys `a` and `b`."""

    def __init__(self, root: Path) -> None:
        self.layout = layout = Layout(str(root))
        self.uri = f"{root}/companion"
        self.companion = CompanionTable(
            layout, "d", "orders", self.uri, kind="test", stamps=STAMPS, contents="things"
        )
        self.schema = pa.schema([*ROWS, *STAMPS.fields])

    def append(self, *identity: int, now: datetime = NOW) -> None:
        version = row_version(*identity)
        rows = pa.table({KEY: ["a", "b"], VERSION: [version] * 2})
        table = self.companion.open_or_create(self.schema, "Things of d")
        stamped = aligned(rows, self.schema, STAMPS.values(rows[VERSION], now))
        self.companion.append(table, stamped, now)

    def table(self) -> Table:
        table = self.companion.open()
        assert table is not None
        return table

    def read(
        self, keys: list[str] | None = None, lowest: str | None = None
    ) -> list[tuple[str, str]]:
        wanted = None if keys is None else pa.array(keys, pa.string())
        rows = self.companion.read(self.table(), ROWS, wanted, lowest=lowest)
        return sorted((row[KEY], row[VERSION]) for row in rows.to_pylist())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_only_files_that_reach_a_version_are_read(world: World) -> None:
    versions = [(1, 9 * 10**20), (1, 10**21), (1, 10**39), (2, 0), (2, 10**38)]
    for identity in versions:
        world.append(*identity)
    for at, lowest in enumerate(versions):
        wanted = [row_version(*identity) for identity in versions[at:]]
        read = world.read(["a", "c"], lowest=row_version(*lowest))
        assert read == [("a", version) for version in wanted]
        files = world.companion.files_from(world.table().at.files, row_version(*lowest))
        assert len(files) == len(wanted)
    assert len(world.read()) == 2 * len(versions)
    assert world.read([]) == []


def test_full_days_expire_after_the_retention(world: World) -> None:
    world.append(1, 1)
    world.append(1, 2, now=NOW + timedelta(hours=23))
    world.append(1, 3, now=NOW + RETENTION + timedelta(hours=23))
    assert len(world.read()) == 6
    world.append(1, 4, now=NOW + RETENTION + timedelta(days=1))
    assert world.read(["a"]) == [("a", row_version(1, 3)), ("a", row_version(1, 4))]


def test_days_that_a_quarantined_change_may_need_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.append(1, 1)
    world.append(1, 2, now=NOW + timedelta(days=1))
    monkeypatch.setattr(Quarantine, "oldest_waiting", lambda _: NOW + timedelta(days=1, hours=3))
    world.append(1, 3, now=NOW + 3 * RETENTION)
    assert world.read(["a"]) == [("a", row_version(1, 2)), ("a", row_version(1, 3))]


@pytest.mark.parametrize(
    ("phase", "left"), [(Phase.SCANNING, [2, 3]), (Phase.SCANNED, [2, 3]), (Phase.DONE, [3])]
)
def test_days_that_a_running_snapshot_may_need_stay(
    world: World, phase: Phase, left: list[int]
) -> None:
    """A page of a scan that takes weeks may be older than a delete that the stream has shown."""
    state = SnapshotState("s", phase=phase, epoch=2, announced_at=NOW + timedelta(days=1, hours=3))
    create_table(
        world.layout.change_log("orders"),
        {},
        CHANGE_LOG_KIND,
        ROWS,
        configuration={PROPERTY: state.to_json()},
    )
    world.append(2, 1)
    world.append(2, 2, now=NOW + timedelta(days=1))
    world.append(2, 3, now=NOW + 3 * RETENTION)
    assert world.read(["a"]) == [("a", row_version(2, number)) for number in left]


def test_an_expired_table_is_empty_not_missing(world: World) -> None:
    world.append(1, 1)
    with world.table().by_delta_rs() as handle:
        handle.delete()
    assert world.read() == []
    assert world.read(["a"], lowest=row_version(1, 0)) == []


def test_tombstones_of_a_table_without_the_columns_of_soft_deletes(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    old = pa.schema([one for one in SCHEMA if one.name not in (EVENT_TIME, "image_version")])
    create_table(layout.tombstones("d"), {}, KIND, old, partition_by=("day",))
    tombstones = Tombstones(layout, "d", "orders")
    keyed = pa.table({KEY: ["a"], VERSION: [row_version(1, 1)], CAUSE: ["user"]})
    values = {"day": "2030-01-01", "deleted_at": NOW, "epoch": 1, "sequence_rank": 1.0}
    rows = aligned(keyed, old, {name: pa.scalar(value) for name, value in values.items()})
    write_deltalake(layout.tombstones("d"), rows, mode="append")
    tombstones.write(keyed.append_column("image_version", pa.array([row_version(1, 0)])), NOW)
    found = tombstones.for_keys(pa.chunked_array([["a", "b"]]))
    assert sorted(map(str, found["image_version"].to_pylist())) == [row_version(1, 0), "None"]
    assert found[KEY].to_pylist() == ["a", "a"]
