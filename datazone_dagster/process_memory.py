"""How much memory this process has in use, where the system tells it."""

from __future__ import annotations

import os
from pathlib import Path

_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """Resident memory of this process now; None where there is no `/proc`."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int | None:
    """The most resident memory that this process ever had; None where there is no `/proc`."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) << 10
