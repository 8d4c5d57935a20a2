"""Buckets of a dataset as real processes: killed in the middle, frozen and woken, all at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, backlog, datasets_of_source
from datazone_dagster.process import crash_points
from tests.apply.test_buckets import Change, land, path_flow, rows_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]

OF = 4
BATCHES = 40
KEYS = 2000

WORKER = """
import sys, time
from tests.apply.test_buckets import BATCH, path_flow
from datazone_dagster.model.key_bucket import bucket_named
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, backlog
layout, bucket = Layout(sys.argv[1]), bucket_named(sys.argv[2])
while True:
    apply_transform(path_flow("d", bucket.of), layout, bucket=bucket, settings=BATCH)
    found = backlog("orders", "d", layout, bucket=bucket)
    if found.position >= int(sys.argv[3]):
        break
    time.sleep(0.05)
"""


@contextmanager
def worker(
    layout: Layout, bucket: KeyBucket, *, crash_at: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that applies a bucket, chunk by chunk, until it has every batch."""
    crash = {"DATAZONE_CRASH_AT": crash_at} if crash_at else {}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, layout.uri, bucket.name, str(BATCHES)],
        env={**os.environ, **crash},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def changes(batch: int) -> list[Change]:
    """Return the changes of a batch: every key in turn changes, is deleted and comes back."""
    keys = range(batch % 5, KEYS, 5)
    return [(key, None if (key + batch) % 4 == 0 else f"v{batch}") for key in keys]


def position(layout: Layout, bucket: KeyBucket) -> int:
    return backlog("orders", "d", layout, bucket=bucket).position


def wait_for_position(layout: Layout, bucket: KeyBucket, least: int) -> None:
    until = time.monotonic() + 120
    while position(layout, bucket) < least:
        assert time.monotonic() < until, f"{bucket.name} does not get on"
        time.sleep(0.05)


def test_buckets_at_once_with_one_killed_and_one_frozen(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, *(changes(batch) for batch in range(BATCHES)))
    killed, frozen, *others = key_buckets(OF)
    with (
        worker(layout, killed, crash_at=f"{crash_points.BEFORE_LOG_ENTRY}#5") as dying,
        worker(layout, frozen) as sleeping,
        worker(layout, others[0]) as first,
        worker(layout, others[1]) as second,
    ):
        assert dying.wait(120) == -signal.SIGKILL
        wait_for_position(layout, frozen, 3)
        sleeping.send_signal(signal.SIGSTOP)
        with worker(layout, frozen) as instead, worker(layout, killed) as again:
            assert [one.wait(150) for one in (instead, again, first, second)] == [0, 0, 0, 0]
        # All is applied: what the frozen process was about to commit must change nothing.
        rows = rows_of(layout, "d")
        sleeping.send_signal(signal.SIGCONT)
        assert sleeping.wait(60) == 0
    assert rows_of(layout, "d") == rows
    apply_transform(path_flow("whole"), layout)
    assert rows == rows_of(layout, "whole")
    assert datasets_of_source("orders", layout)["d"] == BATCHES


def test_two_numbers_of_buckets_and_a_run_of_all_keys_at_once(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, *(changes(batch) for batch in range(BATCHES)))
    with (
        worker(layout, KeyBucket(1, 2)) as first,
        worker(layout, KeyBucket(2, 2)) as second,
        worker(layout, KeyBucket(3, 4)) as quarter,
    ):
        assert [one.wait(200) for one in (first, second, quarter)] == [0, 0, 0]
    apply_transform(path_flow("whole"), layout)
    assert rows_of(layout, "d") == rows_of(layout, "whole")
