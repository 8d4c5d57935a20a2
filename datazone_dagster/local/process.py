"""Local DynamoDB as a child process, for tests, notebooks and the demo."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from datazone_dagster.errors import LocalServerError
from datazone_dagster.local.admin_client import AdminClient

_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0


class LocalDynamoDB:
    """DynamoDB with streams on 127.0.0.1, in a process of its own.

    The process ends with the `with` block, or when the process that started it dies, however
    that one dies.

    Args:
        port: Port to listen on; 0 takes a free one.
        data_dir: Directory for state that survives restarts; None makes each start empty.
        shards: Number of shards of a new stream.
        roll_after_seconds: Age at which an open shard rolls; None rolls only by `admin.roll`.
        ttl_interval_seconds: Interval between TTL sweeps; None sweeps only by `admin.sweep_ttl`.
        two_readers_a_shard: Whether a third reader of a shard is throttled.
        buckets: Folder that stands for each bucket that exports are written to.

    Raises:
        LocalServerError: The port is taken, or the data directory can't be used (on entry).

    Example:
        ```python
        with LocalDynamoDB() as server:
            client = boto3.client("dynamodb", endpoint_url=server.endpoint_url)
        ```
    """

    def __init__(
        self,
        *,
        port: int = 0,
        data_dir: str | Path | None = None,
        shards: int = 4,
        roll_after_seconds: float | None = None,
        ttl_interval_seconds: float | None = None,
        two_readers_a_shard: bool = False,
        buckets: Mapping[str, str | Path] | None = None,
    ) -> None:
        self._arguments = [f"--port={port}", f"--shards={shards}", "--follow-parent"]
        for flag, value in (
            ("data-dir", data_dir),
            ("roll-after-seconds", roll_after_seconds),
            ("ttl-interval-seconds", ttl_interval_seconds),
        ):
            if value is not None:
                self._arguments.append(f"--{flag}={value}")
        if two_readers_a_shard:
            self._arguments.append("--two-readers-a-shard")
        for name, folder in (buckets or {}).items():
            self._arguments.append(f"--bucket={name}={Path(folder).absolute()}")
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint_url = ""

    @property
    def endpoint_url(self) -> str:
        """URL for `endpoint_url=` of both clients, `dynamodb` and `dynamodbstreams`."""
        return self._endpoint_url

    @property
    def admin(self) -> AdminClient:
        """Client of the calls that AWS does not have: splits, rolls, trims, the clock, faults."""
        return AdminClient(self._endpoint_url)

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it is not running."""
        return None if self._process is None else self._process.pid

    def start(self) -> LocalDynamoDB:
        """Start the process and wait until it answers. `with` calls this."""
        if self._process is not None:
            raise LocalServerError("This local DynamoDB is already running.", hint="Stop it first.")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "datazone_dagster.local.server", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self._endpoint_url = self._ready_url(self._process)
        except LocalServerError:
            self.kill()
            raise
        return self

    def _ready_url(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], _READY_SECONDS)
        line = process.stdout.readline() if readable else b""
        if not line:
            raise LocalServerError(
                "The local DynamoDB did not start.",
                hint="The server's own output, just above, gives the reason.",
            )
        message = json.loads(line)
        if "url" in message:
            return str(message["url"])
        if message["port_taken"]:
            raise port_taken(self._port)
        raise LocalServerError(
            f"The local DynamoDB did not start: {message['error']}",
            hint="Choose another data directory, or none.",
        )

    def stop(self) -> None:
        """Stop the process. Every answered write is in the data directory. `with` calls this."""
        self._end(signal_first=True)

    def kill(self) -> None:
        """Kill the process, as a crash would. Every answered write is in the data directory."""
        self._end(signal_first=False)

    def _end(self, *, signal_first: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if signal_first:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> LocalDynamoDB:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def port_taken(port: int) -> LocalServerError:
    """Return the error for a port that another program listens on."""
    return LocalServerError(
        f"Port {port} on 127.0.0.1 is taken by another program.",
        safe="Nothing was started.",
        hint="Stop that program, or choose another port (0 takes a free one).",
    )
