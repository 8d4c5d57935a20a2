"""How much memory this process holds, for budgets that both stages keep."""

from __future__ import annotations

import ctypes
import os
import resource
import sys


def resident_bytes() -> int:
    """The memory of this process that is in RAM now; where only its peak is known, that."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def peak_bytes() -> int:
    """The most memory that this process ever had in RAM.

    From `/proc` where there is one: what `getrusage` tells there may be of the parent.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            return next(int(line.split()[1]) << 10 for line in status if line[:6] == b"VmHWM:")
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it for itself (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
