"""Limits of this process: memory and CPU, as its container (cgroup, version 1 or 2) sets them."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

from datazone_dagster.model.memory_budget import MemoryBudget

_logger = logging.getLogger("datazone_dagster")
_ROOT = Path("/")


@functools.cache
def memory_limit_bytes() -> int | None:
    """Return the memory that this process may take: of its container, or of the machine.

    None if neither is known. Read once per process.
    """
    limits = [one for one in (container_memory_bytes(), _machine_bytes()) if one is not None]
    return min(limits, default=None)


@functools.cache
def usable_cores() -> int:
    """Return the cores that this process may use, at least 1. Read once per process.

    A quota of CPU time lets all threads run at once and then stops them all for the rest of each
    period: more threads than the quota are only more memory.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = container_cores()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


_reported: set[str] = set()


def reported(budget: MemoryBudget, logger: logging.Logger | None = None) -> MemoryBudget:
    """Return a memory budget; log what a person should know of it, once per process.

    Args:
        budget: The budget.
        logger: Logger of the run or of the tick; None: that of the package.
    """
    if budget.note and budget.note not in _reported:
        _reported.add(budget.note)
        level = logging.WARNING if budget.is_too_large else logging.INFO
        (logger or _logger).log(level, "%s", budget.note)
    return budget


def container_memory_bytes(root: Path = _ROOT) -> int | None:
    """Return the smallest memory limit of the cgroups that this process is in, None without one.

    Args:
        root: Root of the file system.
    """
    texts = [*_texts(root, "", "memory.max"), *_texts(root, "memory", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min(limits, default=None)


def container_cores(root: Path = _ROOT) -> float | None:
    """Return the smallest CPU quota of the cgroups that this process is in, in cores."""
    quotas = [text.split() for text in _texts(root, "", "cpu.max")]
    quotas += [
        [quota, period]
        for quota, period in zip(
            _texts(root, "cpu", "cpu.cfs_quota_us"),
            _texts(root, "cpu", "cpu.cfs_period_us"),
            strict=False,
        )
    ]
    shares = [
        int(one[0]) / int(one[1])
        for one in quotas
        if len(one) == 2 and one[0].isdecimal() and one[1].isdecimal() and int(one[1])
    ]
    return min(shares, default=None)


def _texts(root: Path, controller: str, name: str) -> Iterator[str]:
    """Yield a file's text in each cgroup of this process, innermost first.

    Within a container the path of its cgroup is often one of the host, which is not mounted: the
    container's own files are then at the top.

    Args:
        root: Root of the file system.
        controller: Controller of version 1; empty for version 2, which has one hierarchy.
        name: Name of the file.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, group = line.partition(":")
        controllers, colon, path = group.partition(":")
        if not colon or controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        if controller and not mount.is_dir():
            mount = root / "sys/fs/cgroup" / controller
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(mount):
                return
            text = _read(folder / name).strip()
            if text:
                yield text


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "surrogateescape")  # a cgroup's name may be any bytes
    except OSError:  # not Linux, or no such controller
        return ""


def _machine_bytes() -> int | None:
    try:
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not known here
        return None
    return pages * page_bytes if pages > 0 < page_bytes else None  # -1: not known either
