"""Server process: `python -m datazone_dagster.local.server`.

The process prints one JSON line when it listens, or with the reason why it can't. It ends on
SIGTERM, on SIGINT and, with `--follow-parent`, when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import select
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from datazone_dagster.local.admin_endpoint import CLOCK_OFFSET
from datazone_dagster.local.clock import ServerClock
from datazone_dagster.local.connections import HOST, LocalServer
from datazone_dagster.local.operations import Operations
from datazone_dagster.local.rows import sweep_expired
from datazone_dagster.local.service import Call, Settings
from datazone_dagster.local.store import Store, read_setting

_PARENT_CHECK_SECONDS = 1.0


def serve(
    *,
    port: int,
    data_dir: Path | None,
    settings: Settings,
    ttl_interval_seconds: float | None = None,
    follow_parent: bool = False,
    ready: Callable[[str], None],
) -> None:
    """Serve until a signal stops the server.

    Args:
        port: Port on 127.0.0.1; 0 takes a free one.
        data_dir: Directory of the state; None uses a temporary directory that is removed.
        settings: Settings of the server.
        ttl_interval_seconds: Interval between TTL sweeps; None sweeps only on an admin call.
        follow_parent: Whether to end when standard input closes or the parent process is gone.
        ready: Function called with the endpoint URL once requests are answered.

    Raises:
        OSError: The port is taken, or the directory can't be created.
        sqlite3.Error: The data directory holds an unrecognised file, or can't be written.
    """
    with ExitStack() as stack:
        directory = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="datazone-dynamodb-"))
        )
        directory.mkdir(parents=True, exist_ok=True)
        store = Store(directory)
        try:
            with store.transaction() as db:
                offset_seconds = float(read_setting(db, CLOCK_OFFSET) or 0.0)
            operations = Operations(store, ServerClock(offset_seconds), settings)
            with LocalServer(port, operations) as server:
                _serve_until_stopped(server, ttl_interval_seconds, follow_parent, ready)
        finally:
            store.close()


def _serve_until_stopped(
    server: LocalServer,
    ttl_interval_seconds: float | None,
    follow_parent: bool,
    ready: Callable[[str], None],
) -> None:
    stop = server.stopping
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    if follow_parent:
        threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    ready(f"http://{HOST}:{server.port}")
    try:
        while not stop.wait(ttl_interval_seconds):
            _sweep(server.operations)
    finally:
        stop.set()
        server.shutdown()


def _sweep(operations: Operations) -> None:
    with operations.store.transaction() as db:
        sweep_expired(Call(db, operations.clock, operations.settings))


def _watch_parent(stop: threading.Event) -> None:
    parent = os.getppid()
    while not stop.is_set():
        readable, _, _ = select.select([sys.stdin], [], [], _PARENT_CHECK_SECONDS)
        # Standard input alone is not enough: a fork of the parent may hold its other end.
        if (readable and not os.read(sys.stdin.fileno(), 1)) or os.getppid() != parent:
            stop.set()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m datazone_dagster.local.server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--roll-after-seconds", type=float)
    parser.add_argument("--two-readers-a-shard", action="store_true")
    parser.add_argument("--bucket", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--ttl-interval-seconds", type=float)
    parser.add_argument("--follow-parent", action="store_true")
    return parser.parse_args()


def _report(**members: object) -> None:
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the server process and return its exit code."""
    arguments = _arguments()
    try:
        serve(
            port=arguments.port,
            data_dir=arguments.data_dir,
            settings=Settings(
                initial_shards=arguments.shards,
                roll_after_seconds=arguments.roll_after_seconds,
                two_readers_a_shard=arguments.two_readers_a_shard,
                buckets=dict(one.split("=", 1) for one in arguments.bucket),
            ),
            ttl_interval_seconds=arguments.ttl_interval_seconds,
            follow_parent=arguments.follow_parent,
            ready=lambda url: _report(url=url),
        )
    except OSError as error:
        _report(error=str(error), port_taken=error.errno == errno.EADDRINUSE)
        return 1
    except sqlite3.Error as error:
        _report(error=f"{arguments.data_dir}: {error}", port_taken=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
