"""Ten thousand ticks: what a small commit costs as the change log grows.

    python -m benchmarks.ticks [ticks]

Each tick is a whole drain with a few records: open, plan, read, land, save, upkeep.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from deltalake import DeltaTable

from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import drain_once
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource(table_name="orders", region="us-west-2")
REPORT_EVERY = 500


def run(ticks: int, root: Path, shards: int = 4) -> list[dict[str, float]]:
    """One row per `REPORT_EVERY` ticks."""
    stream = ScriptedStream(shards=shards)
    rows: list[dict[str, float]] = []
    took: list[float] = []
    cpu_before = time.process_time()
    for tick in range(1, ticks + 1):
        stream.put({"id": {"S": f"k{tick % 1000}"}, "n": {"N": str(tick)}})
        started = time.perf_counter()
        drain_once(SOURCE, stream, Layout(str(root)))
        took.append(time.perf_counter() - started)
        if tick % REPORT_EVERY == 0:
            log = root / "_changelog" / SOURCE.name
            rows.append(
                {
                    "ticks": tick,
                    "median_ms": 1e3 * median(took),
                    "p99_ms": 1e3 * sorted(took)[int(len(took) * 0.99)],
                    "cpu_ms": 1e3 * (time.process_time() - cpu_before) / len(took),
                    "live_files": len(DeltaTable(log).file_uris()),
                    "files_on_disk": sum(1 for _ in log.rglob("*.parquet")),
                }
            )
            print({name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
            took, cpu_before = [], time.process_time()
    return rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-ticks-") as folder:
        run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, Path(folder))
