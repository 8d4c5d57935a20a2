"""Run one piece of work in a process of its own, and say what it took."""

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
from typing import Any

import pyarrow as pa

# With the first array PyArrow imports pandas, where it is installed: imports are not measured.
pa.array([0])

RESULTS = Path("benchmarks/results")
PAGES = Path(tempfile.gettempdir()) / "datazone-bench-pages"


@dataclass
class Measured:
    """What a piece of work took: this process, all its threads."""

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
    def cpu_seconds_per_million(self) -> float:
        return 1e6 * self.cpu_seconds / self.records if self.records else 0.0


@contextmanager
def measuring(measured: Measured) -> Iterator[None]:
    """Add the CPU and wall time of the block, and note the process's peak so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    measured.cpu_seconds += time.process_time() - cpu
    measured.wall_seconds += time.perf_counter() - wall
    measured.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stages:
    """CPU seconds by stage: wraps functions of the flow for as long as the block lasts.

    Counted is the thread that the function runs in, so stages may overlap.
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._lock = threading.Lock()
        self._inside = threading.local()
        self._undo: list[tuple[object, str, object]] = []

    def wrap(self, owner: object, name: str, stage: str, *, alone: bool = False) -> None:
        """Count what `owner.name` takes under `stage`.

        Args:
            owner: A module or class.
            name: Of a function in it.
            stage: Shown.
            alone: Without what other stages take within it.
        """
        function = getattr(owner, name)
        setattr(owner, name, self.timed(stage, function, alone=alone))
        self._undo.append((owner, name, function))

    def timed(
        self, stage: str, function: Callable[..., Any], *, alone: bool = False
    ) -> Callable[..., Any]:
        """The function, counted under `stage`."""
        stages = self._measured.stages

        def timed(*args: object, **kwargs: object) -> object:
            within: list[float] = self._inside.__dict__.setdefault("seconds", [])
            within.append(0.0)
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - started
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
    """The last thing that a child does."""
    print(json.dumps(asdict(measured)))


def child_variant(argv: list[str]) -> tuple[str, list[str]] | None:
    """The variant and its arguments, if this process is a child of `in_child`."""
    return (argv[2], argv[3:]) if len(argv) > 2 and argv[1] == "--child" else None


def command_line(
    child: Callable[..., Measured], main: Callable[[Path, Path, int], object], default_records: int
) -> None:
    """What `python -m benchmarks.<name>` does: a child of `in_child`, or all of it.

    Args:
        child: Given the variant, and the paths that `in_child` was given.
        main: Given the folders of results and of pages, and how many records.
        default_records: Unless the command line says another number.
    """
    asked = child_variant(sys.argv)
    if asked:
        variant, arguments = asked
        report(child(variant, *map(Path, arguments)))
    else:
        main(RESULTS, PAGES, int(sys.argv[1]) if len(sys.argv) > 1 else default_records)


def markdown(title: str, rows: list[Measured], baseline: str | None = None) -> str:
    """A table of what was measured; `baseline` is the row that the others are compared with."""
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
        lines += ["", f"Of {row.name}, CPU seconds per million records:", ""]
        lines += ["| stage | CPU s per million |", "|---|---:|"]
        lines += [
            f"| {stage} | {1e6 * seconds / row.records:.2f} |"
            for stage, seconds in sorted(row.stages.items(), key=lambda item: -item[1])
        ]
    return "\n".join([*lines, ""])


def write(folder: Path, name: str, rows: list[Measured], table: str) -> None:
    """Results as JSON and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    (folder / f"{name}.md").write_text(table)
    print(table)


def repeated(times: int, run: Callable[[], Measured]) -> Measured:
    """The run with the least CPU: what disturbs a measurement only ever adds to it."""
    return min((run() for _ in range(times)), key=lambda one: one.cpu_seconds)
