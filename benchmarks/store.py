"""Requests and time of ticks, runs and checks on an S3 store, near and 30 ms away.

    python -m benchmarks.store

A real S3 server on this machine (versitygw), behind a proxy that counts and delays each request. The
tables have one commit, and two thousand. Each line is the median of some repetitions in a process
that has run before; `cold` is the first tick of a process.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from dagster import DagsterInstance

from benchmarks.measure import RESULTS
from datazone_dagster.model.layout import Layout
from tests.store.proxy import Proxy, proxy_for
from tests.store.servers import (
    ACCESS_KEY,
    BUCKET,
    MISSING,
    REGION,
    SECRET_KEY,
    s3_server,
    versitygw,
)
from tests.store.test_budgets import COMMITS, new_process, warmed_up
from tests.store.test_run_budgets import EVERY_BATCH, World

REPEATED = 5

Row = dict[str, int | float | str]


class Lines:
    """Measured lines: each a number of requests and a time.

    Args:
        proxy: Proxy in front of the store.
        commits: Commits of each table.
    """

    def __init__(self, proxy: Proxy, commits: int) -> None:
        self._proxy = proxy
        self._commits = commits
        self.rows: list[Row] = []

    def add(
        self,
        name: str,
        measured: Callable[[], object],
        prepare: Callable[[], object] = lambda: None,
        repeated: int = REPEATED,
    ) -> None:
        """Measure a piece of work without delay and with 30 ms a request."""
        for delay in (0, 30):
            requests, took = [], []
            for _ in range(repeated):
                prepare()
                with self._proxy.delayed(delay), self._proxy.counted() as counts:
                    started = time.perf_counter()
                    measured()
                    took.append(time.perf_counter() - started)
                requests.append(len(counts))
            row: Row = {
                "line": name,
                "commits": self._commits,
                "delay_ms": delay,
                "requests": int(median(requests)),
                "seconds": round(median(took), 3),
            }
            print(row, flush=True)
            self.rows.append(row)


@contextmanager
def lakehouse(proxy: Proxy) -> Iterator[Layout]:
    """Yield an empty lakehouse behind the proxy."""
    yield Layout(
        f"s3://{BUCKET}/{uuid.uuid4().hex}",
        {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ALLOW_HTTP": "true",
        },
    )


def ticks(proxy: Proxy, commits: int) -> list[Row]:
    """Return the lines of a sensor with two datasets."""
    lines = Lines(proxy, commits)
    with lakehouse(proxy) as layout, DagsterInstance.ephemeral() as instance:
        location = warmed_up(layout, instance, commits)
        number = iter(range(1, 1000))

        def land() -> None:
            location.apply()
            for _ in range(20):
                location.put(next(number))

        lines.add("idle sensor tick", location.tick)
        lines.add("landing sensor tick, 20 changes", location.tick, land)
        lines.add("first tick of a process", location.tick, new_process, repeated=3)
    return lines.rows


def runs(proxy: Proxy, commits: int) -> list[Row]:
    """Return the lines of runs that merge into ten files with deletion vectors."""
    lines = Lines(proxy, commits)
    with lakehouse(proxy) as layout:
        world = World(layout, commits)

        def three() -> None:
            for _ in range(3):
                world.change()

        lines.add("run with one merge into 10 files", world.run, world.change)
        lines.add("run with three merges", lambda: world.run(EVERY_BATCH), three)
    return lines.rows


def main(results: Path) -> None:
    """Measure everything, print it and write it to `results`."""
    program = versitygw()
    if program is None:
        sys.exit(MISSING)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        s3_server(program, Path(folder)) as address,
        proxy_for(address) as proxy,
    ):
        for commits in (1, COMMITS):
            rows += ticks(proxy, commits)
            rows += runs(proxy, commits)
    results.mkdir(exist_ok=True)
    (results / "store.json").write_text(json.dumps(rows, indent=1) + "\n")
    (results / "store.md").write_text(table(rows))


def table(rows: list[Row]) -> str:
    """Return the rows as a table in Markdown."""
    names = ("line", "commits", "delay_ms", "requests", "seconds")
    lines = [names, ("---", *["---:"] * (len(names) - 1))]
    lines += [tuple(str(row[name]) for name in names) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main(RESULTS)
