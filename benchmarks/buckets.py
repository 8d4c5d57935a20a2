"""Bytes to merged dataset on one worker and on two, each with one core of its own.

    python -m benchmarks.buckets [records [turns]]

A worker is one core with two processes on it, as in a deployment: one drains, one applies. One
worker drains all shards and applies all keys. Of two, each drains one of two sets of shards and
applies one of two buckets of the keys. Bodies come from files, so there is no network; everything
else is as always, with default settings. Time is from the first call to the last commit, of all
processes. Runs of one and of two workers are made in turns, and compared turn by turn.

Wall time says something on a quiet machine only. The CPU time of the busiest core says on any
machine how the work is shared: it bounds what the workers can reach.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks.measure import PAGES, RESULTS, Measured, child_variant, measuring, report, write
from benchmarks.orders import DATASET, SOURCE, process_orders_stream
from benchmarks.pages import Workload, generated
from benchmarks.stream import PagesStream
from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.slot_parts import BY_SLOTS, ranges_for
from datazone_dagster.model.drain_part import SetPart, StreamPart
from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.shard_set import ShardSet
from datazone_dagster.pipeline import apply_transform, backlog, drain_tick, follow_changes
from datazone_dagster.source.wire import parse_page

DRAIN, APPLY = "drain", "apply"
WORKERS = (1, 2)
TURNS = 3
DEFAULT_RECORDS = 1_000_000
SHARDS = 16
"""Shards of the stream: the hash of their ids gives each of two sets eight of them."""
BUSIEST = "busiest_core_cpu_seconds"


def flow(buckets: int) -> Transform:
    """Return the published example, its dataset with buckets."""
    return transform(
        name=process_orders_stream.name,
        input_mapping={"orders_stream": Input(Stream(source=SOURCE))},
        output_mapping={DATASET: Output(Dataset(id=DATASET, buckets=buckets))},
    )(process_orders_stream.function)


def prepare(lake: str, stream: PagesStream, workers: int) -> None:
    """Begin the tables as they are after a while: laid out for buckets, each shard known.

    The sensor of drain workers lists the shards, and reads none.
    """
    layout = Layout(lake)
    log = ChangeLog(layout, SOURCE.name).open_or_create()
    if workers > 1:
        log.set_property(BY_SLOTS, str(ranges_for(workers)), "Laying out the change log")
        drain_tick(SOURCE, stream, layout, part=StreamPart(workers))


def drained_part(
    folder: Path, lake: str, part: SetPart | None, start: Callable[[], object]
) -> Measured:
    """Drain one set of shards, or all of them."""
    measured = Measured(DRAIN)
    stream, layout = PagesStream(folder, parse_page), Layout(lake)
    start()
    with measuring(measured):
        while not drain_tick(SOURCE, stream, layout, part=part).caught_up:
            pass
    return measured


def applied_part(
    folder: Path, lake: str, bucket: KeyBucket, start: Callable[[], object]
) -> Measured:
    """Apply one bucket, as a run of the sensor does, until all is drained and applied."""
    measured = Measured(APPLY, records=PagesStream(folder, parse_page).records)
    layout, function = Layout(lake), flow(bucket.of)
    start()
    drained, chunks = drained_mark(lake), list[object]()
    with measuring(measured):
        # As a run that stays: it takes what has landed once that is worth a merge.
        for _ in follow_changes(
            function, layout, bucket=bucket, told_to_end=drained.exists, on_chunk=chunks.append
        ):
            pass
        while apply_transform(function, layout, bucket=bucket)[DATASET].records:
            pass
    assert not backlog(SOURCE.name, DATASET, layout, bucket=bucket).records
    measured.notes["chunks"] = len(chunks)
    return measured


def child(variant: str, folder: str, lake: str, number: str, workers: str) -> Measured:
    """Be one process of a worker, on the worker's core."""
    at, of = int(number), int(workers)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[(at - 1) % len(cores)]})
    if variant == DRAIN:
        part = None if of == 1 else SetPart(ShardSet(at, of))
        return drained_part(Path(folder), lake, part, _wait_for_start)
    return applied_part(Path(folder), lake, KeyBucket(at, of), _wait_for_start)


