"""Memory of this process, for the budgets of both stages, and the threads of Arrow."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

from datazone_dagster.process import container

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
"""Parameters of glibc's `mallopt` (malloc.h): `M_ARENA_MAX`, the number of pools that threads
allocate from; `M_MMAP_THRESHOLD`, the size in bytes above which a block is mapped separately and
returned when it is freed; `M_TRIM_THRESHOLD`, the free bytes at the end of a pool above which
they are returned."""

_POOL = "ARROW_DEFAULT_MEMORY_POOL"
"""Environment variable that names Arrow's allocator."""

_SMALL_ARENAS = 2
_SMALL_BLOCK_BYTES = 1 << 20

_LARGE_BLOCK_BYTES = 8 << 20
_RETAINED_BYTES = 16 << 20
"""More than a page of a drain takes with its columns."""

_RETURNED_BLOCK_BYTES = 128 << 10


def resident_bytes() -> int:
    """Return the resident memory of this process now, or its peak where only that is known."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def peak_bytes() -> int:
    """Return the highest resident memory that this process ever had.

    `/proc` is preferred where it exists: there, `getrusage` may report the parent's peak.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            return next(int(line.split()[1]) << 10 for line in status if line[:6] == b"VmHWM:")
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def release_memory() -> None:
    """Return freed memory that Arrow's allocator or the C library (glibc) retains.

    Both retain what other threads allocated: 100 MiB and more in a drain (measured, Python 3.14).
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:  # a process that has not loaded Arrow has nothing there
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def retain_freed_memory() -> None:
    """Let glibc retain freed memory for later allocations, 16 MiB a pool. Process-wide.

    Each page of a drain allocates and frees the same few MiB. Returning them to the system and
    fetching them again costs 5 to 9 % of the drain's CPU (measured). `release_memory` still works.
    """
    if sys.platform == "linux":
        limit = getattr(ctypes.CDLL(None), "mallopt", None)
        if limit is not None:
            limit(_TRIM_THRESHOLD, _RETAINED_BYTES)
            limit(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def return_freed_memory() -> None:
    """Let glibc map blocks from 128 KiB on separately, and return them when freed. Process-wide.

    For a drain with little memory. In glibc's pools the pages of a stream leave holes between small
    blocks that stay, which `release_memory` can't return: 150 MiB of 380 (measured).
    """
    if sys.platform == "linux":
        limit = getattr(ctypes.CDLL(None), "mallopt", None)
        if limit is not None:
            limit(_TRIM_THRESHOLD, _RETURNED_BLOCK_BYTES)
            limit(_MMAP_THRESHOLD, _RETURNED_BLOCK_BYTES)


def reuse_arrow_memory() -> None:
    """Let Arrow allocate by jemalloc, where it has it. Process-wide.

    Its default allocator (mimalloc) returns more of the freed memory to the system and fetches it
    again: that costs a drain 30 MiB, and 1 to 8 % of its CPU, most on a busy machine (measured,
    pyarrow 26). Runs gain nothing by it. Arrow's environment variable decides where it is set.
    """
    import pyarrow as pa

    if _POOL not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def release_memory_at_once() -> None:
    """Return freed memory to the system at once from now on, at some cost of speed.

    Process-wide. Arrow's default allocator (mimalloc) and glibc otherwise retain the peak
    of each of their threads: 100 to 200 MiB in a run (measured).
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


def bound_arrow_threads() -> None:
    """Give Arrow no more threads to compute with than `container.usable_cores`. Process-wide.

    It knows the cores that this process may run on, but no quota. Fewer threads stay as few.
    """
    import pyarrow as pa

    if pa.cpu_count() > container.usable_cores():
        pa.set_cpu_count(container.usable_cores())
