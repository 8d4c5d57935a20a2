"""Spill folders of killed processes are removed by the next process; locked folders are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from datazone_dagster.database import spill
from datazone_dagster.database.spill import PREFIX, SpillFolder, remove_abandoned
from datazone_dagster.frame.query_session import Session

SPILLING = """
import sys, pyarrow as pa
from datazone_dagster.frame.query_session import Session
numbers = pa.table({"n": range(1_000_000)})
session = Session({"numbers": numbers}, memory_limit_bytes=64 << 20, threads=1)
session._connection.execute(
    "create temp table t as select n, repeat(md5(n::varchar), 4) as m from numbers"
)
# A process without a script counts as a shell, where DuckDB draws a bar for a long query.
bar = session._connection.execute("select current_setting('enable_progress_bar')").fetchone()
print("spilled" if bar == (False,) else "spilled, with a bar", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folder of this process and of the processes that it starts."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def folders(temporary: Path) -> set[Path]:
    return set(temporary.glob(f"{PREFIX}*"))


@pytest.fixture
def spilling(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, running a query that exceeds its memory limit."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPILLING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "spilled\n"
        yield process
        process.kill()


def test_a_folder_is_removed_only_once_its_process_is_killed(
    temporary: Path, spilling: subprocess.Popen[str]
) -> None:
    (folder,) = folders(temporary)
    assert sum(path.stat().st_size for path in folder.rglob("*.*")) > 0
    remove_abandoned()
    assert folders(temporary) == {folder}
    spilling.kill()
    spilling.wait()
    assert folders(temporary) == {folder}
    remove_abandoned()
    assert folders(temporary) == set()


def test_the_first_session_of_a_process_removes_the_folders_of_killed_processes(
    temporary: Path, spilling: subprocess.Popen[str]
) -> None:
    spilling.kill()
    spilling.wait()
    assert len(folders(temporary)) == 1
    code = "from datazone_dagster.frame.query_session import Session; Session({})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert folders(temporary) == set()


def test_a_session_leaves_nothing(temporary: Path) -> None:
    session = Session({"t": pa.table({"n": [1]})})
    assert len(folders(temporary)) == 1
    assert session.table("select n from t").num_rows == 1
    session.close()
    assert folders(temporary) == set()


def test_a_folder_without_a_lock_is_removed_only_if_it_is_old(temporary: Path) -> None:
    unlocked = temporary / f"{PREFIX}made"
    unlocked.mkdir()
    remove_abandoned()
    assert unlocked.exists()
    an_hour_ago = time.time() - spill._UNLOCKED_FOR_SECONDS - 60
    os.utime(unlocked, (an_hour_ago, an_hour_ago))
    remove_abandoned()
    assert not unlocked.exists()


def test_entries_that_only_look_like_spill_folders_are_left(temporary: Path) -> None:
    (temporary / "data").mkdir()
    (temporary / "data" / "lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(temporary / "data", target_is_directory=True)
    (temporary / f"{PREFIX}file").touch()
    mine = SpillFolder()
    remove_abandoned()
    assert (temporary / "data" / "lock").exists()
    assert len(folders(temporary)) == 3
    mine.remove()


def test_a_lock_that_leads_elsewhere_is_not_followed(temporary: Path) -> None:
    folder = temporary / f"{PREFIX}x"
    folder.mkdir()
    (temporary / "other").touch()
    (folder / "lock").symlink_to(temporary / "other")
    remove_abandoned()
    assert folder.exists()
