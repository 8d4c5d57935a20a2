from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from datazone_dagster.cli import COMMANDS, main
from datazone_dagster.local import AdminClient
from datazone_dagster.local.wire_client import WireClient
from tests.commands.running import validate_json


def test_every_command_can_be_loaded() -> None:
    for name in COMMANDS:
        done = CliRunner().invoke(main, [name, "--help"])
        assert done.exit_code == 0, done.output


def test_the_overview_imports_no_command() -> None:
    code = (
        "import sys\nfrom datazone_dagster.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.startswith('datazone_dagster.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "emulator" in done.stdout
    assert done.stdout.strip().endswith("['datazone_dagster.cli']")


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "datazone_dagster", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("datazone-dagster, version ")


def test_version() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert done.output.startswith("datazone-dagster, version ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_prints_its_url_and_stops_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "datazone_dagster.cli", "emulator", "--port", "0"]
    with subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "data"), "--shards", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert AdminClient(url).health()
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(20) == 0
    assert f"AWS_ENDPOINT_URL_DYNAMODB_STREAMS={url}" in rest
    assert rest.endswith("Local DynamoDB stopped.\n")


def test_the_url_as_json_and_orders_that_are_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "datazone_dagster.cli", "emulator", "--port", "0", "--json"]
    with subprocess.Popen(
        [*command, "--orders", "100"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        validate_json("emulator", line)
        client = WireClient(json.loads(line)["url"])
        while not client.call("Scan", TableName="orders")["Items"]:
            pass
        process.terminate()
        assert process.stdout.read() == ""
        assert process.wait(20) == 0


def test_a_taken_port_is_a_clear_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ["emulator", "--port", str(port)])
    assert done.exit_code == 1
    assert f"Port {port} on 127.0.0.1 is taken" in done.output
