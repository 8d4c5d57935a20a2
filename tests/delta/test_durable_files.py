"""Local files are complete once they have their name, and outlast a loss of power."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datazone_dagster.delta.durable_files import create_file, replace_file, sync_files
from datazone_dagster.testing import full_disk
from tests.faults.power import Disk

ENTRY = "table/_delta_log/00000000000000000001.json"


def test_of_many_writers_one_creates_the_file(tmp_path: Path) -> None:
    contents = [f"writer {number}".encode() * 999 for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        created = list(pool.map(lambda content: create_file(tmp_path / ENTRY, content), contents))
    assert created.count(True) == 1
    assert (tmp_path / ENTRY).read_bytes() == contents[created.index(True)]
    assert [path.name for path in (tmp_path / ENTRY).parent.iterdir()] == [Path(ENTRY).name]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        replace_file(tmp_path / ENTRY, content)
        assert (tmp_path / ENTRY).read_bytes() == content
    assert len(list((tmp_path / ENTRY).parent.iterdir())) == 1


@pytest.mark.parametrize("write", [create_file, replace_file])
def test_a_full_disk_leaves_no_file(tmp_path: Path, write: object) -> None:
    assert callable(write)
    with full_disk(file_bytes=10), pytest.raises(OSError, match="File too large"):
        write(tmp_path / ENTRY, b"x" * 11)
    assert list((tmp_path / ENTRY).parent.iterdir()) == []


@pytest.mark.parametrize("seed", range(20))
def test_files_outlast_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A data file in a new partition, an entry, and a checkpoint's hint."""
    monkeypatch.setattr(os, "fsync", os.fsync)  # it is the system's own again after the test
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    disk = Disk(tmp_path, seed)
    disk.all_is_written()
    disk.take_note()
    files = {
        "table/bucket=0/part.parquet": b"rows" * 999,
        ENTRY: b"entry",
        "table/_delta_log/_last_checkpoint": b"{}",
    }
    data_file = tmp_path / "table/bucket=0/part.parquet"
    data_file.parent.mkdir()
    data_file.write_bytes(files["table/bucket=0/part.parquet"])
    sync_files(tmp_path / "table", ["bucket=0/part.parquet", "bucket=0/was removed meanwhile"])
    create_file(tmp_path / ENTRY, b"entry")
    replace_file(tmp_path / "table/_delta_log/_last_checkpoint", b"{}")
    disk.lose_power()
    assert {path: (tmp_path / path).read_bytes() for path in files} == files


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES])
def test_a_file_system_that_cannot_sync_folders_has_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fsync = os.fsync

    def refused(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    assert create_file(tmp_path / ENTRY, b"entry")
    sync_files(tmp_path / "table", ["_delta_log/00000000000000000001.json"])
    assert (tmp_path / ENTRY).read_bytes() == b"entry"


def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(OSError, match="Input/output error"):
        create_file(tmp_path / ENTRY, b"entry")
    assert list((tmp_path / ENTRY).parent.iterdir()) == []


def test_of_a_table_that_is_gone_nothing_is_synced(tmp_path: Path) -> None:
    """Whoever commits to it is told that it is gone, not which call failed."""
    sync_files(tmp_path / "gone", ["bucket=0/part.parquet"])
    assert not list(tmp_path.iterdir())
