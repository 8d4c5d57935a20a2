"""Bytes to merged dataset: a drain and an apply in two parallel processes; and a peer.

    python -m benchmarks.end_to_end [records]

The drain reads GetRecords bodies from files (no network). The apply runs again and again until it
has everything, like the runs that a sensor requests; each run continues with records that are
drained meanwhile. Both use their default settings. Wall time is from the first call to the last
commit; memory is that of both processes together, sampled every 20 ms. The peer is the script that
people write (`benchmarks.orders.peer`): one process, fewer records.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from deltalake import DeltaTable

from benchmarks.apply import FLOWS
from benchmarks.apply import TYPED as TYPED_ITEMS
from benchmarks.measure import (
    Measured,
    command_line,
    in_child,
    markdown,
    measuring,
    repeated,
    write,
)
from benchmarks.orders import DATASET, SOURCE, peer, process_orders_stream
from benchmarks.pages import Workload, generated
from benchmarks.stream import PagesStream
from benchmarks.typed_peers import SAIL_MISSING, as_lines, fold, has_sail, merges, sail
from datazone_dagster import Transform
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_tick
from datazone_dagster.source.wire import parse_page

DRAIN, APPLY, APPLY_TYPED = "drain", "apply", "apply typed"
OURS = "drain and apply, two processes"
TYPED = "drain and apply of items() with types, two processes"
PEER = "hand-written: boto3, TypeDeserializer, pyarrow, delta-rs MERGE"
FOLD = "hand-written, typed: msgspec, last record per key in memory, one write"
MERGES = "hand-written, typed: msgspec, last record per key, delta-rs MERGE"
SAIL = "Sail 0.7.2, typed: JSON lines, MERGE with deletion vectors"
DEFAULT_RECORDS = 1_000_000


class TreeMemory(threading.Thread):
    """Peak resident memory of several processes together."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self._pids = pids
        self._ended = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.peak_mib = max(self.peak_mib, sum(map(_resident_mib, self._pids)))

    def end(self) -> float:
        self._ended.set()
        self.join()
        return self.peak_mib


def _resident_mib(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:  # it has ended
        return 0.0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def drain_child(folder: Path, lake: str) -> Measured:
    measured = Measured(DRAIN)
    stream = PagesStream(folder, parse_page)
    _wait_for_start()
    with measuring(measured):
        while not drain_tick(SOURCE, stream, Layout(lake)).caught_up:
            pass
    (Path(lake) / "drained").touch()
    return measured


def apply_child(folder: Path, lake: str, flow: Transform) -> Measured:
    measured = Measured(APPLY, records=PagesStream(folder, parse_page).records)
    applied = chunks = rows = 0
    _wait_for_start()
    with measuring(measured):
        while applied < measured.records:
            drained = (Path(lake) / "drained").exists()
            done = apply_transform(flow, Layout(lake))[DATASET]
            applied, chunks, rows = applied + done.records, chunks + done.chunks, done.row_count
            if not done.records:
                if drained:
                    raise SystemExit(f"{applied} of {measured.records} changes were applied")
                time.sleep(0.1)
    measured.notes |= {"chunks": chunks, "rows": rows}
    return measured


def _wait_for_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def ours(folder: Path, title: str = OURS) -> Measured:
    measured = Measured(title)
    stream = PagesStream(folder, parse_page)
    measured.records, measured.body_bytes = stream.records, stream.body_bytes
    with tempfile.TemporaryDirectory(prefix="bench-end-") as lake:
        children = {
            name: subprocess.Popen(
                [sys.executable, "-m", "benchmarks.end_to_end", "--child", name, str(folder), lake],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in (DRAIN, APPLY if title == OURS else APPLY_TYPED)
        }
        for child in children.values():
            assert child.stdout is not None
            child.stdout.readline()
        memory = TreeMemory([child.pid for child in children.values()])
        memory.start()
        started = time.perf_counter()
        for child in children.values():
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for name, child in children.items():
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                raise SystemExit(f"{name} failed")
            one = Measured(**json.loads(line))
            measured.stages[name] = one.cpu_seconds
            measured.notes |= {f"{name}_peak_mib": one.peak_mib, **one.notes}
        measured.wall_seconds = time.perf_counter() - started
        measured.peak_mib = memory.end()
        for child in children.values():
            child.wait()
    measured.cpu_seconds = sum(measured.stages.values())
    return measured


def peer_child(variant: str, folder: Path) -> Measured:
    measured = Measured(variant)
    stream = PagesStream(folder, parse_page)
    measured.records, measured.body_bytes = stream.records, stream.body_bytes
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as lake:
        files = as_lines(folder, Path(lake)) if variant == SAIL else []
        # Millions of dicts would keep the collector of cycles busy for three quarters of the time.
        gc.disable()
        with measuring(measured):
            if variant == SAIL:
                sail(files, f"{lake}/orders")
            else:
                {PEER: peer, FOLD: fold, MERGES: merges}[variant](folder, f"{lake}/orders")
        measured.notes["rows"] = DeltaTable(f"{lake}/orders").count()
    return measured


def child(variant: str, folder: Path, lake: Path | None = None) -> Measured:
    if lake is None:
        return peer_child(variant, folder)
    if variant == DRAIN:
        return drain_child(folder, str(lake))
    return apply_child(
        folder, str(lake), process_orders_stream if variant == APPLY else FLOWS[TYPED_ITEMS]
    )


def main(results: Path, pages: Path, records: int = DEFAULT_RECORDS) -> list[Measured]:
    folder = generated(Workload(records=records), pages)
    smaller = generated(Workload(records=max(records // 4, 1000)), pages)
    slow = generated(Workload(records=max(records // 10, 1000)), pages)
    rows = [
        repeated(2, lambda: ours(folder)),
        repeated(2, lambda: ours(folder, TYPED)),
        in_child("benchmarks.end_to_end", PEER, str(slow)),
        in_child("benchmarks.end_to_end", FOLD, str(folder)),
        in_child("benchmarks.end_to_end", MERGES, str(smaller)),
    ]
    text = ""
    if has_sail():
        rows.append(in_child("benchmarks.end_to_end", SAIL, str(smaller)))
    else:
        text = f"\n{SAIL_MISSING}\n"
    table = markdown("Bytes to merged dataset", rows, PEER)
    write(results, "end_to_end", rows, table + text)
    return rows


if __name__ == "__main__":
    command_line(child, main, DEFAULT_RECORDS)
