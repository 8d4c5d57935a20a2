"""Commands in another folder than Dagster's: they say that there is nothing at that path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import DEFINITIONS, ProjectFolder, run_command


@pytest.mark.parametrize(
    "arguments",
    [
        ("accept-gap", "orders", "--list"),
        ("accept-gap", "orders", "--why", "lost"),
        ("redrive", "current", "--list"),
        ("redrive", "current"),
        ("rebuild", "current"),
        ("maintain",),
        ("maintain", "current"),
    ],
    ids=" ".join,
)
def test_another_folder(project: ProjectFolder, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    project.put("a", 1)
    project.drain()
    project.apply()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ("-f", str(project.path / "definitions.py"))
    done = run_command(*arguments, *options, cwd=elsewhere)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"There is no lakehouse at {elsewhere / 'lake'}" in done.stderr
    assert "--lakehouse" in done.stderr
    assert list(elsewhere.iterdir()) == []
    assert run_command(*arguments[:1], "--help", cwd=elsewhere).returncode == 0


def test_a_lakehouse_without_this_source(project: ProjectFolder) -> None:
    project.put("a", 1)
    project.drain()
    project.apply()
    other = project.path / "other.py"
    other.write_text(DEFINITIONS.replace('"orders")', '"payments")'), "utf-8")
    done = project.run("accept-gap", "payments", "--list", "-f", "other.py")
    assert done.returncode == 1
    assert f"no change log of source 'payments' at {project.layout.uri}/_changelog/payments" in (
        done.stderr
    )
    assert "--lakehouse" in done.stderr


def test_the_right_lakehouse_by_name(project: ProjectFolder, tmp_path: Path) -> None:
    project.put("a", 1)
    project.drain()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ("-f", str(project.path / "definitions.py"), "--lakehouse", project.layout.uri)
    done = run_command("accept-gap", "orders", "--list", *options, cwd=elsewhere)
    assert (done.returncode, done.stdout) == (0, "No gap was ever recorded for source orders.\n")
