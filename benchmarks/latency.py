"""Write to readable row: latency, runs, ticks and growth of a Dagster instance.

    python -m benchmarks.latency --rate 10 --minutes 3 [--storage postgres]
    python -m benchmarks.latency --rate 0 --minutes 10      (an idle stream)

A real `dagster dev`, its code server and its runs, and the local DynamoDB, all on this machine. A
writer puts items at a constant rate. A reader waits for each new version of the Delta table and
finds in its rows which writes can be read now. The clock of a write starts when DynamoDB answers it.

The first run starts within the warm-up, which does not count. Growth and ticks are those of the
measured time, given for ten minutes and for a day.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.instance_storage import Storage, UnavailableError, storage_of
from benchmarks.measure import RESULTS
from datazone_dagster.demo.servers import DagsterDev, free_port
from datazone_dagster.errors import StorageError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import read_dataset

KEYS = 2_000
SHARDS = 4
WARM_UP_SECONDS = 40.0
SETTLE_SECONDS = 20.0
BATCH_ITEMS = 25
STEP_SECONDS = 0.05
DATASET = "readings"

DEFINITIONS = """
from datazone_dagster import Dataset, Input, Output, Stream, build_definitions, transform
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource("readings", region="us-east-1", start="trim_horizon")

@transform(
    input_mapping={"changes": Input(Stream(source=SOURCE))},
    output_mapping={"rows": Output(Dataset("readings"))},
)
def readings(changes):
    return changes.select(
        "dynamodb.Keys.id.S as id",
        "cast(dynamodb.NewImage.number.N as bigint) as number",
        "dynamodb.NewImage.text.S as text",
    )

