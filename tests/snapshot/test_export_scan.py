"""A full export as the scan of a snapshot, on real tables and real files."""

from __future__ import annotations

import gzip
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.errors import ExportError, SnapshotError
from datazone_dagster.model.snapshot_state import EXPORT_SETTLE, Phase
from datazone_dagster.pipeline import (
    SnapshotSettings,
    open_exports,
    read_dataset,
    want_exports,
    want_snapshot,
)
from datazone_dagster.process import crash_points
from datazone_dagster.snapshot import export_table
from datazone_dagster.testing import Crash, crash_at
from tests.examples import examples
from tests.snapshot.exporting import ExportingWorld
from tests.snapshot.flow import SOURCE, flow, rows_of

LATER = EXPORT_SETTLE + timedelta(seconds=1)


def announced(root: Path, *, before: int = 9, flow: object = None) -> ExportingWorld:
    """Return a world with items that the stream never showed, and an announced snapshot."""
    world = ExportingWorld(root, *([] if flow is None else [flow]))
    for number in range(before):
        world.put(number, 0, unseen=True)
    world.clock.advance(timedelta(hours=1))
    world.drain()
    want_exports(SOURCE.name, world.layout)
    world.snapshot()
    assert world.status().phase is Phase.ANNOUNCED
    return world


def test_the_items_of_an_export_become_the_rows_of_every_mode(tmp_path: Path) -> None:
    world = announced(tmp_path, flow=flow)
    world.put(1, 5)
    world.delete(2)
    world.clock.advance(LATER)
    export = world.full()
    world.put(3, 7)
    world.delete(4)
    report = world.finish([export])
    assert (report.phase, report.reads, report.rows) == (Phase.DONE, "export", 8)
    assert report.consistent_since == report.scanned_at
    assert world.table.calls["Scan"] == 0
    for dataset_id in ("current", "soft"):
        assert rows_of(world.layout, dataset_id) == world.items()
    past = [row for row in read_dataset(world.layout, "past").to_pylist() if not row["_dz_deleted"]]
    assert {row["id"]: row["total"] for row in past if row["_dz_is_current"]} == world.items()
    assert all(row["_dz_valid_to"] is None for row in past if row["_dz_is_current"])
    names = Counter(name for name, _ in world.events().elements())
    assert names == {"SNAPSHOT": 8, "MODIFY": 2, "REMOVE": 2}


def test_keys_that_are_not_in_the_export_are_swept(tmp_path: Path) -> None:
    world = ExportingWorld(tmp_path)
    for number in range(4):
        world.put(number, 1)
    world.drain()
    world.apply()
    world.table.delete_unseen({"id": {"S": "k2"}})
    world.writes.append(world.writes[2]._replace(old=world.writes[2].new, new=None))
    want_exports(SOURCE.name, world.layout)
    world.snapshot()
    world.clock.advance(LATER)
    report = world.finish([world.full()])
    assert report.sweep.deleted == 1
    assert world.rows() == world.items()


def test_an_export_that_may_be_older_than_drained_changes_is_refused(tmp_path: Path) -> None:
    world = announced(tmp_path)
    world.clock.advance(EXPORT_SETTLE - timedelta(seconds=1))
    old = world.full()
    world.drain()
    with pytest.raises(ExportError, match="too old for this snapshot") as caught:
        world.read([old])
    assert "2030-01-01 01:05:00 UTC or later" in caught.value.hint
    assert world.status().phase is Phase.ANNOUNCED
    world.clock.advance(timedelta(seconds=1))
    assert world.finish([world.full()]).phase is Phase.DONE


