"""Merges into large tables: our engines against a hand-written delta-rs MERGE, in the same run.

    python -m benchmarks.merge [millions of rows ...]      (default: 1 10)
    python -m benchmarks.merge --reads [millions ...]      (default: 1 10)

Each case is a process of its own on a copy of the same table. Measured from Arrow rows to commit:
opening the table, finding the rows, writing, committing. A first merge into a small table does the
one-time loading. The first two merges of a process into a table read its keys, later ones look them
up in an index: the medians are of those, the first two are shown as well.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake

from benchmarks.measure import Measured, child_variant, in_child, report, write
from benchmarks.orders_table import DATASET, cached, changes, copied, local, scattered
from datazone_dagster.delta import KIND, transaction
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.layout import Layout
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.engine import MergeTarget
from datazone_dagster.rows.engines import AutoEngine, CopyOnWriteEngine, MergeOnReadEngine
from datazone_dagster.rows.maintenance_plan import THOROUGH, MaintenanceSettings
from datazone_dagster.rows.merge_batch import CAUSE, KEYED_CHANGES_SCHEMA, MergeBatch
from datazone_dagster.rows.overwrite import elsewhere, table_batches
from datazone_dagster.rows.table_maintenance import maintain

ON_READ = "merge-on-read (deletion vectors)"
ON_WRITE = "copy-on-write (touched files)"
BY_HAND = "delta-rs MERGE by hand"
ENGINES = {ON_READ: MergeOnReadEngine, ON_WRITE: CopyOnWriteEngine}

CASES = [("scattered", 10_000), ("local", 10_000), ("scattered", 100_000), ("scattered", 1_000)]
REPEATS = {ON_READ: 7, ON_WRITE: 3, BY_HAND: 3}


def merge_once(variant: str, uri: str, rows: pa.Table, number: int) -> None:
    """Merge one batch, as the engine's caller or a careful script would do it."""
    if variant == BY_HAND:
        DeltaTable(uri).merge(
            rows,
            predicate=f"t.{KEY} = s.{KEY}",
            source_alias="s",
            target_alias="t",
            writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            commit_properties=CommitProperties(app_transactions=[Transaction("apply/b", number)]),
        ).when_matched_update_all(
            predicate=f"s.{VERSION} > t.{VERSION}"
        ).when_not_matched_insert_all().execute()
        return
    target = target_at(uri)
    ENGINES[variant]().merge(target, batch_of(rows), transaction("apply/b", number))


def target_at(uri: str) -> MergeTarget:
    """Open a table as a new process does."""
    handle = DeltaTable(uri)
    kind = handle.metadata().configuration.get(KIND, "")
    table = Table(KeptTable(uri, {}, kind), read_snapshot(handle, {}))
    return MergeTarget(DATASET, table, table.schema)


def batch_of(rows: pa.Table) -> MergeBatch:
    keyed_changes = pa.table(
        {KEY: rows[KEY], VERSION: rows[VERSION], CAUSE: pa.nulls(len(rows), pa.string())},
        schema=KEYED_CHANGES_SCHEMA,
    )
    return MergeBatch(keyed_changes, rows)


