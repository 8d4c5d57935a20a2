"""The wheel with its declared dependencies alone runs the README's "Quick start".

Development packages and extras bring libraries that hide a missing dependency. Here the wheel is
built from the sdist and installed into an empty environment, and everything runs from an empty
folder: the emulator, the daemon that drains and merges, and the read.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
DEADLINE_SECONDS = 120.0
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

WRITE = """
import boto3

dynamodb = boto3.client("dynamodb")
dynamodb.create_table(
    TableName="orders",
    KeySchema=[{"AttributeName": "orderId", "KeyType": "HASH"}],
    AttributeDefinitions=[{"AttributeName": "orderId", "AttributeType": "S"}],
    BillingMode="PAY_PER_REQUEST",
    StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
)
for number in (1, 2, 3):
    dynamodb.put_item(
        TableName="orders",
        Item={
            "orderId": {"S": f"o-{number}"},
            "customerEmail": {"S": "ada@example.org"},
            "orderTotal": {"N": "9.5"},
            "status": {"S": "paid"},
        },
    )
dynamodb.delete_item(TableName="orders", Key={"orderId": {"S": "o-3"}})
"""

READ = """
from datazone_dagster import Lakehouse
from datazone_dagster.errors import StorageError

try:
    rows = Lakehouse().read("processed_orders").arrow().to_pylist()
except StorageError:
    rows = []
print(sorted((row["order_id"], row["order_total"], row["status"]) for row in rows))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as an index would do it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(PROJECT)])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what the wheel asks for."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    interpreter = home / "bin" / "python"
    run([str(interpreter), "-m", "pip", "install", "--quiet", "--no-compile", str(wheel)])
    return interpreter


def test_the_sdist_holds_what_readme_and_tests_need(wheel: Path, tmp_path: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    # They run in the project's folder: here it is enough that each file is there, as it is.
    there = files(tree)
    assert [name for name, text in files(PROJECT).items() if there.get(name) != text] == []
    assert "help" in run(["make", "help"], tree)


def files(root: Path) -> dict[str, bytes]:
    """Return what is to be in the sdist, by path; of what Python and tools write, nothing."""
    config = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    names = config["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"tests", "docs", "README.md", "Makefile"} <= set(names)
    found = [path for name in names for path in (root / name, *(root / name).rglob("*"))]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_module_is_importable(python: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, datazone_dagster as package\n"
        "for one in pkgutil.walk_packages(package.__path__, 'datazone_dagster.'):\n"
        "    importlib.import_module(one.name)\n"
    )
    run([str(python), "-c", code], cwd=tmp_path)


def test_dg_finds_the_component(python: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        "[ours] = entry_points(group='dagster_dg_cli.registry_modules', name='datazone_dagster')\n"
        "print(ours.load().DynamoDBStreamComponent.__name__)"
    )
    assert run([str(python), "-c", code], tmp_path) == "DynamoDBStreamComponent"


def test_the_readme_runs_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    blocks = PYTHON_BLOCK.findall((PROJECT / "README.md").read_text("utf-8"))
    example = next(block for block in blocks if "def process_orders_stream" in block)
    definitions = next(block for block in blocks if "defs = build_definitions" in block)
    (tmp_path / "definitions.py").write_text(example + definitions, "utf-8")

    with emulator(python, tmp_path) as endpoint_url:
        environment = {
            "AWS_ENDPOINT_URL_DYNAMODB": endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": endpoint_url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
            "DAGSTER_HOME": str(tmp_path / "home"),
        }
        (tmp_path / "home").mkdir()
        run([str(python), "-c", WRITE], cwd=tmp_path, environment=environment)
        with daemon(python, tmp_path, environment):
            wanted = "[('o-1', '9.5', 'paid'), ('o-2', '9.5', 'paid')]"
            deadline = time.monotonic() + DEADLINE_SECONDS
            pause = threading.Event()
            while (seen := run([str(python), "-c", READ], tmp_path, environment)) != wanted:
                assert time.monotonic() < deadline, (seen, (tmp_path / "daemon.log").read_text())
                pause.wait(1)


def test_a_project_of_init_has_rows_within_three_minutes(python: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    run([str(python.parent / "datazone-dagster"), "init", "shop"], tmp_path)
    shop = tmp_path / "shop"
    shop.joinpath("home").mkdir()
    shutil.copy(shop / "dagster.yaml", shop / "home")
    with emulator(python, shop, "--orders", "20") as endpoint_url:
        definitions = shop / "definitions.py"
        text = definitions.read_text("utf-8").replace("http://127.0.0.1:8000", endpoint_url)
        definitions.write_text(text, "utf-8")
        environment = {"DAGSTER_HOME": str(shop / "home")}
        with daemon(python, shop, environment):
            read = READ.replace("processed_orders", "current_orders")
            read = read.replace('"order_total"', '"total"')
            pause = threading.Event()
            while run([str(python), "-c", read], shop, environment) == "[]":
                assert time.monotonic() - began < 180, (shop / "daemon.log").read_text()
                pause.wait(1)


def test_a_source_tree_without_installed_metadata_merges(python: Path, tmp_path: Path) -> None:
    """Each Delta commit names the package's version, which only an installation knows."""
    run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "datazone-dagster"])
    shutil.copytree(PROJECT / "datazone_dagster", tmp_path / "tree" / "datazone_dagster")
    testing = PYTHON_BLOCK.findall((PROJECT / "docs" / "testing.md").read_text("utf-8"))
    example = next(block for block in testing if "def open_orders" in block)
    run([str(python), "-c", example], tmp_path, {"PYTHONPATH": str(tmp_path / "tree")})


def run(
    command: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """The output of a command that has to succeed; nothing of this project is on its path."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment() | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def clean_environment() -> dict[str, str]:
    """The environment without what would put this checkout, or AWS, into the way."""
    ours = ("PYTHON", "VIRTUAL_ENV", "AWS_", "DAGSTER_", "DATAZONE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextmanager
def emulator(python: Path, folder: Path, *options: str) -> Iterator[str]:
    """The URL of the emulator that the command line starts."""
    command = [str(python.parent / "datazone-dagster"), "emulator", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            yield ready.split(": ", 1)[1].strip()
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def daemon(python: Path, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Dagster's daemon on the definitions of a folder, with all processes that it starts."""
    with (
        (folder / "daemon.log").open("w") as log,
        subprocess.Popen(
            [str(python.parent / "dagster-daemon"), "run", "-f", "definitions.py"],
            cwd=folder,
            env=clean_environment() | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
