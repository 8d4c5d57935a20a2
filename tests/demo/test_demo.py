"""Demo as a user starts it: it fills the dataset, shows it, and leaves no process behind."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.demo.servers import free_port, read_lock

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

PROJECT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "datazone_dagster.cli", "demo"]
CHANGES = 400
LINE = re.compile(r"written (\d+)  drained (\d+)  applied (\d+)  .*rows (\d+) of (\d+)  ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("definitions.py", "workspace.yaml"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [f"--port={taken.getsockname()[1]}", f"--emulator-port={free_port(8300)}"]
        pace = [f"--changes={CHANGES}", "--changes-per-second=40"]
        process = subprocess.Popen(
            [*COMMAND, *ports, *pace], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that work in this folder or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_text() + (process / "environ").read_text()
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


def test_the_dataset_equals_the_table(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        facts = LINE.search(line)
        if facts is not None:
            written, drained, applied, rows, items = map(int, facts.groups())
            if written >= CHANGES and drained == applied and rows == items:
                break
    else:
        pytest.fail("the demo ended by itself")
    assert rows > 50


def test_there_is_one_demo_in_a_folder(demo: subprocess.Popen[str], folder: Path) -> None:
    second = subprocess.run(
        COMMAND, check=False, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert str(read_lock(folder / ".datazone" / "demo")["url"]) in second.stderr
    assert "make demo-stop" in second.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_stopping_leaves_no_process(demo: subprocess.Popen[str], folder: Path) -> None:
    assert processes_of(folder)
    stopped = subprocess.run(
        [*COMMAND, "--stop"], cwd=folder, capture_output=True, text=True, timeout=90, check=True
    )
    assert "The demo has stopped." in stopped.stdout
    assert demo.wait(30) == 0
    assert processes_of(folder) == []
    again = subprocess.run(
        [*COMMAND, "--stop"], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert "No demo is running here." in again.stdout