def peak_mib() -> float:
    """Return the peak resident memory since `reset_peak`, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def folder_bytes(folder: Path) -> tuple[int, int]:
    """Return the bytes and the number of files that are not links to the cached table."""
    own = [path.stat() for path in folder.rglob("*") if path.is_file()]
    new = [stat.st_size for stat in own if stat.st_nlink == 1]
    return sum(new), len(new)


def warm_up(variant: str) -> None:
    with tempfile.TemporaryDirectory(prefix="merge-warm-") as root:
        ids = scattered(20_000, 20_000, seed=1)
        write_deltalake(root, changes(ids, 0))
        for number in (1, 2):
            merge_once(variant, root, changes(ids[: 500 * number], number), number)


def merges(variant: str, spread: str, rows: int, keys: int, repeats: int) -> Measured:
    measured = Measured(f"{variant}, {rows // 10**6}M rows, {keys:,} {spread} keys", records=keys)
    warm_up(variant)
    lake = copied(cached(rows))
    uri = str(lake / DATASET)
    cpu, wall, above, written, files = [], [], [], [], []
    try:
        for number in range(1, repeats + 1):
            pick = scattered if spread == "scattered" else local
            batch = changes(pick(rows, keys, seed=number), number)
            before = folder_bytes(lake)
            reset_peak()
            idle = peak_mib()
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            merge_once(variant, uri, batch, number)
            cpu.append(time.process_time() - cpu_start)
            wall.append(time.perf_counter() - wall_start)
            above.append(peak_mib() - idle)
            after = folder_bytes(lake)
            written.append(after[0] - before[0])
            files.append(after[1] - before[1])
    finally:
        shutil.rmtree(lake)
    measured.cpu_seconds = statistics.median(cpu)
    measured.wall_seconds = statistics.median(wall)
    measured.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured.notes = {
        "first_cpu_seconds": cpu[0],
        "second_cpu_seconds": cpu[1],
        "above_idle_mib": max(above),
        "written_mb": statistics.median(written) / 1e6,
        "files_written": statistics.median(files),
        "repeats": repeats,
    }
    return measured


def read_seconds(*uris: str) -> list[float]:
    """Return the CPU seconds to open each table and read every column: best of five, in turns."""
    tries: list[list[float]] = [[] for _ in uris]
    for _ in range(5):
        for uri, taken in zip(uris, tries, strict=True):
            start = time.process_time()
            for _batch in pa.RecordBatchReader.from_stream(DeltaTable(uri).scan()):
                pass
            taken.append(time.process_time() - start)
    return [min(taken) for taken in tries]


class Reads:
    """Read cost after merges and after maintenance, with the cost of the merges themselves."""

    def __init__(self, rows: int) -> None:
        self.found: list[Measured] = []
        self._rows = rows
        self._lake = copied(cached(rows))
        self._uri = str(self._lake / DATASET)
        self._merging = self._maintaining = 0.0

    def run(self, batches: int) -> None:
        try:
            self._record("as created")
            for number in range(1, batches + 1):
                self._merge(number)
                if number in (1, 20, batches):
                    self._record(f"after {number} merges")
                self._maintain(MaintenanceSettings())
            self._record(f"after {batches} merges, each with its maintenance")
            self._maintain(THOROUGH)
            self._record("after thorough maintenance in quiet hours")
        finally:
            shutil.rmtree(self._lake)

    def _record(self, name: str) -> None:
        rewritten = self._rewritten()
        taken, fresh = read_seconds(self._uri, rewritten)
        shutil.rmtree(rewritten)
        snapshot = read_snapshot(DeltaTable(self._uri), {})
        notes = {
            "fresh_cpu_seconds": fresh,
            "files": float(len(snapshot.files)),
            "hidden_rows": float(snapshot.deleted_rows),
            "mb": sum(file.size_bytes for file in snapshot.files) / 1e6,
            "merging_cpu_seconds": self._merging,
            "maintaining_cpu_seconds": self._maintaining,
        }
        name = f"{self._rows // 10**6}M rows, {name}"
        self.found.append(Measured(name, snapshot.live_rows, 0, taken, notes=notes))

    def _merge(self, number: int) -> None:
        batch = changes(scattered(self._rows, 10_000, seed=number), number)
        start = time.process_time()
        target = target_at(self._uri)
        AutoEngine().merge(target, batch_of(batch), transaction("apply/b", number))
        self._merging += time.process_time() - start

    def _maintain(self, settings: MaintenanceSettings) -> None:
        start = time.process_time()
        maintain(Layout(str(self._lake)), DATASET, settings, datetime.now(timezone.utc))
        self._maintaining += time.process_time() - start

    def _rewritten(self) -> str:
        """Write the present rows by delta-rs in one go, as the table was first; return the URI."""
        table = DeltaTable(self._uri)
        schema, uri = pa.schema(table.schema().to_arrow()), str(self._lake / "rewritten")
        tables = (aligned(rows, schema) for rows in table_batches(table))
        with elsewhere(tables) as stored:
            batches = (batch for rows in stored for batch in rows.to_batches())
            write_deltalake(
                uri,
                pa.RecordBatchReader.from_batches(schema, batches),
                writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            )
        return uri


def reads(rows: int, batches: int) -> list[Measured]:
    warm_up(ON_READ)
    measured = Reads(rows)
    measured.run(batches)
    return measured.found


def table_of(rows: list[Measured]) -> str:
    lines = [
        "| case | CPU s | first, second | wall s | MiB above idle | MB written | files written "
        "| times cheaper |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    by_name = {row.name: row for row in rows}
    for row in rows:
        hand = by_name.get(", ".join([BY_HAND, *row.name.split(", ", 1)[1:]]))
        times = f"{hand.cpu_seconds / row.cpu_seconds:.1f}" if hand else ""
        notes = row.notes
        lines.append(
            f"| {row.name} | {row.cpu_seconds:.2f} | "
            f"{notes['first_cpu_seconds']:.2f}, {notes['second_cpu_seconds']:.2f} | "
            f"{row.wall_seconds:.2f} | "
            f"{notes['above_idle_mib']:.0f} | {notes['written_mb']:.1f} | "
            f"{notes['files_written']:.0f} | {times} |"
        )
    return "\n".join(["### One batch, from Arrow rows to commit", "", *lines, ""])


def table_of_reads(rows: list[Measured]) -> str:
    lines = [
        "| table | read CPU s | same rows rewritten | times | files | MB | hidden rows "
        "| merging CPU s so far | maintenance CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        notes = row.notes
        fresh = notes["fresh_cpu_seconds"]
        lines.append(
            f"| {row.name} | {row.cpu_seconds:.2f} | {fresh:.2f} | "
            f"{row.cpu_seconds / fresh:.2f} | {notes['files']:.0f} | {notes['mb']:.0f} | "
            f"{notes['hidden_rows']:,.0f} | {notes['merging_cpu_seconds']:.1f} | "
            f"{notes['maintaining_cpu_seconds']:.1f} |"
        )
    return "\n".join(["### Reading the full table", "", *lines, ""])


def main(results: Path, millions: list[int]) -> list[Measured]:
    measured = []
    for rows in (10**6 * number for number in millions):
        cached(rows)
        for spread, keys in CASES:
            for variant, repeats in REPEATS.items():
                arguments = (spread, str(rows), str(keys), str(repeats))
                measured.append(in_child("benchmarks.merge", variant, *arguments))
                write(results, "merge", measured, table_of(measured))
    return measured


def main_reads(results: Path, millions: list[int]) -> list[Measured]:
    measured: list[Measured] = []
    for number in millions:
        measured += reads(10**6 * number, 100)
        write(results, "merge_reads", measured, table_of_reads(measured))
    return measured


if __name__ == "__main__":
    os.environ.setdefault("RUST_LOG", "error")
    asked = child_variant(sys.argv)
    if asked:
        kind, (spread, rows, keys, repeats) = asked
        report(merges(kind, spread, int(rows), int(keys), int(repeats)))
    elif "--reads" in sys.argv:
        main_reads(Path("benchmarks/results"), [int(n) for n in sys.argv[2:]] or [1, 10])
    else:
        main(Path("benchmarks/results"), [int(n) for n in sys.argv[1:]] or [1, 10])
