"""Run one piece of work in a process of its own and measure it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

# PyArrow imports pandas with the first array, if it is installed: imports are not measured.
pa.array([0])

RESULTS = Path("benchmarks/results")
PAGES = Path(tempfile.gettempdir()) / "datazone-bench-pages"


@dataclass
class Measured:
    """Cost of a piece of work in this process, all threads included."""

    name: str
    records: int = 0
    body_bytes: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_mib: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def per_cpu_second(self) -> float:
        return self.records / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def per_second(self) -> float:
        return self.records / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def staged_share(self) -> float:
        """Share of the CPU time that is in a stage, if no stage is part of another one."""
        return sum(self.stages.values()) / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def cpu_seconds_per_million(self) -> float:
        return 1e6 * self.cpu_seconds / self.records if self.records else 0.0


@contextmanager
def measuring(measured: Measured) -> Iterator[None]:
    """Add the CPU and wall time of the block, and record the peak memory of the process so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    measured.cpu_seconds += time.process_time() - cpu
    measured.wall_seconds += time.perf_counter() - wall
    measured.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stages:
    """CPU seconds by stage: wraps functions of the flow while the block runs.

    Args:
        measured: Where the stages are added.
        of_process: Whether the CPU time of a function is that of the process, with the threads of
            DuckDB, Arrow and delta-rs: for flows that make one step at a time. Else it is that of
            the thread that runs the function, and stages may overlap.
    """

    def __init__(self, measured: Measured, *, of_process: bool = False) -> None:
        self._measured = measured
        self._lock = threading.Lock()
        self._seconds = time.process_time if of_process else time.thread_time
        # A step may be continued by another thread, while the one that began it waits.
        self._inside = SimpleNamespace() if of_process else threading.local()
        self._undo: list[tuple[object, str, object]] = []

    def wrap(self, owner: object, name: str, stage: str, *, alone: bool = False) -> None:
        """Count the CPU time of `owner.name` under `stage`.

        Args:
            owner: Module or class.
            name: Name of a function in the owner.
            stage: Name of the stage in the results.
            alone: Whether to exclude the time of other stages within this one.
        """
        function = getattr(owner, name)
        setattr(owner, name, self.timed(stage, function, alone=alone))
        self._undo.append((owner, name, function))

    def timed(
        self, stage: str, function: Callable[..., Any], *, alone: bool = False
    ) -> Callable[..., Any]:
        """Return the function, counted under `stage`."""
        stages = self._measured.stages

        def timed(*args: object, **kwargs: object) -> object:
            within: list[float] = self._inside.__dict__.setdefault("seconds", [])
            within.append(0.0)
            started = self._seconds()
            try:
                return function(*args, **kwargs)
            finally:
                took = self._seconds() - started
                others = within.pop()
                if within:
                    within[-1] += took
                with self._lock:
                    stages[stage] = stages.get(stage, 0.0) + took - (others if alone else 0.0)

        return timed

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, function in reversed(self._undo):
            setattr(owner, name, function)


def in_child(module: str, variant: str, *arguments: str) -> Measured:
    """Run `python -m module --child variant ...`, which calls `report`."""
    command = [sys.executable, "-m", module, "--child", variant, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def report(measured: Measured) -> None:
    """Print the result; a child does this last."""
    print(json.dumps(asdict(measured)))


def child_variant(argv: list[str]) -> tuple[str, list[str]] | None:
    """Return the variant and its arguments if this process is a child of `in_child`, else None."""
    return (argv[2], argv[3:]) if len(argv) > 2 and argv[1] == "--child" else None


def command_line(
    child: Callable[..., Measured], main: Callable[[Path, Path, int], object], default_records: int
) -> None:
    """Run `python -m benchmarks.<name>`: as a child of `in_child`, or the full benchmark.

    Args:
        child: Function of the variant and the paths that were passed to `in_child`.
        main: Function of the folder of results, the folder of pages and the number of records.
        default_records: Number of records unless the command line gives another one.
    """
    asked = child_variant(sys.argv)
    if asked:
        variant, arguments = asked
        report(child(variant, *map(Path, arguments)))
    else:
        main(RESULTS, PAGES, int(sys.argv[1]) if len(sys.argv) > 1 else default_records)


def markdown(title: str, rows: list[Measured], baseline: str | None = None) -> str:
    """Return a table of the results; `baseline` names the row that the others are compared with."""
    base = next((row for row in rows if row.name == baseline), None)
    lines = [
        f"### {title}",
        "",
        "| | records | CPU s per million | records per CPU s | records/s | MB/s | peak MiB | times |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = f"{row.per_cpu_second / base.per_cpu_second:.1f}" if base else ""
        megabytes = row.body_bytes / row.wall_seconds / 1e6 if row.wall_seconds else 0
        lines.append(
            f"| {row.name} | {row.records:,} | {row.cpu_seconds_per_million:.1f} | "
            f"{row.per_cpu_second:,.0f} | {row.per_second:,.0f} | {megabytes:.0f} | "
            f"{row.peak_mib:.0f} | {times} |"
        )
    staged = [row for row in rows if row.stages]
    for row in staged:
        lines += ["", f"Stages of {row.name}, CPU seconds per million records:", ""]
        lines += ["| stage | CPU s per million |", "|---|---:|"]
        lines += [
            f"| {stage} | {1e6 * seconds / row.records:.2f} |"
            for stage, seconds in sorted(row.stages.items(), key=lambda item: -item[1])
        ]
        if row.notes.get("stages_add_up"):
            lines += ["", f"Together they are {row.staged_share:.0%} of it."]
    return "\n".join([*lines, ""])


def write(folder: Path, name: str, rows: list[Measured], table: str) -> None:
    """Write the results as JSON and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    (folder / f"{name}.md").write_text(table)
    print(table)


def repeated(times: int, run: Callable[[], Measured]) -> Measured:
    """Return the run with the least CPU: a disturbance only ever adds to a measurement."""
    return min((run() for _ in range(times)), key=lambda one: one.cpu_seconds)
