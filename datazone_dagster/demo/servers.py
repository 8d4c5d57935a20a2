"""Processes of the demo: `dagster dev`, its port, and the lock of a running demo."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from datazone_dagster.errors import DatazoneError

START_SECONDS = 120.0
STOP_SECONDS = 40.0


class DemoError(DatazoneError):
    """The demo can't run."""


@contextmanager
def only_demo(folder: Path) -> Iterator[IO[str]]:
    """Hold the lock of the demo in this folder; the lock file names its owner.

    Raises:
        DemoError: A demo is already running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "demo.lock").open("a+", encoding="utf-8") as lock:
        if not _acquire(lock):
            running = read_lock(folder)
            raise DemoError(
                f"A demo is already running (process {running.get('pid')}): {running.get('url')}.",
                hint="Use that demo, or stop it with: make demo-stop",
            )
        write_lock(lock, {"pid": os.getpid()})
        yield lock
        write_lock(lock, {})


def write_lock(lock: IO[str], facts: Mapping[str, object]) -> None:
    """Write facts about this demo to its lock file."""
    lock.seek(0)
    lock.truncate()
    json.dump(facts, lock)
    lock.flush()


def read_lock(folder: Path) -> dict[str, object]:
    """Read the facts that a running demo wrote to its lock file, empty if there is none."""
    try:
        found: dict[str, object] = json.loads((folder / "demo.lock").read_text("utf-8") or "{}")
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def stop_demo(folder: Path) -> bool:
    """Stop the demo that runs in this folder; return False if none does.

    Raises:
        DemoError: The demo did not stop in time.
    """
    if not (folder / "demo.lock").exists():
        return False
    with (folder / "demo.lock").open("a+", encoding="utf-8") as lock:
        if _acquire(lock):
            return False
        pid = read_lock(folder).get("pid")
        if isinstance(pid, int):
            os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if _acquire(lock):
                return True
            time.sleep(0.2)
    raise DemoError(f"The demo (process {pid}) did not stop within {STOP_SECONDS:.0f} s.")


def _acquire(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_port(wanted: int) -> int:
    """Return `wanted` if that port is free on 127.0.0.1, else the next free port."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoError(
        f"No free port from {wanted} to {wanted + 99} on 127.0.0.1.",
        hint="Choose another one with --port or --emulator-port.",
    )


class DagsterDev:
    """`dagster dev` in a process of its own that ends with this one, however this one ends."""

    def __init__(
        self, project: Path, home: Path, port: int, environment: Mapping[str, str]
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = home / "dagster.log"
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        with self.log_file.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [
                    *[sys.executable, "-m", "datazone_dagster.demo.guard"],
                    *[*command, "--host", "127.0.0.1", "--port", str(port)],
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=project,
                env={**os.environ, **environment, "DAGSTER_HOME": str(home)},
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until the web server answers.

        Raises:
            DemoError: `dagster dev` exited, or did not answer in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DemoError(
                    f"dagster dev exited with code {self._process.returncode}.",
                    hint=f"See its output in {self.log_file}.",
                )
            try:
                with urllib.request.urlopen(f"{self.url}/server_info", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise DemoError(
            f"dagster dev did not answer at {self.url} within {START_SECONDS:.0f} s.",
            hint=f"See its output in {self.log_file}.",
        )

    def stop(self) -> None:
        """Stop `dagster dev` and all its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(STOP_SECONDS)
