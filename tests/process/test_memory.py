"""Freed memory is reused by a drain instead of being fetched from the system each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
from datazone_dagster.process.memory import retain_freed_memory, return_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        [bytearray(3 << 20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(1)
released = faults(20)
retain_freed_memory()
faults(1)
retained = faults(20)
return_freed_memory()
faults(1)
print(released, retained, faults(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_pages_are_reused_or_returned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True
    )
    released, retained, returned = map(int, done.stdout.split())
    assert released > 20 * 2000
    assert retained < 2000
    assert returned > 20 * 2000
