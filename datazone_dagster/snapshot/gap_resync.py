"""Resync after a gap, without being asked: only within the budget that the source states."""

from __future__ import annotations

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.gap_acceptance import gap_notes, repair_gaps
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_report import UNIT_BYTES
from datazone_dagster.model.snapshot_state import Phase, SnapshotState
from datazone_dagster.model.table_scan import TableClient, TableDescription
from datazone_dagster.snapshot.requests import want_snapshot


def resync_after_gap(
    source: DynamoDBSource, layout: Layout, client: TableClient, *, clock: Clock = utc_now
) -> str:
    """Ask for a resync if a gap is open and the source allows it; return what was decided.

    Gaps that a complete snapshot has repaired are recorded first. A snapshot under way covers the
    gap already, or begins again by itself. After a resync that was given up, only a later gap asks
    for another one.

    Returns:
        Decision in words; empty if there is nothing to decide.

    Raises:
        SourceError: The table can't be described; nothing was asked for.
        StorageError: The lakehouse can't be read or written.
    """
    log = ChangeLog(layout, source.name).open()
    if log is None:
        return ""
    state = log.snapshot
    if state is not None:
        repair_gaps(source.name, layout, state, clock=clock)
    notes = [note for note in gap_notes(source.name, layout) if note.is_open]
    if source.on_gap == "stop" or not notes or _is_unfinished(state):
        return ""
    if state is not None and state.phase is Phase.CANCELLED:
        given_up_at = state.asked_at or state.raised_at
        if given_up_at is not None and all(note.detected_at <= given_up_at for note in notes):
            return "the resync of this gap was given up"
    too_much = over_budget(source, client.describe_table())
    if too_much:
        return too_much
    found_at = max(note.detected_at for note in notes)  # by the service: our clock may be behind
    want_snapshot(source.name, layout, "resync", clock=lambda: max(clock(), found_at))
    return "a resync was asked for, because changes were lost (on_gap)"


def over_budget(source: DynamoDBSource, table: TableDescription) -> str:
    """Return why a resync is over the budget of the source; empty if it is not."""
    items, units = source.resync_max_items, source.resync_max_read_units
    needed = table.size_bytes / UNIT_BYTES
    if items is not None and table.item_count > items:
        return (
            f"no resync starts by itself: the table has {table.item_count:,} items, and "
            f"resync_max_items is {items:,}"
        )
    if units is not None and needed > units:
        return (
            f"no resync starts by itself: it would take about {needed:,.0f} read units, and "
            f"resync_max_read_units is {units:,.0f}"
        )
    return ""


def _is_unfinished(state: SnapshotState | None) -> bool:
    return state is not None and state.phase not in (Phase.DONE, Phase.CANCELLED)
