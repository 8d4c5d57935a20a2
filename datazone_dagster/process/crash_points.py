"""Named points between the commits of the flow, where tests end the process.

In production `reach` does nothing. With `DATAZONE_CRASH_AT="after change log commit"` in the
environment, the process kills itself (SIGKILL) when it reaches that point; `"...#3"` means the
third time. Tests within one process install a hook instead
(`datazone_dagster.testing.crash_at`).
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

AFTER_READ = "after read"
AFTER_CHANGE_LOG_COMMIT = "after change log commit"
AFTER_CHECKPOINT_COMMIT = "after checkpoint commit"
BEFORE_CURSOR = "before cursor"
AFTER_QUARANTINE = "after quarantine"
AFTER_WIDENING = "after widening"
AFTER_TOMBSTONES = "after tombstones"
BEFORE_DATASET_COMMIT = "before dataset commit"
AFTER_DATA_FILES = "after data files"
AFTER_VECTORS = "after deletion vectors"
BEFORE_LOG_ENTRY = "before log entry"
AFTER_LOG_ENTRY = "after log entry"
AFTER_DATASET_COMMIT = "after dataset commit"
AFTER_REDRIVE_PIN = "after redrive pin"
BEFORE_SWAP = "before swap"
AFTER_SWAP = "after swap"
AFTER_RENUMBERING = "after renumbering"
AFTER_PAGES_READ = "after pages read"
AFTER_SCAN_COMMIT = "after scan commit"
AFTER_SNAPSHOT_STATE = "after snapshot state"
AFTER_ERASED_ROWS = "after erased rows"
AFTER_ERASED_LOG = "after erased log"
BEFORE_CLEANING = "before cleaning"

POINTS = (
    AFTER_READ,
    AFTER_CHANGE_LOG_COMMIT,
    AFTER_CHECKPOINT_COMMIT,
    BEFORE_CURSOR,
    AFTER_QUARANTINE,
    AFTER_WIDENING,
    AFTER_TOMBSTONES,
    BEFORE_DATASET_COMMIT,
    AFTER_DATA_FILES,
    AFTER_VECTORS,
    BEFORE_LOG_ENTRY,
    AFTER_LOG_ENTRY,
    AFTER_DATASET_COMMIT,
)
"""Points in the drain and in the runs."""

OPERATOR_POINTS = (
    AFTER_REDRIVE_PIN,
    BEFORE_SWAP,
    AFTER_SWAP,
    AFTER_ERASED_ROWS,
    AFTER_ERASED_LOG,
    BEFORE_CLEANING,
)
"""Points in commands that someone runs by hand."""


SNAPSHOT_POINTS = (
    AFTER_RENUMBERING,
    AFTER_PAGES_READ,
    AFTER_SCAN_COMMIT,
    AFTER_SNAPSHOT_STATE,
)
"""Points in a snapshot, and in a drain that lost the commit race to it."""


def killer(wanted: str) -> Callable[[str], None]:
    """Return a hook that kills the process at a point, `"after read"`, or its nth, `"...#2"`."""
    name, _, nth = wanted.partition("#")
    reached: Counter[str] = Counter()

    def kill(point: str) -> None:
        reached[point] += 1
        if point == name and reached[point] == int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


hook: Callable[[str], None] | None = (
    killer(os.environ["DATAZONE_CRASH_AT"]) if os.environ.get("DATAZONE_CRASH_AT") else None
)
"""Called with the name of each point that the flow reaches."""


def reach(point: str) -> None:
    """Report that the flow has reached `point`."""
    if hook is not None:
        hook(point)
