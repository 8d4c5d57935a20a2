"""`datazone-dagster init` as a user runs it: the project that it makes is loaded and tested."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from datazone_dagster import dagster_yaml
from datazone_dagster.commands.init import (
    installed_requirement,
    project_files,
    webserver_requirement,
)
from datazone_dagster.commands.project import load_project
from tests.commands.running import run_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = {
    ".gitignore",
    "AGENTS.md",
    "README.md",
    "dagster.yaml",
    "definitions.py",
    "pyproject.toml",
    "tests/test_transforms.py",
}
TABLE = ("--table", "shop.orders-eu", "--region", "eu-west-1")


def files(folder: Path) -> set[str]:
    """Files of a project, by their paths in it."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in found if "__pycache__" not in path.parts}


def call_tests(project: Path, lakehouse: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Call the test functions of a project, as pytest would do in it, and return their number."""
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, "definitions", raising=False)
    code = (project / "tests" / "test_transforms.py").read_text("utf-8")
    names: dict[str, object] = {"__name__": "test_transforms"}
    exec(compile(code, "test_transforms.py", "exec", dont_inherit=True), names)
    monkeypatch.delitem(sys.modules, "definitions")
    called = [value for name, value in names.items() if name.startswith("test_")]
    for test in called:
        assert callable(test)
        test(lakehouse)
    return len(called)


@pytest.mark.parametrize("options", [(), TABLE], ids=["local", "table"])
def test_the_project_loads_and_its_own_test_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    done = run_command("init", "my shop", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "my shop"
    assert files(folder) == FILES
    assert (folder / "dagster.yaml").read_text("utf-8") == dagster_yaml()
    monkeypatch.chdir(folder)
    [source] = load_project().sources.values()
    assert (source.endpoint_url is None) == bool(options)
    assert call_tests(folder, tmp_path / "lake", monkeypatch) == 1


def test_a_table_of_a_user_is_named_and_nothing_is_guessed(tmp_path: Path) -> None:
    done = run_command("init", ".", *TABLE, cwd=tmp_path)
    assert "emulator" not in done.stdout
    code = (tmp_path / "definitions.py").read_text("utf-8")
    assert 'DynamoDBSource("shop.orders-eu", region="eu-west-1")' in code
    assert "default_status=DefaultSensorStatus.STOPPED" in code  # drains nothing unasked
    tree = ast.parse(code)
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert function.name == "current_shop_orders_eu"
    assert ast.unparse(function.body[-1]) == "return changes.items()"


def test_files_that_exist_stay(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", "utf-8")
    (tmp_path / "pyproject.toml").write_text("[project]", "utf-8")
    done = run_command("init", cwd=tmp_path)
    assert "Created 5 files" in done.stdout
    assert "README.md existed and stays as it is" in done.stdout
    assert "dagster dev -f definitions.py" in done.stdout
    assert (tmp_path / "README.md").read_text("utf-8") == "mine"
    assert (tmp_path / "pyproject.toml").read_text("utf-8") == "[project]"

    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    again = run_command("init", cwd=tmp_path)
    assert again.returncode == 1
    assert "there is a project already. Nothing was written." in again.stderr
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--region", "eu-west-1"), "--region is given without --table"),
        (("--table", "a table"), "table_name"),
        (("--table", "orders", "--region", "Frankfurt"), "region"),
    ],
)
def test_a_wrong_argument_writes_nothing(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = run_command("init", "shop", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert files(tmp_path) == set()


def test_the_project_can_be_installed_wherever_this_package_came_from() -> None:
    found = tomllib.loads(
        project_files("Ärger 2!", None, installed_requirement())["pyproject.toml"]
    )
    assert found["project"]["name"] == "rger-2"
    [requirement] = found["project"]["dependencies"]
    assert re.match(r"datazone-dagster\[webserver\]( @ \S+|>=\d)", requirement)
    named_like_ours = project_files("datazone-dagster", None, "x")["pyproject.toml"]
    assert 'name = "datazone-dagster-project"' in named_like_ours


def test_the_webserver_that_is_named_fits_the_installed_dagster() -> None:
    """Its packages pin one another: the newest one would break an installation of last week."""
    name, _, version = webserver_requirement().partition("==")
    assert version == metadata.version(name)
    assert f"dagster=={version}" in (metadata.requires(name) or [])
