"""Maintenance changes the cost of reading a table, never its rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import MaintenanceReport
from datazone_dagster.process import crash_points
from datazone_dagster.rows.maintenance_plan import (
    MIB,
    THOROUGH,
    FileFacts,
    MaintenanceSettings,
    plan_rewrites,
)
from datazone_dagster.rows.table_maintenance import maintain
from datazone_dagster.testing import at_point
from tests.dataset.test_modes import Table, a
from tests.examples import examples

EAGER = replace(MaintenanceSettings(), join_files=4, checkpoint_commits=5)
NOW = datetime.now(timezone.utc)


def maintained(
    root: Path,
    settings: MaintenanceSettings = EAGER,
    now: datetime = NOW,
    memory_bytes: int | None = None,
) -> MaintenanceReport:
    report = maintain(Layout(str(root)), "t", settings, now, memory_bytes=memory_bytes)
    assert report is not None
    return report


def merges(table: Table, numbers: Sequence[int], keys: int = 7) -> None:
    for number in numbers:
        table.apply([a(10 * number + k, ("new", number), key=f"k{k}") for k in range(0, keys, 2)])


def rows(table: Table) -> list[str]:
    return sorted(map(str, table.rows()))


def old_rows(uri: str, version: int) -> list[str]:
    return sorted(map(str, pa.table(DeltaTable(uri, version=version).scan()).to_pylist()))


def data_paths(root: Path) -> set[str]:
    return {
        str(path.relative_to(root / "t"))
        for path in (root / "t").rglob("*")
        if path.suffix in {".parquet", ".bin"} and "_delta_log" not in path.parts
    }


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("partition_by", [(), ("status",)])
def test_rows_stay_files_and_hidden_rows_go(
    tmp_path: Path, vectors: bool, partition_by: tuple[str, ...]
) -> None:
    table = Table(tmp_path, partition_by=partition_by, deletion_vectors=vectors)
    table.apply([a(n, ("old", n), key=f"k{n}") for n in range(50)])
    merges(table, range(11, 18), keys=21)
    newest = DeltaTable(table.table.uri).version()
    versions = {n: old_rows(table.table.uri, n) for n in range(newest)}
    before = rows(table)
    report = maintained(tmp_path)
    assert rows(table) == before
    assert report.hidden_rows == 0
    assert report.files <= 2
    assert report.checkpoint
    if vectors:
        assert report.rows_dropped > 0
        assert "hidden rows" in report.did
    # Every older version is unchanged.
    assert {n: old_rows(table.table.uri, n) for n in versions} == versions
    # Merges continue.
    merges(table, range(20, 23))
    assert len(rows(table)) == len(before)
    assert table.table.position() == 11


def test_nothing_due_means_no_commit(tmp_path: Path) -> None:
    table = Table(tmp_path, deletion_vectors=True)
    merges(table, [11, 12])
    version = DeltaTable(table.table.uri).version()
    report = maintained(tmp_path, MaintenanceSettings(hidden_share=1.0))
    assert DeltaTable(table.table.uri).version() == version
    assert report.did == ""
    assert maintain(Layout(str(tmp_path)), "never_written", EAGER, NOW) is None


def test_joined_rows_are_sorted_by_key(tmp_path: Path) -> None:
    table = Table(tmp_path)
    for n in (5, 3, 9, 1, 7, 2):
        table.apply([a(n, ("x", n), key=f"k{n}"), a(n, ("x", n), key=f"l{n}")])
    maintained(tmp_path)
    (path,) = DeltaTable(table.table.uri).file_uris()
    keys = pq.read_table(path)["_dz_key"].to_pylist()
    assert keys == sorted(keys)


def test_replaced_files_are_deleted_after_the_retention(tmp_path: Path) -> None:
    table = Table(tmp_path, deletion_vectors=True)
    table.apply([a(n, ("old", n), key=f"k{n}") for n in range(50)])
    merges(table, range(11, 18), keys=21)
    # Files of a writer that died before its commit, and a file that no writer made.
    orphans = [tmp_path / "t" / "part-orphan.parquet", tmp_path / "t" / "deletion_vector_0.bin"]
    unrecognised = tmp_path / "t" / "README.txt"
    for path in (*orphans, unrecognised):
        path.write_bytes(b"x")
    always = replace(EAGER, clean_every=timedelta(0), checkpoint_commits=0)
    assert maintained(tmp_path, always).files_deleted == 0
    earlier = data_paths(tmp_path)
    before = rows(table)

    week = replace(always, hidden_share=2.0)
    report = maintained(tmp_path, week, NOW + timedelta(days=8))
    left = data_paths(tmp_path)
    assert report.files_deleted == len(earlier - left) > len(orphans)
    assert not any(path.exists() for path in orphans)
    assert unrecognised.exists()
    assert rows(table) == before
    live = {uri.rpartition("/")[2] for uri in DeltaTable(table.table.uri).file_uris()}
    assert live <= left


def test_vectors_in_use_are_never_deleted(tmp_path: Path) -> None:
    table = Table(tmp_path, deletion_vectors=True)
    table.apply([a(n, ("old", n), key=f"k{n}") for n in range(50)])
    merges(table, [11, 12])
    before = rows(table)
    old = (NOW - timedelta(days=400)).timestamp()
    for path in data_paths(tmp_path):
        os.utime(tmp_path / "t" / path, (old, old))
    keep = MaintenanceSettings(hidden_share=2.0, checkpoint_commits=1, clean_every=timedelta(0))
    assert maintained(tmp_path, keep).files_deleted == 0
    assert any(path.endswith(".bin") for path in data_paths(tmp_path))
    assert rows(table) == before
    # Old files that leave the table now are needed by its older versions until the retention ends.
    version = DeltaTable(table.table.uri).version()
    assert maintained(tmp_path, replace(keep, hidden_share=0.01)).rows_dropped > 0
    assert maintained(tmp_path, replace(keep, checkpoint_commits=0)).files_deleted == 0
    assert old_rows(table.table.uri, version) == before


def test_orphan_files_are_searched_for_once_a_day(tmp_path: Path) -> None:
    table = Table(tmp_path)
    merges(table, range(11, 18), keys=21)
    maintained(tmp_path)
    orphan = tmp_path / "t" / "part-orphan.parquet"
    orphan.write_bytes(b"x")
    old = (NOW - timedelta(days=30)).timestamp()
    os.utime(orphan, (old, old))
    merges(table, range(20, 27))
    assert maintained(tmp_path, now=NOW + timedelta(hours=2)).checkpoint
    assert orphan.exists()
    merges(table, range(30, 37))
    maintained(tmp_path, now=NOW + timedelta(hours=25))
    assert not orphan.exists()


def test_a_merge_that_commits_first_wins(tmp_path: Path) -> None:
    table = Table(tmp_path, deletion_vectors=True)
    table.apply([a(n, ("old", n), key=f"k{n}") for n in range(50)])
    merges(table, range(11, 18), keys=21)

    def merge() -> None:
        table.apply([a(300, ("newest", 30), key="k40")])

    with at_point(crash_points.AFTER_DATA_FILES, merge):
        report = maintained(tmp_path)
    assert report.lost_race
    assert "lost the commit race" in report.did
    assert [row["note"] for row in table.rows() if row["status"] == "newest"] == [30]
    assert len(table.rows()) == 50
    assert maintained(tmp_path).files_written >= 1
    assert len(table.rows()) == 50


def test_a_merge_that_changes_other_files_meanwhile_stays(tmp_path: Path) -> None:
    table = Table(tmp_path, deletion_vectors=True)
    table.apply([a(n, ("old", n), key=f"k{n}") for n in range(50)])
    merges(table, range(11, 18), keys=21)

    def merge() -> None:
        merges(table, [30], keys=21)

    with at_point(crash_points.AFTER_DATA_FILES, merge):
        report = maintained(tmp_path)
    assert (report.lost_race, report.rows_dropped) == (False, 11)
    assert {row["note"] for row in table.rows() if row["status"] == "new"} == {30}
    assert len(table.rows()) == 50


def test_all_rewrites_are_one_commit(tmp_path: Path) -> None:
    table = Table(tmp_path, partition_by=("status",))
    for n in range(1, 9):
        table.apply([a(n, (f"s{n % 2}", n), key=f"k{n}")])
    version = DeltaTable(table.table.uri).version()
    report = maintained(tmp_path, replace(EAGER, checkpoint_commits=1000))
    assert report.files_written == 2
    assert DeltaTable(table.table.uri).version() == version + 1


def test_time_and_bytes_bound_a_run(tmp_path: Path) -> None:
    table = Table(tmp_path, partition_by=("status",))
    for n in range(1, 9):
        table.apply([a(n, (f"s{n % 2}", n), key=f"k{n}")])
    ticks = iter(range(0, 1000, 100))
    report = maintain(Layout(str(tmp_path)), "t", EAGER, NOW, monotonic=lambda: float(next(ticks)))
    assert report is not None
    assert report.files_written == 1  # the other partition's files are left for the next run
    assert maintained(tmp_path).files == 2


def test_a_table_with_change_data_feed_is_left_to_delta_rs(tmp_path: Path) -> None:
    table = Table(tmp_path)
    merges(table, range(11, 14))
    DeltaTable(table.table.uri).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    for n in range(1, 6):
        table.apply([a(n, ("x", n), key=f"z{n}")])
    before = rows(table)
    report = maintained(tmp_path, THOROUGH)
    assert report.files_joined > 1
    assert rows(table) == before


FILES = st.lists(
    st.builds(
        lambda size, rows_, share, partition: FileFacts(
            size * MIB, rows_, int(rows_ * share), (("p", partition),)
        ),
        st.integers(0, 200),
        st.integers(1, 10_000),
        st.sampled_from([0.0, 0.05, 0.2, 1.0]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(files=FILES, join_files=st.integers(2, 20), budget=st.integers(1, 600))
def test_a_plan_is_within_its_bounds(files: list[FileFacts], join_files: int, budget: int) -> None:
    bounds = MaintenanceSettings(join_files=join_files, budget_bytes=budget * MIB)
    plan = plan_rewrites(files, bounds)
    planned = [at for rewrite in plan for at in rewrite.files]
    assert len(planned) == len(set(planned))
    assert sum(one.bytes_read for one in plan[1:]) <= budget * MIB
    for rewrite in plan:
        chosen = [files[at] for at in rewrite.files]
        assert len({file.partition for file in chosen}) == 1
        if len(chosen) > 1:
            assert sum(file.live_bytes for file in chosen) <= bounds.group_bytes
        else:
            assert chosen[0].hidden_share >= bounds.hidden_share


@settings(max_examples=examples(30), deadline=None)
@given(merges_=st.integers(1, 400))
def test_a_row_is_rewritten_a_few_times_whatever_the_number_of_merges(merges_: int) -> None:
    usual = MaintenanceSettings()
    files: list[FileFacts] = []
    written = 0
    for _ in range(merges_):
        files.append(FileFacts(MIB // 2, 10_000, 0))
        plan = plan_rewrites(files, usual)
        replaced = {at for rewrite in plan for at in rewrite.files}
        written += sum(rewrite.bytes_read for rewrite in plan)
        files = [
            *(file for at, file in enumerate(files) if at not in replaced),
            *(FileFacts(one.bytes_read, 10_000 * len(one.files), 0) for one in plan),
        ]
    assert written <= 2 * merges_ * (MIB // 2)
    assert len(files) < 3 * usual.join_files + merges_ * (MIB // 2) / (32 * MIB)


def test_the_retention_is_never_too_short_for_a_running_writer() -> None:
    with pytest.raises(DefinitionError, match="too short"):
        MaintenanceSettings(retention=timedelta(hours=23))


def test_no_more_files_are_joined_than_fit_in_memory(tmp_path: Path) -> None:
    """The compressed files are tiny: the memory that they take shows only when they are read."""
    table = Table(tmp_path)
    text = "n" * 10_000
    for number in range(8):
        table.apply([a(100 * number + k, (text, k), key=f"k{number}-{k}") for k in range(100)])
    before = rows(table)
    assert maintained(tmp_path, memory_bytes=1 * MIB).files_joined == 0
    report = maintained(tmp_path, memory_bytes=13 * MIB)
    assert (report.files_joined, report.files) == (3, 6)
    assert maintained(tmp_path).files == 1
    assert rows(table) == before
