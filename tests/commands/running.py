"""Commands in a project's folder: called in this process, or in one that is forked for it.

Those of the page docs/operations.md, and what is killed, run in a process of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from click.testing import CliRunner
from jsonschema import Draft202012Validator, FormatChecker, validate

from datazone_dagster.cli import main
from datazone_dagster.commands.json_schemas import ERROR, SCHEMAS
from datazone_dagster.commands.project import load_project
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.pipeline import apply_transform, drain_once, utc_now
from datazone_dagster.process import crash_points
from datazone_dagster.testing import ScriptedStream
from tests.forked import forked

FORMATS = FormatChecker(formats=())


def _is_time_with_offset(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


FORMATS.checks("date-time", raises=ValueError)(_is_time_with_offset)


PROGRAM = Path(sys.executable).with_name("datazone-dagster")

DEFINITIONS = """
import os
from datazone_dagster import *
from datazone_dagster.sources import DynamoDBSource

ORDERS = Input(Stream(source=DynamoDBSource("orders")))

def total(orders):
    if os.environ.get("FIXED") != "yes":
        for row in orders.items().arrow().to_pylist():
            if row.get("total") is not None and row["total"] < 0:
                raise ValueError(f"total {row['total']}")
    return orders.select(
        "dynamodb.Keys.id.S as id", "cast(dynamodb.NewImage.total.N as bigint) as total"
    )

@transform(
    input_mapping={"orders": ORDERS},
    output_mapping={"current": Output(Dataset("current"))},
    on_error="quarantine",
)
def current(orders):
    return total(orders)

@transform(
    input_mapping={"orders": ORDERS},
    output_mapping={"events": Output(Dataset("events", mode="append"))},
    on_error="quarantine",
)
def events(orders):
    return total(orders)

defs = build_definitions([current, events], lakehouse=Lakehouse(uri="lake"))
"""


def run_command(
    *arguments: str, cwd: Path, environment: Mapping[str, str] = {}, answers: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `datazone-dagster <arguments>` to its end, in this process unless it is to be killed."""
    if "DATAZONE_CRASH_AT" in environment:
        return run_forked(*arguments, cwd=cwd, environment=environment)
    with _as_at_the_start(cwd):
        done = CliRunner().invoke(
            main, arguments, input=answers, env=environment, catch_exceptions=False
        )
    _validate(arguments, done.stdout)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@contextmanager
def _as_at_the_start(cwd: Path) -> Iterator[None]:
    """Enter a folder, and undo afterwards what the import of a project leaves in a process."""
    here, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(cwd)):
                del sys.modules[name]


def run_forked(
    *arguments: str, cwd: Path, timeout_seconds: float = 240, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run `datazone-dagster <arguments>` to its end, in a process forked for it."""
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = forked().Process(
            target=_run_into, args=(files, arguments, cwd, dict(environment)), daemon=True
        )
        process.start()
        process.join(timeout_seconds)
        assert process.exitcode is not None, "it does not end"
        stdout, stderr = (file.read_text("utf-8") for file in files)
    _validate(arguments, stdout)
    return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _run_into(
    files: Sequence[Path], arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> None:
    for number, file in enumerate(files, 1):
        with file.open("wb") as opened:
            os.dup2(opened.fileno(), number)
    os.chdir(cwd)
    os.environ.update(environment)
    if "DATAZONE_CRASH_AT" in environment:
        crash_points.hook = crash_points.killer(environment["DATAZONE_CRASH_AT"])
    main(arguments, prog_name="datazone-dagster")


def _validate(arguments: Sequence[str], stdout: str) -> None:
    if "--json" in arguments:
        for line in stdout.splitlines():
            validate_json(arguments[0], line)


def validate_json(command: str, line: str) -> None:
    """Compare a line that a command printed with `--json` with the documented schema."""
    found = json.loads(line)
    schema = ERROR if "error" in found else SCHEMAS[command]
    validate(found, schema, Draft202012Validator, format_checker=FORMATS)


class ProjectFolder:
    """A folder with a definitions.py, a stream that feeds its transforms, and commands to run."""

    def __init__(self, path: Path, definitions: str = DEFINITIONS) -> None:
        self.path = path
        self.stream = ScriptedStream()
        self.layout = Layout(str(path / "lake"))
        (path / "definitions.py").write_text(definitions, "utf-8")

    def put(self, key: str, total: int) -> None:
        """Write an item to the table."""
        self.stream.put({"id": {"S": key}, "total": {"N": str(total)}})

    def drain(self, clock: Clock = utc_now) -> None:
        """Drain the stream until it is caught up."""
        loaded = load_project(str(self.path / "definitions.py"))
        (source,) = loaded.sources.values()
        while not drain_once(source, self.stream, self.layout, clock=clock).caught_up:
            pass

    def apply(self) -> None:
        """Apply the change log to every dataset."""
        for transform in load_project(str(self.path / "definitions.py")).transforms:
            apply_transform(transform, self.layout)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder."""
        return run_command(*arguments, cwd=self.path, environment=environment)
