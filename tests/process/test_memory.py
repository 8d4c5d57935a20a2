"""Freed memory that a drain needs again is not fetched from the system each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
from datazone_dagster.process.memory import release_memory, retain_freed_memory, resident_bytes

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        [bytearray(3 << 20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(1)
given_back = faults(20)
retain_freed_memory()
faults(1)
print(given_back, faults(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_pages_that_were_freed_are_used_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True
    )
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 20 * 2000
    assert kept < 2000
