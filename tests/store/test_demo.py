"""The demo, with its tables in S3."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from datazone_dagster.demo.command import lakehouse_uri
from datazone_dagster.demo.servers import free_port
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import read_dataset
from tests.store.proxy import Proxy
from tests.store.servers import BUCKET

PROJECT = Path(__file__).parents[2]
LINE = re.compile(r"written 60  drained (\d+)  applied (\d+) ")


def test_where_the_tables_of_a_demo_are() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    state = Path("/project/.datazone/demo/state")
    for named in ("", "/elsewhere", "file:///elsewhere"):
        assert lakehouse_uri(state, named, now) == f"{state}/lakehouse"
    assert lakehouse_uri(state, "s3://lake/x/", now) == "s3://lake/x/demo-20260102-030405"


@pytest.mark.store
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_demo_with_tables_in_s3(
    s3_options: dict[str, str], proxy: Proxy, tmp_path: Path
) -> None:
    for name in ("definitions.py", "workspace.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    environment = {
        "DATAZONE_LAKEHOUSE_URI": f"s3://{BUCKET}/demo",
        "AWS_ENDPOINT_URL_S3": proxy.url,
        **{name: value for name, value in s3_options.items() if name != "AWS_ENDPOINT_URL"},
    }
    ports = [f"--port={free_port(3600)}", f"--emulator-port={free_port(8600)}"]
    demo = subprocess.Popen(
        [sys.executable, "-m", "datazone_dagster.cli", "demo", *ports, "--changes=60"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    uri = ""
    try:
        for line in demo.stdout:
            uri = line.partition("Tables:")[2].strip() or uri
            found = LINE.search(line)
            if found and int(found[2]) >= 60:
                break
    finally:
        demo.terminate()
        demo.wait(60)
    assert uri.startswith(f"s3://{BUCKET}/demo/demo-")
    assert len(read_dataset(Layout(uri, s3_options), "processed_orders")) > 0