def measured_with(workers: int, folder: Path) -> Measured:
    """Run the workers from the first call to the last commit."""
    found = Measured(f"{workers} worker{'s' * (workers > 1)}")
    stream = PagesStream(folder, parse_page)
    found.records, found.body_bytes = stream.records, stream.body_bytes
    numbers = range(1, workers + 1)
    with tempfile.TemporaryDirectory(prefix="bench-buckets-") as lake, ExitStack() as stack:
        prepare(lake, stream, workers)
        processes = {
            (kind, number): stack.enter_context(_started(kind, folder, lake, number, workers))
            for number in numbers
            for kind in (DRAIN, APPLY)
        }
        stack.callback(_kill, list(processes.values()))
        for process in processes.values():
            _line_of(process)  # it is ready
        began = time.perf_counter()
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        cores = dict.fromkeys(numbers, 0.0)
        for kind in (DRAIN, APPLY):
            for number in numbers:
                one = Measured(**json.loads(_line_of(processes[kind, number])))
                cores[number] += one.cpu_seconds
                found.stages[kind] = found.stages.get(kind, 0.0) + one.cpu_seconds
                found.notes["chunks"] = found.notes.get("chunks", 0) + one.notes.get("chunks", 0)
            drained_mark(lake).touch()
        found.wall_seconds = time.perf_counter() - began
        found.notes[BUSIEST] = max(cores.values())
        log = sum(file.stat().st_size for file in Path(lake, "_changelog").rglob("*.parquet"))
        found.notes["log_bytes_per_record"] = log / found.records
        found.notes["rows"] = rows_in(lake)
    found.cpu_seconds = sum(cores.values())
    return found


def rows_in(lake: str) -> int:
    """Return the number of rows of the dataset: all ways have the same."""
    import polars as pl

    return int(pl.scan_delta(f"{lake}/{DATASET}").select(pl.len()).collect().item())


def drained_mark(lake: str) -> Path:
    return Path(lake) / "drained"


def _wait_for_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _started(
    kind: str, folder: Path, lake: str, number: int, workers: int
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.buckets", "--child", kind]
    return subprocess.Popen(
        [*command, str(folder), lake, str(number), str(workers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _kill(processes: Sequence[subprocess.Popen[str]]) -> None:
    """End what goes on after an error of another process: an apply would wait for its drain."""
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()


def _line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args!r} failed")
    return line


def table_of(runs: Sequence[Sequence[Measured]]) -> str:
    """Return the medians of the runs of one worker, and of two, with the ratio of each turn."""
    lines = [
        "### Bytes to merged dataset, by workers of one core each",
        "",
        "| | records/s | times | CPU s per million: drain | apply | busiest core | times by it | "
        "log, bytes per record |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    alone = runs[0]
    for of_one in runs:
        million = of_one[0].records / 1e6

        def median(of: Callable[[Measured], float], turns: Sequence[Measured] = of_one) -> float:
            return statistics.median(map(of, turns))

        pairs = list(zip(of_one, alone, strict=True))
        times = statistics.median(one.per_second / base.per_second for one, base in pairs)
        by_cpu = statistics.median(base.notes[BUSIEST] / one.notes[BUSIEST] for one, base in pairs)
        lines.append(
            f"| {of_one[0].name} | {median(lambda one: one.per_second):,.0f} | {times:.2f} | "
            f"{median(lambda one: one.stages[DRAIN]) / million:.2f} | "
            f"{median(lambda one: one.stages[APPLY]) / million:.2f} | "
            f"{median(lambda one: one.notes[BUSIEST]) / million:.2f} | {by_cpu:.2f} | "
            f"{of_one[0].notes['log_bytes_per_record']:.0f} |"
        )
    return "\n".join([*lines, "", f"Medians of {len(alone)} turns.", ""])


def main(results: Path, pages: Path, records: int = DEFAULT_RECORDS, turns: int = TURNS) -> None:
    folder = generated(Workload(records=records, shards=SHARDS), pages)
    by_turn = []
    for _ in range(turns):
        by_turn.append([measured_with(one, folder) for one in WORKERS])
        assert len({one.notes["rows"] for one in by_turn[-1]}) == 1, "the datasets differ"
    runs = list(zip(*by_turn, strict=True))
    write(results, "buckets", [one for of_one in runs for one in of_one], table_of(runs))


if __name__ == "__main__":
    asked = child_variant(sys.argv)
    if asked:
        report(child(asked[0], *asked[1]))
    else:
        main(RESULTS, PAGES, *map(int, sys.argv[1:]))