defs = build_definitions([readings])
"""


@dataclass
class Result:
    """Measured over the time after the warm-up."""

    rate: float
    storage: str
    minutes: float
    writes: int = 0
    unread: int = 0
    p50_seconds: float = 0.0
    p95_seconds: float = 0.0
    p99_seconds: float = 0.0
    longest_seconds: float = 0.0
    versions: int = 0
    runs: int = 0
    ticks: int = 0
    growth_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    code_server_cpu_seconds: float = 0.0
    stop_seconds: float = 0.0


class Writer(threading.Thread):
    """Puts items at a constant rate until it is told to end."""

    def __init__(self, client: WireClient, rate: float) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._rate = rate
        self._ended = threading.Event()
        self.written_at: list[float] = []

    def run(self) -> None:
        if not self._rate:
            return
        started = time.monotonic()
        while not self._ended.wait(STEP_SECONDS):
            due = int((time.monotonic() - started) * self._rate)
            while len(self.written_at) < due:
                first = len(self.written_at)
                self._put(range(first, min(due, first + BATCH_ITEMS)))

    def _put(self, numbers: range) -> None:
        items = [
            {"id": {"S": f"k{n % KEYS}"}, "number": {"N": str(n)}, "text": {"S": f"reading {n}"}}
            for n in numbers
        ]
        puts = [{"PutRequest": {"Item": item}} for item in items]
        answer = self._client.call("BatchWriteItem", RequestItems={"readings": puts})
        assert not answer.get("UnprocessedItems"), answer
        self.written_at += [time.monotonic()] * len(items)

    def end(self) -> None:
        self._ended.set()
        self.join()


class Reader(threading.Thread):
    """Notes when the row of each write, or of a later one of its key, can be read."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(daemon=True)
        self._layout = layout
        self._ended = threading.Event()
        self._latest: dict[int, int] = {}
        self.readable_at: dict[int, float] = {}
        self.versions: list[float] = []

    def run(self) -> None:
        log = Path(self._layout.dataset(DATASET)) / "_delta_log"
        for version in count():
            while not (log / f"{version:020}.json").exists():
                if self._ended.wait(0.02):
                    return
            self.versions.append(time.monotonic())
            if not (log / f"{version + 1:020}.json").exists():
                self._read(self.versions[-1])

    def _read(self, now: float) -> None:
        try:
            numbers = read_dataset(self._layout, DATASET)["number"].to_pylist()
        except (StorageError, KeyError):
            return  # the table is being made
        for number in numbers:
            key = number % KEYS
            for one in range(self._latest.get(key, key - KEYS) + KEYS, number + 1, KEYS):
                self.readable_at[one] = now
            self._latest[key] = number

    def end(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def dagster_on(
    server: LocalDynamoDB, folder: Path, storage: Storage
) -> Iterator[tuple[DagsterDev, Layout]]:
    """Run Dagster on the code location of this benchmark."""
    project, home, layout = folder / "project", folder / "home", Layout(str(folder / "lake"))
    project.mkdir()
    (project / "definitions.py").write_text(DEFINITIONS, "utf-8")
    (project / "workspace.yaml").write_text("load_from:\n  - python_file: definitions.py\n")
    (home / "dagster.yaml").write_text(storage.yaml, "utf-8")
    environment = {
        "AWS_ENDPOINT_URL_DYNAMODB": server.endpoint_url,
        "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "DATAZONE_LAKEHOUSE_URI": layout.uri,
        "PYTHONPATH": os.pathsep.join((os.getcwd(), os.environ.get("PYTHONPATH", ""))),
    }
    dagster = DagsterDev(project, home, free_port(3900), environment)
    try:
        dagster.wait_until_ready()
        yield dagster, layout
    finally:
        dagster.stop()


def measured(rate: float, minutes: float, kind: str) -> Result:
    """Run the benchmark once.

    Raises:
        UnavailableError: The storage can't be had on this machine.
    """
    result = Result(rate, kind, minutes)
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        with storage_of(kind, folder / "home") as storage, LocalDynamoDB(shards=SHARDS) as server:
            client = WireClient(server.endpoint_url)
            create_table(client)
            with dagster_on(server, folder, storage) as (_, layout):
                _measure(result, client, layout, storage)
                stopping = time.monotonic()
            result.stop_seconds = time.monotonic() - stopping
    return result


def create_table(client: WireClient) -> None:
    client.call(
        "CreateTable",
        TableName="readings",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )


def _measure(result: Result, client: WireClient, layout: Layout, storage: Storage) -> None:
    writer, reader = Writer(client, result.rate), Reader(layout)
    reader.start()
    writer.start()
    time.sleep(WARM_UP_SECONDS)
    size, rows = storage.size_bytes(), storage.rows()
    since, first = time.monotonic(), len(writer.written_at)
    time.sleep(result.minutes * 60)
    until = time.monotonic()
    grown, after = storage.size_bytes() - size, storage.rows()
    writer.end()
    last = len(writer.written_at)
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline and len(reader.readable_at) < last:
        time.sleep(0.2)
    reader.end()
    took = sorted(
        reader.readable_at[number] - writer.written_at[number]
        for number in range(first, last)
        if number in reader.readable_at
    )
    result.writes, result.unread = last - first, last - first - len(took)
    if took:
        result.p50_seconds, result.p95_seconds, result.p99_seconds = (
            took[int(len(took) * share)] for share in (0.5, 0.95, 0.99)
        )
        result.longest_seconds = took[-1]
    result.versions = sum(since <= at < until for at in reader.versions)
    result.runs = after["runs"]
    result.rows = {table: after[table] - rows[table] for table in sorted(after)}
    result.ticks = result.rows.get("job_ticks", 0)
    result.growth_bytes = grown


def table(result: Result) -> str:
    """Return the result as a table in Markdown."""
    ten_minutes = result.growth_bytes / result.minutes * 10 / 1e6
    day = result.growth_bytes / result.minutes * 1440 / 1e6
    what = f"{result.rate:g} changes/s" if result.rate else "idle"
    lines = [
        f"### {what}, {result.storage}, {result.minutes:g} minutes",
        "",
        "| write to readable row | |",
        "|---|---:|",
        f"| writes, of them never seen | {result.writes:,}, {result.unread:,} |",
        f"| p50 | {result.p50_seconds:.2f} s |",
        f"| p95 | {result.p95_seconds:.2f} s |",
        f"| p99 | {result.p99_seconds:.2f} s |",
        f"| longest | {result.longest_seconds:.2f} s |",
        f"| versions of the table | {result.versions:,} |",
        f"| runs since the start | {result.runs:,} |",
        f"| ticks | {result.ticks:,} |",
        f"| growth of the instance, per 10 minutes | {ten_minutes:.2f} MB |",
        f"| the same per day, extrapolated | {day:.1f} MB |",
        f"| new rows | {', '.join(f'{key} {n:,}' for key, n in result.rows.items())} |",
        f"| time to stop Dagster | {result.stop_seconds:.1f} s |",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> Result | None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rate", type=float, default=10.0, help="changes per second; 0: idle")
    parser.add_argument("--minutes", type=float, default=3.0, help="measured time")
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    try:
        result = measured(given.rate, given.minutes, given.storage)
    except UnavailableError as reason:
        print(f"Skipped: {reason}")
        return None
    given.results.mkdir(parents=True, exist_ok=True)
    name = f"latency_{result.rate:g}_{result.storage}"
    (given.results / f"{name}.json").write_text(json.dumps(_facts(result), indent=1))
    (given.results / f"{name}.md").write_text(table(result))
    print(table(result))
    return result


def _facts(result: Result) -> dict[str, Any]:
    return asdict(result)


if __name__ == "__main__":
    main()