def test_without_that_rule_an_old_state_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is needed: the same steps with it switched off end with a wrong row."""
    monkeypatch.setattr("datazone_dagster.snapshot.export_fit._require_time", lambda *_: None)
    world = ExportingWorld(tmp_path)
    world.put(1, 1)
    world.clock.advance(timedelta(hours=1))
    world.put(1, 2)
    world.drain()
    want_exports(SOURCE.name, world.layout)
    world.snapshot()
    export = world.full()  # misses the second write, which was drained before the announcement
    world.clock.advance(timedelta(minutes=2))
    world.drain()
    world.finish([export])
    assert world.rows() == {"k1": "1"}
    assert world.items() == {"k1": "2"}


def test_a_full_export_of_another_table_is_refused(tmp_path: Path) -> None:
    world = announced(tmp_path)
    world.clock.advance(LATER)
    world.table.table_id = "table-0"
    export = world.full()
    world.table.table_id = "table-1"
    world.drain()
    with pytest.raises(ExportError, match="had the name before"):
        world.read([export])


def test_a_damaged_file_lands_no_row_of_it(tmp_path: Path) -> None:
    world = announced(tmp_path)
    world.clock.advance(LATER)
    export = world.full(files=1)
    (data,) = Path(export).glob("data/*.json.gz")
    whole = data.read_bytes()
    data.write_bytes(gzip.compress(gzip.decompress(whole).replace(b"k8", b"k9")))
    world.drain()
    with pytest.raises(ExportError, match="MD5 is another one"):
        world.read([export])
    assert world.status().rows == 0
    data.write_bytes(whole)
    assert world.finish([export]).rows == 9


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        (crash_points.AFTER_PAGES_READ, 1),
        (crash_points.AFTER_PAGES_READ, 3),
        (crash_points.AFTER_SCAN_COMMIT, 1),
        (crash_points.AFTER_SCAN_COMMIT, 3),
        (crash_points.AFTER_SNAPSHOT_STATE, 1),
    ],
)
def test_a_killed_import_continues_in_the_middle_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, nth: int
) -> None:
    monkeypatch.setattr(export_table, "PAGE_BYTES", 50)
    world = announced(tmp_path, before=12)
    world.clock.advance(LATER)
    export = world.full()
    world.drain()
    died = 0
    for _ in range(6):
        try:
            with crash_at(point, nth):
                world.read([export])
        except Crash:
            died += 1
        world.wait()
        world.apply()
    assert died
    assert world.finish([export]).rows == 12
    assert world.rows() == world.items()
    assert Counter(name for name, _ in world.events().elements()) == {"SNAPSHOT": 12}


def test_an_import_goes_on_with_its_own_export_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_table, "PAGE_BYTES", 50)
    world = announced(tmp_path)
    world.clock.advance(LATER)
    first, second = world.full(), world.full()
    world.drain()
    with pytest.raises(Crash), crash_at(crash_points.AFTER_SCAN_COMMIT):
        world.read([first])
    with pytest.raises(ExportError, match="not of 00000000000002-abcdef01"):
        world.read([second])
    waits = world.snapshot().waits_for  # the job that scans tables leaves it alone
    assert "the rest of export 00000000000001-abcdef01" in waits
    assert world.table.calls["Scan"] == 0
    assert world.finish([first]).rows == 9


def test_a_snapshot_that_waits_for_its_scan_reads_an_export_instead(tmp_path: Path) -> None:
    world = ExportingWorld(tmp_path)
    world.put(1, 1, unseen=True)
    world.drain()
    world.snapshot()
    state = want_exports(SOURCE.name, world.layout)
    assert (state.phase, state.reads, state.reason) == (Phase.ANNOUNCED, "export", "start")
    world.wait()
    assert "a full export of 2030-01-01 00:05:00 UTC or later" in world.snapshot().waits_for
    world.clock.advance(LATER)
    world.finish([world.full()])
    assert world.rows() == {"k1": "1"}


def test_a_scan_that_has_begun_takes_no_export(tmp_path: Path) -> None:
    world = ExportingWorld(tmp_path)
    for number in range(8):
        world.put(number, 1, unseen=True)
    world.drain()
    want_snapshot(SOURCE.name, world.layout, "start")
    world.snapshot()
    world.wait()
    world.snapshot(settings=SnapshotSettings(workers=1), stop=lambda: world.table.calls["Scan"] > 0)
    assert world.status().phase is Phase.SCANNING
    with pytest.raises(SnapshotError, match="scans the table"):
        want_exports(SOURCE.name, world.layout)
    world.clock.advance(LATER)
    with pytest.raises(SnapshotError, match="reads no export"):
        world.read([world.full()])


def test_an_empty_table(tmp_path: Path) -> None:
    world = announced(tmp_path, before=0)
    world.clock.advance(LATER)
    report = world.finish([world.full(files=0)])
    assert (report.phase, report.rows) == (Phase.DONE, 0)


def test_incremental_exports_are_no_scan(tmp_path: Path) -> None:
    world = announced(tmp_path)
    start = world.clock.now
    world.clock.advance(timedelta(hours=1))
    world.drain()
    with pytest.raises(ExportError, match="reads one full export"):
        world.read(world.windows((start, world.clock.now)))
    with open_exports([world.full()], world.layout, world.table) as exports:
        assert exports.segments == 2


STEP = st.tuples(
    st.sampled_from(["put", "put", "delete", "drain", "apply", "wait"]),
    st.integers(0, 4),
    st.integers(1, 9),
)
STEPS = st.lists(STEP, max_size=7)


def take(world: ExportingWorld, steps: list[tuple[str, int, int]]) -> None:
    for name, number, value in steps:
        if name == "put":
            world.put(number, value)
        elif name == "delete":
            world.delete(number)
        elif name == "drain":
            world.drain()
        elif name == "apply":
            world.apply()
        else:
            world.clock.advance(timedelta(seconds=30 * value))


@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(before=STEPS, between=STEPS, during=STEPS)
def test_any_writes_around_an_export_end_with_the_items_of_the_table(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[str, int, int]],
    between: list[tuple[str, int, int]],
    during: list[tuple[str, int, int]],
) -> None:
    world = ExportingWorld(tmp_path_factory.mktemp("world"))
    world.put(0, 1, unseen=True)
    world.drain()
    take(world, before)
    want_exports(SOURCE.name, world.layout)
    world.snapshot()
    world.clock.advance(EXPORT_SETTLE)
    take(world, between)
    export = world.full()
    take(world, during)
    world.finish([export])
    assert world.rows() == world.items()
