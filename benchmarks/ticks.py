"""Ten thousand ticks: cost of a small commit as the change log grows; and of an idle tick.

    python -m benchmarks.ticks [ticks]

Each tick is a complete drain with a few records: open, plan, read, append, save, maintain. An idle
tick finds a hundred open shards with nothing in them.

The ticks follow each other at once, not every five seconds. Hourly work has to happen here too, so
an hour is the time of 720 ticks at the speed of this run: retentions and the hourly deletion of
replaced files are shortened alike.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median

from deltalake import DeltaTable

from datazone_dagster.changelog import checkpoints, maintain_log, owner
from datazone_dagster.drain import maintain_source, process_state
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import drain_once
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource(table_name="orders", region="us-west-2")
ROWS = 20
IDLE_SHARDS = 100
IDLE_TICKS = 20
TICKS_PER_HOUR = 720
FIRST_TICKS = 50
SLOWER_LATER = 1.5
"""Factor by which later ticks are slower than the first ones, whose log is still empty."""


def hour_seconds(root: Path) -> int:
    """Estimate the seconds that 720 ticks will take here, from some ticks that come first."""
    started = time.perf_counter()
    for _ in run(FIRST_TICKS, root):
        pass
    took = (time.perf_counter() - started) / FIRST_TICKS
    return max(20, round(TICKS_PER_HOUR * took * SLOWER_LATER))


def shorten_hours(seconds: int) -> None:
    """Shorten every hourly interval and retention to this many seconds per hour."""
    maintain_log.CONFIGURATION.update(_retentions(seconds, log_hours=1, files_hours=5))
    checkpoints._CONFIGURATION.update(_retentions(seconds, log_hours=1, files_hours=3))
    maintain_log.RETENTION_HOURS = checkpoints.RETENTION_HOURS = 0
    maintain_log.LOG_RETENTION = checkpoints.LOG_RETENTION = timedelta(seconds=seconds)
    owner._CONFIGURATION.update(maintain_log.CONFIGURATION)
    maintain_source.CLEAN_UP_EVERY_SECONDS = process_state.CLEAN_UP_FIRST_SECONDS = seconds


def _retentions(seconds: int, *, log_hours: int, files_hours: int) -> dict[str, str]:
    return {
        "delta.logRetentionDuration": f"interval {log_hours * seconds} seconds",
        "delta.deletedFileRetentionDuration": f"interval {files_hours * seconds} seconds",
    }


def run(ticks: int, root: Path, shards: int = 4) -> Iterator[dict[str, float]]:
    """Yield `ROWS` rows of results, each over the same number of ticks."""
    stream = ScriptedStream(shards=shards)
    took: list[float] = []
    cpu_before = time.process_time()
    every = max(1, ticks // ROWS)
    for tick in range(1, ticks + 1):
        stream.put({"id": {"S": f"k{tick % 1000}"}, "n": {"N": str(tick)}})
        started = time.perf_counter()
        drain_once(SOURCE, stream, Layout(str(root)))
        took.append(time.perf_counter() - started)
        if tick % every == 0:
            log = root / "_changelog" / SOURCE.name
            yield {
                "ticks": tick,
                "cpu_ms": 1e3 * (time.process_time() - cpu_before) / len(took),
                "median_ms": 1e3 * median(took),
                "p99_ms": 1e3 * sorted(took)[int(len(took) * 0.99)],
                "live_files": len(DeltaTable(log).file_uris()),
                "files_on_disk": sum(1 for _ in log.rglob("*.parquet")),
                "log_entries": sum(1 for _ in (log / "_delta_log").iterdir()),
            }
            took, cpu_before = [], time.process_time()


def idle(root: Path) -> dict[str, float]:
    """Measure a tick that has nothing to read: everything but the calls themselves."""
    stream = ScriptedStream(shards=IDLE_SHARDS)
    layout = Layout(str(root))
    for number in range(2 * IDLE_SHARDS):
        stream.put({"id": {"S": f"k{number}"}})
    drain_once(SOURCE, stream, layout)
    calls_before = stream.calls["GetRecords"]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(IDLE_TICKS):
        drain_once(SOURCE, stream, layout)
    return {
        "open_shards": IDLE_SHARDS,
        "cpu_ms": 1e3 * (time.process_time() - cpu) / IDLE_TICKS,
        "wall_ms": 1e3 * (time.perf_counter() - wall) / IDLE_TICKS,
        "get_records_calls": (stream.calls["GetRecords"] - calls_before) / IDLE_TICKS,
    }


def table(rows: list[dict[str, float]], quiet: dict[str, float]) -> str:
    names = list(rows[0])
    lines = [
        "### A tick of a few records, as the change log grows",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|" + "---:|" * len(names),
        *("| " + " | ".join(f"{row[name]:,.0f}" for name in names) + " |" for row in rows),
        "",
        f"An idle tick with {quiet['open_shards']:.0f} open shards: {quiet['cpu_ms']:.1f} ms CPU, "
        f"{quiet['get_records_calls']:.0f} GetRecords calls.",
        "",
    ]
    return "\n".join(lines)


def main(results: Path, ticks: int = 10_000) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-ticks-") as folder:
        shorten_hours(hour_seconds(Path(folder) / "first"))
        quiet = idle(Path(folder) / "idle")
        rows = []
        results.mkdir(parents=True, exist_ok=True)
        for row in run(ticks, Path(folder) / "busy"):  # written as it goes: it takes a while
            rows.append(row)
            measured = json.dumps({"ticks": rows, "idle": quiet}, indent=1)
            (results / f"ticks_{ticks}.json").write_text(measured)
            (results / f"ticks_{ticks}.md").write_text(table(rows, quiet))
    print(table(rows, quiet))


if __name__ == "__main__":
    main(Path("benchmarks/results"), int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
