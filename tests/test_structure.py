"""The house rules that a linter does not know: sizes, names, and import rules that hold."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "datazone_dagster"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
MAY_REPEAT_NAMES = {"commands", "local", "demo"}
"""Folders whose files are named after a command, an operation or a part of the emulator."""

ERRORS_OF_DUCKDB = {"duckdb.Error"}

PLANTED = (
    # file, import, contract that has to break
    ("dagster_glue/sensors/sensor.py", "import boto3", "Only source knows boto3"),
    ("commands/cost.py", "import boto3", "Only source knows boto3"),
    ("demo/facts.py", "import boto3", "Only source knows boto3"),
    (
        "dagster_glue/topology.py",
        "import deltalake",
        "Only changelog, rows and delta know deltalake",
    ),
    ("drain/tick.py", "import deltalake", "Only changelog, rows and delta know deltalake"),
    ("apply/run.py", "import deltalake", "Only changelog, rows and delta know deltalake"),
    ("drain/plan.py", "import duckdb", "Only database, frame, dataset and tables know DuckDB"),
    ("drain/plan.py", "import datazone_dagster.process.memory", "Pure files do no IO"),
    ("observe/lag.py", "import pyarrow", "Only what holds rows knows Arrow"),
    ("frame/lookup.py", "import obstore", "Only delta knows obstore"),
    (
        "dagster_glue/sensors/cursor.py",
        "import datazone_dagster.drain.plan",
        "The facade is the only door to the stages and the tables",
    ),
    (
        "dagster_glue/runs/pools.py",
        "import datazone_dagster.dagster_glue.checks.applied",
        "Dagster's rooms",
    ),
    ("apply/chunk.py", "import datazone_dagster.drain.plan", "One way"),
    ("rows/align.py", "import datazone_dagster.api.dataset", "rows know tables"),
    ("model/shard.py", "import pyarrow", "The model is standard library only"),
)


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(file.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, its docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0


def test_no_file_is_too_long() -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert {f: n for f, n in lengths.items() if n > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_too_long() -> None:
    long = [
        (str(file.relative_to(PACKAGE)), function.name, body_lines(function))
        for file in FILES
        for function in functions(file)
        if body_lines(function) > MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


def test_no_file_name_is_there_twice() -> None:
    named = defaultdict(list)
    for file in FILES:
        inside = file.relative_to(PACKAGE)
        if file.name != "__init__.py" and inside.parts[0] not in MAY_REPEAT_NAMES:
            named[file.name].append(str(inside))
    assert {name: files for name, files in named.items() if len(files) > 1} == {}


def test_the_files_that_the_architecture_page_names_are_there() -> None:
    page = (PROJECT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"\b[a-z_]+(?:/[a-z_]+)+\.py\b", page))
    assert len(named) > 40
    tests = {one for one in named if one.startswith("tests/")}
    assert [one for one in named - tests if not (PACKAGE / one).is_file()] == []
    assert [one for one in tests if not (PROJECT / one).is_file()] == []


WRITTEN_BY_INIT = {"README.md", "AGENTS.md"}


def texts(source: str) -> list[str]:
    """Return the texts of a file's code, docstrings included, each with single spaces."""
    tree = ast.parse(source)
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [" ".join(text.split()) for text in found if isinstance(text, str)]


def pages_in_checkout(source: str) -> list[str]:
    """Return names of files of the documentation, which an installed package does not have."""
    named = re.compile(r"\bdocs/[\w/.-]*|\b[\w-]+\.md\b")
    return [name for text in texts(source) for name in named.findall(text)]


def test_texts_of_the_package_name_pages_by_their_title() -> None:
    found = {file.name: pages_in_checkout(file.read_text("utf-8")) for file in FILES}
    assert {name: set(pages) for name, pages in found.items() if set(pages) - WRITTEN_BY_INIT} == {}
    planted = pages_in_checkout("raise E('see docs/spark.md')\n'or types.md'")
    assert sorted(planted) == ["docs/spark.md", "types.md"]
    titles = re.findall(r"^ +- ([^:\n]+): [\w/-]+\.md$", (PROJECT / "mkdocs.yml").read_text(), re.M)
    said = re.compile(r"page '([^']+)' of the documentation")
    named = {t for f in FILES for text in texts(f.read_text("utf-8")) for t in said.findall(text)}
    assert len(named) > 3
    assert named - set(titles) == set()


