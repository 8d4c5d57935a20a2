"""What a drain needs in memory is bounded by its budget, whatever waits in the stream.

Read from a real process: its highest resident memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET_MIB = 512


@pytest.mark.parametrize(
    ("kind", "megabytes"),
    [
        ("a day of small changes", 600),
        ("a burst of the largest items", 600),
        ("one key a million times", 120),
    ],
)
def test_a_backlog_is_drained_within_the_memory_budget(
    tmp_path: Path, kind: str, megabytes: int
) -> None:
    command = [sys.executable, "-m", "tests.landing.backlog", kind, str(megabytes)]
    done = subprocess.run(
        [*command, str(BUDGET_MIB), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["records"] == told["expected"]
    assert told["peak_mib"] < BUDGET_MIB
    assert told["batches"] >= 2
