"""Intervals of checkpoints, and those in table properties, such as `interval 7 days`. Pure."""

from __future__ import annotations

import re
from datetime import timedelta

CHECKPOINT_EVERY = 6
"""Commits between two Delta checkpoints: opening a table replays the log since the last one."""

CHECKPOINT_INTERVAL = 20
"""The same for commits of other writers, and at most for ours on a table with many files."""

TRANSACTION_RETENTION = "delta.setTransactionRetentionDuration"
"""Table property: time after which a checkpoint drops application transactions that have a time."""

_INTERVAL = re.compile(
    r"(interval\s+)?(?P<count>\d{1,6})\s+(?P<unit>week|day|hour|minute|second)s?"
)


def interval_in(text: str) -> timedelta | None:
    """Return the time that a table property names; None if it is not understood."""
    match = _INTERVAL.fullmatch(text.strip().lower())
    return None if match is None else timedelta(**{match["unit"] + "s": int(match["count"])})
