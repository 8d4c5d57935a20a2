"""A database of one task has its limits, its own folder, and nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from datazone_dagster.database.database import opened
from datazone_dagster.database.spill import PREFIX
from datazone_dagster.errors import OutOfMemoryError

LIMIT_BYTES = 64 << 20
LARGER_THAN_THE_LIMIT = """
    create temp table t as select n, repeat(md5(n::varchar), 4) as m from range(1_000_000) r(n)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_spills_to_its_own_folder_which_is_removed(temporary: Path) -> None:
    with opened(LIMIT_BYTES) as connection:
        connection.execute(LARGER_THAN_THE_LIMIT)
        (folder,) = temporary.glob(f"{PREFIX}*")
        assert sum(path.stat().st_size for path in folder.rglob("*.*")) > LIMIT_BYTES // 4
        assert list(Path.cwd().iterdir()) == []
    assert list(temporary.glob(f"{PREFIX}*")) == []


def test_the_folder_is_removed_after_an_error(temporary: Path) -> None:
    with (
        pytest.raises(OutOfMemoryError, match="more than its 8 MiB"),
        opened(8 << 20) as connection,
    ):
        connection.execute("select list(repeat('x', 1000)) from range(100_000)").fetchall()
    assert list(temporary.glob(f"{PREFIX}*")) == []


@pytest.mark.parametrize(
    "statement",
    [
        "install httpfs",
        "load httpfs",
        "select * from read_text('/etc/hostname')",
        "set memory_limit = '8GB'",
        "set enable_external_access = true",
    ],
)
def test_sql_can_not_lift_its_limits(statement: str) -> None:
    with opened() as connection, pytest.raises(duckdb.Error):
        connection.execute(statement)
