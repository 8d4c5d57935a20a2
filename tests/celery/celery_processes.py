"""Redis and Celery's workers as processes, to be killed, frozen and woken."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from tests.faults.dagster_process import PROJECT, Daemon, children, wait_for

WITHOUT_RESERVE = ("--concurrency", "1", "--disable-prefetch", "--without-mingle")
"""A worker that takes a task only when it is free: a killed one takes no other task along."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def guarded(command: list[str], log: IO[str], environment: Mapping[str, str]) -> Iterator[Daemon]:
    """Run a command in a session of its own until the block, or this process, ends."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "datazone_dagster.demo.guard", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=PROJECT,
        env=dict(environment),
    )
    assert guard.stdin is not None
    try:
        wait_for(lambda: children(guard.pid), command[0])
        yield Daemon(children(guard.pid)[0])
    finally:
        guard.stdin.close()
        guard.wait(60)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run Redis on a free port of 127.0.0.1, without a file of its own; yield its URL."""
    command, port = shutil.which("redis-server"), free_port()
    assert command is not None
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (
        (folder / "redis.log").open("w", encoding="utf-8") as log,
        guarded([command, *arguments], log, os.environ),
    ):
        wait_for(lambda: answers(port), "Redis")
        yield f"redis://127.0.0.1:{port}/0"


class Workers:
    """Workers with numbers, each with processes of its own, which work on one task at a time."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._stack, self._by_number = ExitStack(), dict[int, Daemon]()
        self._began = dict[int, int]()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._by_number:
            self.wake(number)  # one that is frozen can't end
        self._stack.close()

    def start(self, *numbers: int) -> None:
        """Start workers; one that was killed is replaced, as a supervisor does it."""
        for number in numbers:
            log_file = self._folder / f"worker-{number}.log"
            log = self._stack.enter_context(log_file.open("a", encoding="utf-8"))
            self._began[number] = len(log_file.read_text())
            command = [
                *[sys.executable, "-m", "dagster_celery.cli", "worker", "start"],
                *["-A", "dagster_celery.app", "-y", str(self._folder / "celery.yaml")],
                *["-n", f"w{number}", "--", *WITHOUT_RESERVE],
            ]
            worker = self._stack.enter_context(guarded(command, log, self._environment))
            self._by_number[number] = worker
        for number in numbers:
            wait_for(partial(self._is_ready, number), f"worker {number}")

    def _is_ready(self, number: int) -> bool:
        """Return whether the latest process of a worker takes tasks."""
        began = self._began[number]
        return " ready." in (self._folder / f"worker-{number}.log").read_text()[began:]

    def at_work(self, folder: Path) -> list[int]:
        """Return the workers that have called the function of a transform within the last second.

        Args:
            folder: Folder with a file for each worker, by its session.
        """
        since = time.time() - 1.0
        called = {one.name for one in folder.iterdir() if one.stat().st_mtime > since}
        return [number for number, one in self._by_number.items() if str(one.pid) in called]

    def kill(self, number: int) -> None:
        """Kill a worker with its task, as when its machine loses power."""
        self._by_number[number].kill()

    def freeze(self, number: int) -> None:
        self._by_number[number].signal(signal.SIGSTOP)

    def wake(self, number: int) -> None:
        self._by_number[number].signal(signal.SIGCONT)
