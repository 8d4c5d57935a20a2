"""Requests of people and of other code: ask for a snapshot, give it up, look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.scan_log import ScanLog
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.errors import SnapshotError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_report import SnapshotReport, report_of
from datazone_dagster.model.snapshot_state import (
    ACTIVE,
    Phase,
    Reads,
    Reason,
    SnapshotState,
    cancelled,
    wanted,
)
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.snapshot.rate import units_per_second


@converts_errors("Asking for a snapshot")
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


@converts_errors("Asking for exports")
def want_exports(
    source_name: str, layout: Layout, *, lost_from: datetime | None = None
) -> SnapshotState:
    """Ask for a snapshot that reads exports in place of a scan; return the state.

    A snapshot that waits for its scan reads exports from now on. One that reads exports already
    stays as it is.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        lost_from: Start of a lost window, which incremental exports repair; None: one full export
            shows the whole table.

    Raises:
        SnapshotError: A snapshot of another kind is under way.
        StorageError: There is no change log, or it can't be read or written.
    """
    reads: Reads = "export" if lost_from is None else "windows"
    scan_log = ScanLog(ChangeLog(layout, source_name))
    state = scan_log.state
    is_over = state is None or state.phase in (Phase.DONE, Phase.CANCELLED)
    if state is not None and not is_over:
        if state.reads == reads:
            return state
        waits = state.reads == "table" and state.phase in (Phase.WANTED, Phase.ANNOUNCED)
        if not waits or reads == "windows":
            raise _under_way(source_name, state)
        after = replace(state, reads=reads)
    else:
        after = replace(
            wanted("start" if state is None else "resync", state),
            reads=reads,
            lost_from=lost_from,
            was_consistent=_is_consistent(state),
            given_up=_is_given_up(state),
        )
    scan_log.move(state, after)
    return after


def _is_consistent(state: SnapshotState | None) -> bool:
    """Return whether the datasets of the source were handed over with the items of the table.

    Incremental exports repair what was lost; they show no item that never changed meanwhile.
    """
    if state is None or state.phase is not Phase.DONE:
        return False
    return state.reads != "windows" or state.was_consistent


def _is_given_up(state: SnapshotState | None) -> bool:
    if state is None:
        return False
    if state.reads == "windows":
        return state.given_up
    return state.phase is Phase.CANCELLED


def note_exports(
    source_name: str, layout: Layout, arns: Sequence[str], *, attempt: str = ""
) -> SnapshotState:
    """Store the ARNs of exports that were started for an announced snapshot; return the state.

    A process that dies then waits for the same ones instead of paying for others.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        arns: ARNs of the exports, in order.
        attempt: New id of the snapshot, for another attempt at its exports; empty: it stays.

    Raises:
        StorageError: The change log can't be read or written.
    """
    scan_log = ScanLog(ChangeLog(layout, source_name))
    state = scan_log.state
    assert state is not None  # announced
    after = replace(state, exports=tuple(arns), id=attempt or state.id)
    scan_log.move(state, after)
    return after


def _under_way(source_name: str, state: SnapshotState) -> SnapshotError:
    reads = {
        "table": "scans the table",
        "export": "reads a full export",
        "windows": "reads incremental exports of a lost window",
    }
    return SnapshotError(
        f"A snapshot of source {source_name!r} is under way, and it {reads[state.reads]} (phase "
        f"{state.phase.value}, {state.rows:,} rows landed).",
        safe="Nothing was changed.",
        hint=f"Let it end first, or cancel it: datazone-dagster resync {source_name} --cancel.",
    )


@converts_errors("Planning a snapshot")
def plan_snapshot(source: DynamoDBSource, layout: Layout, client: TableClient) -> SnapshotReport:
    """Return what asking for a snapshot now means: the one under way, or a new one, and its size.

    Nothing is written, and no item is read.

    Raises:
        SourceError: The table can't be described.
        StorageError: There is no change log, or it can't be read.
    """
    state = ScanLog(ChangeLog(layout, source)).state
    if state is None or state.phase in (Phase.DONE, Phase.CANCELLED):
        state = wanted("resync", state)
    table = client.describe_table()
    return replace(
        report_of(source.name, state),
        item_count=table.item_count,
        table_bytes=table.size_bytes,
        limit_units_per_second=units_per_second(table, source.snapshot_rcu),
    )


@converts_errors("Cancelling a snapshot")
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


@converts_errors("Looking at a snapshot")
def snapshot_status(source_name: str, layout: Layout) -> SnapshotReport | None:
    """Return the snapshot of a source from its change log alone; None if there never was one.

    Raises:
        StorageError: The change log can't be read.
    """
    log = ChangeLog(layout, source_name).open()
    state = None if log is None else log.snapshot
    return None if state is None else report_of(source_name, state)
