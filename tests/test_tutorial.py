"""The tutorial runs as it is written: files, commands and their output, Dagster in this process.

Commands that Dagster or the reader's shell would run for long are marked `not run` in the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from dagster import AssetCheckKey, AssetKey, DagsterInstance, build_sensor_context

from datazone_dagster.cli import main
from datazone_dagster.dagster_glue.instance_config import dagster_yaml
from datazone_dagster.local import LocalDynamoDB

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
PART = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- (.*?) -->$", re.MULTILINE | re.DOTALL)


class Part(NamedTuple):
    """A block of the page with its language, or a remark with the language `remark`."""

    kind: str
    text: str


def parts() -> list[Part]:
    """Return the parts of the page, without commands that are not run and their output."""
    found = [
        Part(match[1] or "remark", match[2] or match[3])
        for match in PART.finditer(PAGE.read_text("utf-8"))
    ]
    kept: list[Part] = []
    skipped = False
    for part in found:
        if part == ("remark", "not run"):
            skipped = True
        elif not skipped or part.kind not in ("sh", "text"):
            skipped = False
            kept.append(part)
    return kept


class Reader:
    """Somebody who follows the page in an empty folder."""

    def __init__(self) -> None:
        self.output = ""
        self.dagster_works = False
        self._has_worked = False

    def write(self, block: str) -> None:
        """Write a file, or replace a line of it and insert the lines that follow it."""
        head, _, code = block.partition("\n")
        named = re.fullmatch(r"# (change )?(\S+)", head)
        assert named is not None, head
        change, file = named.groups()
        path = Path(file)
        if not change:
            path.write_text(block, "utf-8")
            return
        old, *new = code.splitlines()
        text = path.read_text("utf-8")
        assert text.count(old) == 1, old
        column = old.rsplit(" as ", 1)[1]
        lines = new if any(line.endswith(column) for line in new) else [old, *new]
        path.write_text(text.replace(old, "\n".join(lines)), "utf-8")

    def run(self, commands: str) -> None:
        self.output = ""
        for line in commands.splitlines():
            if line != "python show.py":
                self._has_worked = False
            elif self.dagster_works:
                self.let_dagster_work()
            if line.startswith("mkdir"):
                Path("home").mkdir()
                os.environ["DAGSTER_HOME"] = str(Path("home").resolve())
            elif line.startswith("python -c"):
                assert "print(datazone_dagster.dagster_yaml())" in line
                Path("home/dagster.yaml").write_text(dagster_yaml(), "utf-8")
            elif line.startswith("python "):
                self._python(shlex.split(line)[1:])
            else:
                command, *arguments = shlex.split(line)
                assert command == "datazone-dagster", line
                done = CliRunner().invoke(main, arguments, catch_exceptions=False)
                assert done.exit_code == 0, done.output
                self.output += done.output

    def _python(self, arguments: list[str]) -> None:
        before, sys.argv = sys.argv, arguments
        try:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                runpy.run_path(arguments[0])
        finally:
            sys.argv = before
        self.output += printed.getvalue()

    def let_dagster_work(self) -> None:
        """One tick of the sensor, and the runs of the transform that it requests.

        Nothing happens if no command came since the last one.
        """
        if self._has_worked:
            return
        self._has_worked = True
        defs: Any = runpy.run_path("definitions.py")["defs"]
        sensor = defs.resolve_sensor_def("drain_orders")
        with DagsterInstance.get() as instance:
            resources = {key: defs.resources[key] for key in sensor.required_resource_keys}
            with build_sensor_context(
                instance=instance, definitions=defs, resources=resources
            ) as context:
                tick = sensor.evaluate_tick(context)
            for event in tick.asset_events:
                instance.report_runless_asset_event(event)
            for request in tick.run_requests or ():
                # The snapshot waits a minute for the drain: tests/dagster_glue has it.
                if request.job_name == "apply_current_orders":
                    job = defs.resolve_job_def("apply_current_orders")
                    assert job.execute_in_process(instance=instance).success

    def quarantine_passes(self) -> bool:
        key = AssetCheckKey(AssetKey("current_orders"), "quarantine")
        with DagsterInstance.get() as instance:
            (newest,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert newest.event is not None
        assert newest.event.dagster_event is not None
        return bool(newest.event.dagster_event.asset_check_evaluation_data.passed)


def fits(expected: str, output: str) -> bool:
    """Whether the output is the expected one; `...` stands for anything within a line."""
    lines = [line.strip() for line in expected.splitlines() if line.strip()]
    found = [line.strip() for line in output.splitlines() if line.strip()]
    patterns = [".*".join(re.escape(text) for text in line.split("...")) for line in lines]
    return len(lines) == len(found) and all(map(re.fullmatch, patterns, found))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATAZONE_LAKEHOUSE_URI", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", "")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCOUNT_ID_ENDPOINT_MODE", "disabled")
    with LocalDynamoDB() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint_url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", server.endpoint_url)
        yield Reader()


def test_the_tutorial_is_what_happens(reader: Reader) -> None:
    met = []
    for kind, text in parts():
        met.append(text if kind == "remark" else kind)
        if kind == "python":
            reader.write(text)
        elif kind == "sh":
            reader.run(text)
        elif kind == "text":
            assert fits(text, reader.output), reader.output
        elif text == "Dagster works from here on":
            reader.dagster_works = True
        else:
            assert text in ("check quarantine warns", "check quarantine passes")
            reader.let_dagster_work()
            assert reader.quarantine_passes() is text.endswith("passes")
    assert (met.count("sh"), met.count("text")) == (7, 4)
    assert met[-1] == "check quarantine passes"
    assert "check quarantine warns" in met
