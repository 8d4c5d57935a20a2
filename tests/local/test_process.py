from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datazone_dagster.errors import LocalServerError
from datazone_dagster.local import AdminClient, LocalDynamoDB
from tests.local.stream_reading import clients_of, create_table, iterator, read_from

_DEADLINE_SECONDS = 20.0


def _wait_until(reached: Callable[[], bool]) -> None:
    """Poll for a state; a test never sleeps a fixed time."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, "the state was not reached in time"
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        return AdminClient(url).health()
    except OSError:
        return False


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_state_survives_a_restart(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with LocalDynamoDB(data_dir=tmp_path / "data", shards=1) as server:
        table = create_table(clients_of(server), "orders")
        for n in range(5):
            table.put(str(n))
        server.admin.split("orders")
        table.put("0", n={"N": "1"})
        server.admin.advance_clock(3600)
        start = iterator(table.clients, table.stream_arn, table.shards()[0]["ShardId"])
        before = (table.items(), table.shards(), table.records())
        getattr(server, end)()
    with LocalDynamoDB(data_dir=tmp_path / "data", shards=9) as server:
        clients = clients_of(server)
        again = type(table)("orders", table.stream_arn, clients)
        assert (again.items(), again.shards(), again.records()) == before
        assert len(read_from(clients, start)) == 5
        assert server.admin.now() > time.time() + 3500
        last = max(int(r["dynamodb"]["SequenceNumber"]) for r in before[2])
        again.put("new")
        newest = max(int(r["dynamodb"]["SequenceNumber"]) for r in again.records())
        assert newest > last
    assert not list(temporary.iterdir())


def test_without_a_directory_every_start_is_empty() -> None:
    for _ in range(2):
        with LocalDynamoDB() as server:
            assert clients_of(server).dynamodb.list_tables()["TableNames"] == []
            create_table(clients_of(server), "orders")
        assert not _answers(server.endpoint_url)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalServerError, match=rf"Port {port} .* is taken"):
            LocalDynamoDB(port=port).start()


def test_an_unrecognised_file_is_left_alone(tmp_path: Path) -> None:
    unrecognised = tmp_path / "local-dynamodb.sqlite3"
    unrecognised.write_text("not a database, and longer than the header of one would be" * 20)
    content = unrecognised.read_bytes()
    with pytest.raises(LocalServerError, match="did not start"):
        LocalDynamoDB(data_dir=tmp_path).start()
    assert unrecognised.read_bytes() == content


_PARENT = """
import sys
from datazone_dagster.local import LocalDynamoDB
server = LocalDynamoDB().start()
print(server.endpoint_url, flush=True)
sys.stdin.read()
"""


def test_the_server_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert _answers(url)
        os.kill(parent.pid, signal.SIGKILL)
    _wait_until(lambda: not _answers(url))


def test_the_server_listens_on_loopback_only(server: LocalDynamoDB) -> None:
    assert server.endpoint_url.startswith("http://127.0.0.1:")


def test_local_imports_neither_boto3_nor_dagster() -> None:
    code = (
        "import sys, datazone_dagster.local as local\n"
        "[getattr(local, name) for name in local.__all__]\n"
        "import datazone_dagster.local.server, datazone_dagster.local.traffic\n"
        "print([m for m in ('boto3', 'botocore', 'dagster', 'deltalake', 'pyarrow')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
