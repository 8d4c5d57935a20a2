"""Dagster's own processes, to be killed: a daemon with its code server and its runs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datazone_dagster.dagster_glue.instance_config import dagster_yaml
from tests.faults.world import overload

PROJECT = Path(__file__).parents[2]
DEADLINE_SECONDS = 90.0


def wait_for(
    state: Callable[[], object],
    what: str,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    every_seconds: float = 0.1,
) -> None:
    """Wait for a state.

    Args:
        state: Function that returns whether the state is reached.
        what: Name of the state.
        deadline_seconds: Longest time on a machine of its own. Time counts less where more
            processes are runnable than there are cores: Dagster's take seconds of CPU to start.
        every_seconds: Time between two looks.
    """
    left_seconds, looked_at = deadline_seconds, time.monotonic()
    pause = threading.Event()
    while not state():
        assert left_seconds > 0, f"not in time: {what}"
        pause.wait(every_seconds)
        now = time.monotonic()
        left_seconds, looked_at = left_seconds - (now - looked_at) / overload(), now


class DagsterHome:
    """A Dagster instance on disk, and the environment of its processes."""

    def __init__(
        self,
        home: Path,
        endpoint_url: str,
        lakehouse_uri: str,
        *,
        max_concurrent_runs: int = 10,
        start_timeout_seconds: int | None = None,
    ) -> None:
        home.mkdir()
        start_seconds = start_timeout_seconds or math.ceil(20 * overload())
        text = dagster_yaml()
        for shipped, here in (
            ("max_concurrent_runs: 10", f"max_concurrent_runs: {max_concurrent_runs}"),
            # Notice soon that a run does not start because its code server died.
            ("poll_interval_seconds: 30", "poll_interval_seconds: 1"),
            ("start_timeout_seconds: 180", f"start_timeout_seconds: {start_seconds}"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        (home / "dagster.yaml").write_text(text)
        self.log_file = home / "daemon.log"
        self.environment = {
            **os.environ,
            "AWS_ENDPOINT_URL_DYNAMODB": endpoint_url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": endpoint_url,
            "DATAZONE_LAKEHOUSE_URI": lakehouse_uri,
            "DAGSTER_HOME": str(home),
        }

    @contextmanager
    def daemon(self, module: str = "tests.faults.dagster_project") -> Iterator[Daemon]:
        """Run a daemon with a code server of a module until the block or this process ends."""
        # For the sockets of Dagster's servers. Not below the home: their paths must be short.
        with (
            tempfile.TemporaryDirectory(prefix="dz-", ignore_cleanup_errors=True) as temporary,
            self.log_file.open("a", encoding="utf-8") as log,
        ):
            guard = subprocess.Popen(
                [
                    *[sys.executable, "-m", "datazone_dagster.demo.guard"],
                    *[sys.executable, "-m", "dagster._daemon", "run"],
                    *["-m", module, "-d", str(PROJECT)],
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env={**self.environment, "TMPDIR": temporary},
            )
            assert guard.stdin is not None
            try:
                wait_for(lambda: children(guard.pid), "a daemon")
                yield Daemon(children(guard.pid)[0])
            finally:
                guard.stdin.close()
                guard.wait(60)


class Daemon:
    """A running daemon, with its processes in a session of their own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def runs(self) -> list[int]:
        """Return the processes of runs, which the code server started."""
        return [pid for pid in self.processes() if "spawn_main" in command_line(pid)]

    def code_server(self) -> int:
        """Return the process that evaluates the sensors."""
        found = [pid for pid in self.processes() if "grpc" in command_line(pid)]
        assert len(found) == 1, found
        return found[0]

    def processes(self) -> list[int]:
        """Return the daemon, its code server and its runs."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)]

    def kill(self) -> None:
        """Kill all processes at once, as when a machine loses power."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes at once."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _has(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self.pid
        except ProcessLookupError:
            return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