def opened_databases(file: Path) -> list[str]:
    """Return the calls of DuckDB functions that open a database or use the process's own one."""
    tree = ast.parse(file.read_text("utf-8"))
    found = [
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "duckdb"
    ]
    imported = [
        f"from duckdb import {name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "duckdb"
        for name in node.names
    ]
    return [*(one for one in found if one not in ERRORS_OF_DUCKDB), *imported]


def test_duckdb_is_opened_in_one_place(tmp_path: Path) -> None:
    """A database that is opened elsewhere has no memory limit and spills where it likes."""
    found = {str(file.relative_to(PACKAGE)): opened_databases(file) for file in FILES}
    assert {file: calls for file, calls in found.items() if calls} == {
        "database/database.py": ["duckdb.connect"],
        # A user's query over a dataset, in the user's own database.
        "dataset/read_dataset.py": ["duckdb.from_arrow"],
    }
    planted = tmp_path / "planted.py"
    planted.write_text("import duckdb\nduckdb.sql('select 1')\nfrom duckdb import connect\n")
    assert opened_databases(planted) == ["duckdb.sql", "from duckdb import connect"]


def test_files_that_say_pure_are_in_the_contract_on_purity() -> None:
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    contracts = {one["name"]: one for one in config["tool"]["importlinter"]["contracts"]}
    listed = set(contracts["Pure files do no IO"]["source_modules"])
    listed |= set(contracts["The model is standard library only"]["source_modules"])
    for file in FILES:
        says_so = re.search(r"\bPure\.", ast.get_docstring(ast.parse(file.read_text())) or "")
        name = ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        if says_so and file.relative_to(PACKAGE).parts[0] != "local":
            assert any(name == one or name.startswith(f"{one}.") for one in listed), name


def test_every_folder_behind_the_facade_is_protected_by_it() -> None:
    """A new folder is behind the facade until someone says here that it is not."""
    open_to_all = {"api", "cli", "commands", "dagster_glue", "demo", "errors", "local", "model"}
    open_to_all |= {"observe", "pipeline", "process", "sources", "testing", "text"}
    open_to_all |= {"__init__", "__main__"}
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    (facade,) = [
        one
        for one in config["tool"]["importlinter"]["contracts"]
        if one["name"].startswith("The facade is the only door")
    ]
    behind = {one.split(".")[1] for one in facade["protected_modules"]}
    there = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    assert there - open_to_all == behind


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the import rules say of a copy of the package with all planted violations in it."""
    copy = tmp_path_factory.mktemp("planted")
    shutil.copy(PROJECT / "pyproject.toml", copy)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy / "datazone_dagster", ignore=ignored)
    for path, violation, _ in PLANTED:
        with (copy / "datazone_dagster" / path).open("a") as file:
            file.write(f"\n{violation}\n")
    return contracts_of(copy)


@pytest.mark.parametrize(("path", "violation", "contract"), PLANTED)
def test_a_planted_import_is_caught(broken: str, path: str, violation: str, contract: str) -> None:
    importer = "datazone_dagster." + path.removesuffix(".py").replace("/", ".")
    imported = violation.removeprefix("import ")
    sections = re.split(r"\n(?=[^\n]+\n-{10,}\n)", broken)
    (section,) = [one for one in sections if one.startswith(contract)]
    section = re.sub(r"\s+", " ", section)
    assert importer in section
    assert imported in section


def test_a_folder_that_nobody_listed_is_caught(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "datazone_dagster", ignore=ignored)
    (tmp_path / "datazone_dagster" / "unlisted").mkdir()
    (tmp_path / "datazone_dagster" / "unlisted" / "__init__.py").write_text("import boto3\n")
    report = contracts_of(tmp_path)
    assert "unlisted" in report
    assert "Only source knows boto3 BROKEN" in report


def contracts_of(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout
