"""Stores that run here: versitygw, an S3 server that checks signatures and conditional writes.

moto does neither. `make test-store` installs the server; where it is missing, tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BUCKET = "lake"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "lakehouse", "lakehouse-secret"
OTHER_KEY, OTHER_SECRET_KEY = "other", "other-secret"
"""A second account that may do as much as the first."""

VARIABLE = "DATAZONE_VERSITYGW"
MISSING = f"versitygw is not installed: run `make test-store` (Go 1.25), or set {VARIABLE}"

_READY_SECONDS = 30.0
_STARTS = 5
# Standard input ends when the process that started the server does, however that one dies.
_GUARD = 'exec 3<&0; "$@" & server=$!; { cat <&3 >/dev/null; kill $server 2>&-; } & wait $server'


def versitygw() -> Path | None:
    """Return the path of the server; None if it is not installed."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    beside_python = Path(sys.executable).parent / "versitygw"
    found = shutil.which("versitygw")
    if beside_python.is_file():
        return beside_python
    return Path(found) if found else None


@contextmanager
def s3_server(program: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Run the server with an empty bucket `BUCKET`; yield its address on 127.0.0.1.

    Args:
        program: Path of versitygw.
        folder: Empty folder for the objects; each bucket is a folder in it.
    """
    objects, attributes, accounts = (folder / name for name in ("objects", "attributes", "iam"))
    for each in (objects / BUCKET, attributes, accounts):
        each.mkdir(parents=True)
    other = {"access": OTHER_KEY, "secret": OTHER_SECRET_KEY, "role": "admin"}
    (accounts / "users.json").write_text(json.dumps({"accessAccounts": {OTHER_KEY: other}}))
    for attempt in range(_STARTS):
        port = _free_port()
        command = [
            str(program),
            *("--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION),
            *("--port", f"127.0.0.1:{port}", "--health", "/health", "--keep-alive", "--quiet"),
            *("--iam-dir", str(accounts)),
            # Not every temporary folder has extended attributes.
            *("posix", "--sidecar", str(attributes), str(objects)),
        ]
        with _running(command) as server:
            if _answers(server, f"http://127.0.0.1:{port}/health"):
                yield "127.0.0.1", port
                return
        if attempt == _STARTS - 1:
            raise RuntimeError("versitygw ended at once, five times")


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdin is not None
    try:
        yield server
    finally:
        server.stdin.close()
        server.wait(10)


def _answers(server: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the server answers; return False if the port was taken meanwhile."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False  # Somebody else's server.
        except OSError:
            if server.poll() is not None:
                return False
            time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
