"""Each guard is removed once, in a copy of the project, and its test has to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.guards import GUARDS, Guard
from tests.faults.ledger import ENVIRONMENT

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.what)
def test_the_guard_and_its_test_exist(guard: Guard) -> None:
    file = PROJECT / "datazone_dagster" / guard.file
    assert file.read_text("utf-8").count(guard.code) == 1, "this guard has moved"
    test_file, _, name = guard.test.split(" ")[0].partition("::")
    tests = (PROJECT / "tests" / test_file).read_text("utf-8")
    assert f"def {name.partition('[')[0]}(" in tests or not name


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.what)
def test_without_the_guard_its_test_fails(guard: Guard, tmp_path: Path) -> None:
    for folder in ("datazone_dagster", "tests"):
        shutil.copytree(
            PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    file = tmp_path / "datazone_dagster" / guard.file
    code = file.read_text("utf-8")
    assert code.count(guard.code) == 1, "this guard has moved"
    file.write_text(code.replace(guard.code, guard.without), "utf-8")

    # Losses without the guard do not belong in the ledger.
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    node, *options = guard.test.split(" ")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", f"tests/{node}", *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout[-3000:]
