"""How much memory this process holds, for budgets that both stages keep."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
"""glibc's `M_ARENA_MAX`, the pools that threads allocate from; `M_MMAP_THRESHOLD`, the bytes from
which on a block is mapped by itself and goes back when it is freed; and `M_TRIM_THRESHOLD`, the
free bytes at the end of a pool from which on they go back (malloc.h)."""

_SMALL_ARENAS = 2
_SMALL_BLOCK_BYTES = 1 << 20

_LARGE_BLOCK_BYTES = 8 << 20
_KEPT_BYTES = 16 << 20
"""More than a page of a drain with its columns takes."""


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


def release_memory() -> None:
    """Return freed memory to the system, where the C library keeps it for itself (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def retain_freed_memory() -> None:
    """From now on, freed memory is kept for what needs it next, 16 MiB a pool (glibc).

    For the whole process. Page after page of a drain takes and frees the same few MiB: given back
    and fetched each time, that is 5 to 9 % of its CPU (measured). `release_memory` still works.
    """
    if sys.platform == "linux":
        limit = getattr(ctypes.CDLL(None), "mallopt", None)
        if limit is not None:
            limit(_TRIM_THRESHOLD, _KEPT_BYTES)
            limit(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def release_memory_at_once() -> None:
    """From now on, memory that is freed goes back to the system, at some cost of speed.

    For the whole process. Arrow's usual allocator (mimalloc) and glibc keep what any of their
    threads ever needed at once: 100 to 200 MiB in a run (measured).
    """
    import pyarrow as pa

    if "jemalloc" in pa.supported_memory_backends():
        pa.jemalloc_set_decay_ms(0)
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    if sys.platform == "linux":
        limit = getattr(ctypes.CDLL(None), "mallopt", None)
        if limit is not None:
            limit(_ARENA_MAX, _SMALL_ARENAS)
            limit(_MMAP_THRESHOLD, _SMALL_BLOCK_BYTES)
