"""Announcement of a snapshot: one commit raises the epoch, and so fixes the positions.

Positions are a fold over the change log. Everything that landed before the commit has a lower
epoch than the scanned rows, everything after it has theirs, and a sequence number on top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import SnapshotState
from datazone_dagster.process import crash_points

ATTEMPTS = 30
"""Number of attempts at an announcement while drains commit to the same change log."""

Next = Callable[[SnapshotState | None, Checkpoint], SnapshotState]
"""Returns the announced state, given the state and the checkpoint that it follows."""


def announce(source: DynamoDBSource, layout: Layout, now: datetime, to: Next) -> SnapshotState:
    """Store an announced state, based on everything that landed before it.

    A drain that opened the change log before and commits after loses the commit race: its rows
    have the old epoch. The next drain lands them with the new one.

    Raises:
        ConcurrentWriterError: Drains committed first in every attempt.
        StorageError: The lakehouse can't be read or written.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        # The order matters: another drain may land and save a batch between the two.
        saved = CheckpointTable(layout, source.name).open_or_create()
        scan_log = ScanLog(ChangeLog(layout, source))
        log = ChangeLog(layout, source).open_or_create()
        if log.version == scan_log.version:
            state = to(log.snapshot, up_to_date(saved.checkpoint, log, now))
            state = replace(state, announced_batch=log.head)
            try:
                scan_log.move(log.snapshot, state, only_now=True)
            except ConcurrentWriterError:
                if not attempts_left:
                    raise
            else:
                crash_points.reach(crash_points.AFTER_SNAPSHOT_STATE)
                return state
    raise AssertionError("unreachable")
