"""Cleaning of a Delta log: wherever it is interrupted, no process finds a hole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from datazone_dagster.delta.log_files import ENTRY, LOG
from datazone_dagster.delta.log_upkeep import clean_log, make_checkpoint
from datazone_dagster.delta.store import TableStore
from tests.delta.test_table_state import commit, create, kept

COMMITS = 12


class Interrupted(TableStore):
    """A store that is lost after some deletions."""

    left = COMMITS

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            if not self.left:
                raise OSError("the store is gone")
            self.left -= 1
            super().delete([path])


@pytest.mark.parametrize("deleted", range(1, COMMITS - 3))
def test_a_process_that_slept_never_commits_into_a_hole(tmp_path: Path, deleted: int) -> None:
    create(tmp_path)
    table = kept(tmp_path, local=True)
    at = table.now()
    assert at is not None
    versions = [at]
    for number in range(1, COMMITS):
        versions.append(table.took(commit(versions[-1], number)))
    make_checkpoint(table, versions[-3])
    log = tmp_path / LOG
    for file in log.iterdir():
        os.utime(file, (1, 1))
    at = table.now()
    assert at is not None
    newest = commit(at, COMMITS)

    store = Interrupted(str(tmp_path), {})
    store.left = deleted
    object.__setattr__(newest, "store", store)
    with pytest.raises(OSError, match="gone"):
        clean_log(newest, timedelta(hours=1))
    there = sorted(int(one.name[:20]) for one in log.iterdir() if ENTRY.fullmatch(one.name))
    assert there == list(range(deleted, newest.version + 1))


def test_files_that_a_kill_left_without_their_name_are_deleted(tmp_path: Path) -> None:
    create(tmp_path)
    table = kept(tmp_path, local=True)
    at = table.now()
    assert at is not None
    log = tmp_path / LOG
    left, being_written = log / f"{1:020}.json#77", log / f"{2:020}.json#78"
    for path in (left, being_written):
        path.write_bytes(b"{}")
    os.utime(left, (1, 1))
    clean_log(table.took(commit(at, 1)), timedelta(hours=1))
    assert not left.exists()
    assert being_written.exists()
