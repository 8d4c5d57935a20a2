"""Stores that run here: versitygw for S3, Azurite for Azure.

versitygw checks signatures and honours conditional writes; moto does neither. `make test-store`
installs the servers; where one is missing, its tests are skipped.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
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
from email.utils import formatdate
from pathlib import Path

BUCKET = "lake"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "lakehouse", "lakehouse-secret"
OTHER_KEY, OTHER_SECRET_KEY = "other", "other-secret"
"""A second account that may do as much as the first."""

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Account and key that Azurite documents: every installation of it has them."""

VARIABLE = "DATAZONE_VERSITYGW"
AZURITE_VARIABLE = "DATAZONE_AZURITE"
AZURITE_MISSING = (
    f"Azurite is not installed: run `make test-store` (npm), or set {AZURITE_VARIABLE}"
)
MISSING = f"versitygw is not installed: run `make test-store` (Go 1.25), or set {VARIABLE}"

_READY_SECONDS = 30.0
_STARTS = 5
# Standard input ends when the process that started the server does, however that one dies.
_GUARD = 'exec 3<&0; "$@" & server=$!; { cat <&3 >/dev/null; kill $server 2>&-; } & wait $server'


def versitygw() -> Path | None:
    """Return the path of the S3 server; None if it is not installed."""
    return _program(VARIABLE, "versitygw")


def azurite() -> Path | None:
    """Return the path of the Azure server; None if it is not installed."""
    return _program(AZURITE_VARIABLE, "azurite-blob")


def _program(variable: str, name: str) -> Path | None:
    if os.environ.get(variable):
        return Path(os.environ[variable])
    here = Path(sys.executable).parent
    installed = (here / name, here.parent / "azurite" / "node_modules" / ".bin" / name)
    found = shutil.which(name)
    return next((one for one in installed if one.is_file()), Path(found) if found else None)


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
    for _ in range(_STARTS):
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
    raise RuntimeError("versitygw ended at once, five times")


@contextmanager
def azure_server(program: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Run the server with an empty container `BUCKET`; yield its address on 127.0.0.1.

    Args:
        program: Path of azurite-blob.
        folder: Empty folder for the blobs.
    """
    for _ in range(_STARTS):
        port = _free_port()
        command = [
            str(program),
            *("--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)),
            *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
        ]
        with _running(command) as server:
            if _answers(server, f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}", status=400):
                _create_container(port)
                yield "127.0.0.1", port
                return
    raise RuntimeError("Azurite ended at once, five times")


def _create_container(port: int) -> None:
    path = f"/{AZURE_ACCOUNT}/{BUCKET}"
    date, version = formatdate(usegmt=True), "2021-12-02"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    signed = "\n".join(["PUT", *[""] * 11, headers, f"/{AZURE_ACCOUNT}{path}", "restype:container"])
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}",
        },
    )
    urllib.request.urlopen(request, timeout=10).close()


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


def _answers(server: subprocess.Popen[bytes], url: str, *, status: int = 200) -> bool:
    """Wait until the server answers so; return False if the port was taken meanwhile."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == status)
        except urllib.error.HTTPError as error:
            return error.code == status  # Another status is somebody else's server.
        except OSError:
            if server.poll() is not None:
                return False
            time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
