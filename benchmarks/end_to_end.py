"""Bytes to merged dataset: a drain and an apply in two parallel processes; and a peer.

    python -m benchmarks.end_to_end [records]

The drain reads GetRecords bodies from files (no network). The apply runs again and again until it
has everything, like the runs that a sensor requests; each run continues with records that are
drained meanwhile. Both use their default settings. Wall time is from the first call to the last
commit; memory is that of both processes together, sampled every 20 ms. The peer is the script that
people write (`benchmarks.orders.peer`): one process, fewer records.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.measure import (
    Measured,
    command_line,
    in_child,
    markdown,
    measuring,
    write,
)
from benchmarks.orders import DATASET, SOURCE, peer, process_orders_stream
from benchmarks.pages import Workload, generated
from benchmarks.stream import PagesStream
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_tick
from datazone_dagster.source.wire import parse_page

DRAIN, APPLY = "drain", "apply"
OURS = "drain and apply, two processes"
PEER = "hand-written: boto3, TypeDeserializer, pyarrow, delta-rs MERGE"
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


def apply_child(folder: Path, lake: str) -> Measured:
    measured = Measured(APPLY, records=PagesStream(folder, parse_page).records)
    applied = chunks = rows = 0
    _wait_for_start()
    with measuring(measured):
        while applied < measured.records:
            drained = (Path(lake) / "drained").exists()
            done = apply_transform(process_orders_stream, Layout(lake))[DATASET]
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


def ours(folder: Path) -> Measured:
    measured = Measured(OURS)
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
            for name in (DRAIN, APPLY)
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


def peer_child(folder: Path) -> Measured:
    measured = Measured(PEER)
    stream = PagesStream(folder, parse_page)
    measured.body_bytes = stream.body_bytes
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as lake, measuring(measured):
        measured.records = peer(folder, f"{lake}/orders")
    return measured


def child(variant: str, folder: Path, lake: Path | None = None) -> Measured:
    if lake is None:
        return peer_child(folder)
    return {DRAIN: drain_child, APPLY: apply_child}[variant](folder, str(lake))


def main(results: Path, pages: Path, records: int = DEFAULT_RECORDS) -> list[Measured]:
    folder = generated(Workload(records=records), pages)
    slow = generated(Workload(records=max(records // 10, 1000)), pages)
    rows = [
        min((ours(folder) for _ in range(2)), key=lambda one: one.cpu_seconds),
        in_child("benchmarks.end_to_end", "peer", str(slow)),
    ]
    write(results, "end_to_end", rows, markdown("Bytes to merged dataset", rows, PEER))
    return rows


if __name__ == "__main__":
    command_line(child, main, DEFAULT_RECORDS)
