"""Requests of people and of other code: ask for a snapshot, give it up, look at it."""

from __future__ import annotations

from dataclasses import replace

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_report import SnapshotReport, report_of
from datazone_dagster.model.snapshot_state import (
    ACTIVE,
    Phase,
    Reason,
    SnapshotState,
    cancelled,
    wanted,
)


def want_snapshot(
    source_name: str, layout: Layout, reason: Reason, *, clock: Clock = utc_now
) -> SnapshotState:
    """Ask for a new snapshot, or for the one that is wanted or under way to go on.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        reason: Why a new one is taken.
        clock: Source of the current time.

    Returns:
        State of the new snapshot, or of the one that goes on.

    Raises:
        StorageError: There is no change log, or it can't be read or written.
    """
    scan_log = ScanLog(ChangeLog(layout, source_name))
    state = scan_log.state
    if state is not None and (state.phase is Phase.WANTED or state.phase in ACTIVE):
        after = replace(state, asked_at=clock())
    else:
        after = wanted(reason, state, clock())
    scan_log.move(state, after)
    return after


def cancel_snapshot(source_name: str, layout: Layout) -> SnapshotState | None:
    """Give a snapshot up for good; return the state, None if there is none.

    Rows that it landed stay. A process that scans notices with its next commit.

    Raises:
        StorageError: There is no change log, or it can't be read or written.
    """
    scan_log = ScanLog(ChangeLog(layout, source_name))
    state = scan_log.state
    if state is None or state.phase in (Phase.DONE, Phase.CANCELLED):
        return state
    after = cancelled(state)
    scan_log.move(state, after)
    return after


def snapshot_status(source_name: str, layout: Layout) -> SnapshotReport | None:
    """Return the snapshot of a source from its change log alone; None if there never was one.

    Raises:
        StorageError: The change log can't be read.
    """
    log = ChangeLog(layout, source_name).open()
    state = None if log is None else log.snapshot
    return None if state is None else report_of(source_name, state)
