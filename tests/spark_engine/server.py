"""A Spark Connect server with Delta Lake on this machine, and changes for both engines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import util
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest

from datazone_dagster import Dataset, Input, Output, SparkEngine, Stream, Transform, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.pipeline import apply_transform, read_dataset
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing.scripted_record import change_record

JARS = "DATAZONE_SPARK_JARS"
MASTER = os.environ.get("DATAZONE_SPARK_MASTER", "local-cluster[2,1,1024]")
START_SECONDS = 180
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=200m -XX:+UseSerialGC"
"""Options for processes that live for minutes: optimizing their code would take most of them."""

SOURCE = DynamoDBSource("orders", start="trim_horizon")

Item = dict[str, Any]
Change = tuple[int, str, Item | None]
"""Sequence number, key, and the new item without its key; None: a delete."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """A server whose executors are processes of their own, always at one port.

    Args:
        work: Folder for its files.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._port = free_port()
        spec = util.find_spec("pyspark")
        assert spec is not None
        assert spec.origin is not None
        self._home = work / "home"
        self._home.mkdir()
        for one in Path(spec.origin).parent.iterdir():
            if one.name != "work":  # executors write there: not into the environment
                (self._home / one.name).symlink_to(one)
        self.start()

    @property
    def url(self) -> str:
        return f"sc://127.0.0.1:{self._port}"

    def start(self) -> None:
        jars = ",".join(map(str, Path(os.environ[JARS]).glob("*.jar")))
        settings = {
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": str(self._port),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.executor.memory": "640m",
            "spark.sql.shuffle.partitions": "2",
            "spark.databricks.delta.snapshotPartitions": "1",
            "spark.sql.warehouse.dir": str(self._work / "warehouse"),
            "spark.ui.enabled": "false",
            "spark.log.level": "WARN",
            "spark.executor.extraJavaOptions": QUICK_JVM,
        }
        environment = {
            **os.environ,
            "SPARK_HOME": str(self._home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self._work / "local"),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        command = [
            *(
                str(self._home / "bin" / "spark-submit"),
                "--master",
                MASTER,
                "--driver-memory",
                "768m",
            ),
            *("--driver-java-options", QUICK_JVM),
            *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
            *("--jars", jars),
            *(part for name, value in settings.items() for part in ("--conf", f"{name}={value}")),
            "spark-internal",
        ]
        with (self._work / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._work,
                start_new_session=True,
            )
        try:
            wait_for(self._port, self._process)
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End the driver at once, as a machine that is gone; its executors find out."""
        self._process.kill()
        self._process.wait(60)

    def executors(self) -> list[int]:
        """Return the processes of the executors."""
        group = self._process.pid
        found = []
        for one in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = os.getpgid(int(one.name)) == group
                command = (one / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if is_ours and b"CoarseGrainedExecutorBackend" in command:
                found.append(int(one.name))
        return found

    def stop(self) -> None:
        """End all of its processes."""
        for end in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, end)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(60)


@contextmanager
def sail_server(work: Path) -> Iterator[str]:
    """Run a server of Sail, which is a wheel; yield its URL."""
    port = free_port()
    start = "from pysail.cli import main; main()"
    command = [sys.executable, "-c", start, "spark", "server"]
    command += ["--ip", "127.0.0.1", "--port", str(port)]
    with (work / "sail.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=work)
    try:
        wait_for(port, process)
        yield f"sc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, "the server ended; see server.log"
        with socket.socket() as one:
            one.settimeout(1)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < until, "the server does not listen"
        time.sleep(0.5)


def land(root: Path | str, changes: Sequence[Change]) -> None:
    """Land changes as one batch of the change log."""
    records = []
    for number, key, item in changes:
        keys = {"id": {"S": key}}
        record: ChangeRecord = change_record(
            "arn",
            10**25 + number,
            1_790_000_000 + number,
            keys=keys,
            new=None if item is None else {**keys, **item},
            old={} if item is None else None,
            view_type="NEW_AND_OLD_IMAGES",
            ttl=False,
        )
        records.append(record)
    ChangeLog(Layout(str(root)), SOURCE).open_or_create().append(
        1, [ShardRecords("arn", "shard", None, records)]
    )


ORDER: Item = {
    "status": {"S": "placed"},
    "total": {"N": "1.005"},
    "count": {"N": "7"},
    "share": {"N": "0.1"},
    "open": {"BOOL": True},
    "tags": {"SS": ["b", "a"]},
    "address": {"M": {"city": {"S": 'Zü"r\\ich\n'}, "City": {"S": "other"}}},
    "raw": {"B": "AAE="},
    "day": {"S": "2026-02-28"},
    "at": {"S": "2026-02-28T23:59:59.123456"},
    "ms": {"N": "1790000000123"},
}
"""An item with all that `columns` reads."""


def both(root: Path, changes: Sequence[Change]) -> tuple[Path, Path]:
    """Land changes in two lakehouses; return the one for Spark and the one for ourselves."""
    for one in (root / "spark", root / "ours"):
        land(one, changes)
    return root / "spark", root / "ours"


def uses_spark(caplog: pytest.LogCaptureFixture) -> bool:
    """Return whether all chunks so far were applied by Spark."""
    return "without Spark" not in caplog.text


def columns(changes: Any) -> Any:
    """One column of each kind."""
    return changes.filter(
        "dynamodb.NewImage.status.S is distinct from 'hidden' and eventName <> 'none'"
    ).select(
        "dynamodb.Keys.id.S as id",
        "eventName as event",
        "eventName as cause",
        "dynamodb.SequenceNumber as number",
        "dynamodb.NewImage.status.S as status",
        "cast(dynamodb.NewImage.total.N as decimal(12, 2)) as total",
        "cast(dynamodb.NewImage.count.N as bigint) + 1 as more",
        "cast(dynamodb.NewImage.share.N as double) as share",
        "dynamodb.NewImage.open.BOOL as open",
        "dynamodb.NewImage.tags.SS as tags",
        "dynamodb.NewImage.address.M.city.S as city",
        "case when dynamodb.NewImage.status.S like 'p%' then 'P' else 'other' end as letter",
        "coalesce(dynamodb.NewImage.raw.B, '-') || '!' as raw",
        "cast(dynamodb.NewImage.day.S as date) as day",
        "cast(dynamodb.NewImage.at.S as timestamp) as at",
        "epoch_ms(cast(dynamodb.NewImage.ms.N as bigint)) as ms",
    )


def flow(
    engine: SparkEngine | None,
    function: Any = columns,
    mode: Literal["merge", "append"] = "merge",
    on_error: Literal["fail", "quarantine"] = "fail",
    **dataset: Any,
) -> Transform:
    return transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("d", mode=mode, engine=engine, **dataset))},
        on_error=on_error,
    )(function)


def rows(root: Path | str) -> tuple[pa.Schema, list[str]]:
    """Return schema and rows of the dataset, in no order."""
    found = read_dataset(Layout(str(root)), "d")
    return found.schema, sorted(map(repr, found.to_pylist()))


def applied(root: Path | str, flowing: Transform) -> tuple[pa.Schema, list[str]]:
    apply_transform(flowing, Layout(str(root)))
    return rows(root)
