"""Report of a snapshot: plain facts for metadata, checks and logs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.model.snapshot_state import (
    NO_SWEEP,
    Phase,
    Reads,
    Reason,
    SnapshotState,
    Sweep,
)

PRICE_MILLION_UNITS = 0.125
"""Price of a million read request units of an on-demand table in us-east-1, in US dollars."""

UNIT_BYTES = 4096
"""Bytes that one read unit reads consistently."""


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """State of a snapshot, and how it goes on.

    Args:
        source: Name of the source.
        phase: Phase reached.
        reason: Why it is taken.
        epoch: Epoch of its rows; 0 before the announcement.
        rows: Rows scanned.
        bytes: Their size, in bytes.
        read_units: Read units consumed by the scan.
        segments: Number of segments of the scan; 0 before it begins.
        segments_done: Number of complete ones.
        item_count: Number of items of the table as the service last counted; None if not asked.
        table_bytes: Their size, in bytes.
        limit_units_per_second: Limit of the scan, in read units per second; None if not asked.
        rate_units_per_second: Rate at which the scan has read since it was started or continued;
            None before its first page.
        waits_for: What the snapshot waits for, in words; empty if it waits for nothing.
        began_again: Why it began again in this run; empty if it did not.
        sweep: Counts of the sweep.
        last_batch: Last batch that the snapshot landed.
        announced_at: Time of the announcement by the clock of the service, if it says.
        scanned_at: Time of the last page.
        done_at: Time of the handover.
        asked_at: Time at which someone last asked for it, or asked to go on.
        id: Id of the snapshot, new with each beginning.
        reads: What shows the items: a scan of the table, a full export, or incremental exports.
        export_after: Earliest time of which an export may show the state; None before the
            announcement.
        exports: ARNs of the exports that are read or were started.
        lost_from: Start of the lost window that incremental exports repair.
        shows_table: Whether the landed rows are all items of the table; incremental exports repair
            a gap of datasets that were so before, or not.
        given_up: As in `SnapshotState`.
    """

    source: str
    phase: Phase
    reason: Reason
    epoch: int
    rows: int
    bytes: int
    read_units: float
    segments: int
    segments_done: int
    item_count: int | None = None
    table_bytes: int | None = None
    limit_units_per_second: float | None = None
    rate_units_per_second: float | None = None
    waits_for: str = ""
    began_again: str = ""
    sweep: Sweep = NO_SWEEP
    last_batch: int = 0
    announced_at: datetime | None = None
    scanned_at: datetime | None = None
    done_at: datetime | None = None
    asked_at: datetime | None = None
    id: str = ""
    reads: Reads = "table"
    export_after: datetime | None = None
    exports: tuple[str, ...] = ()
    lost_from: datetime | None = None
    shows_table: bool = True
    given_up: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase in (Phase.DONE, Phase.CANCELLED)

    @property
    def consistent_since(self) -> datetime | None:
        """Time as of which the landed rows show the table; None before the handover."""
        return self.scanned_at if self.phase is Phase.DONE and self.shows_table else None

    @property
    def percent(self) -> float | None:
        """Share of the table that is scanned, 0 to 100; None if it is unknown.

        By segments where the service's count, which is hours old, says more than all of it.
        """
        if self.phase in (Phase.SCANNED, Phase.DONE):
            return 100.0
        if not self.item_count:
            return 100.0 * self.segments_done / self.segments if self.segments else None
        return min(99.0, 100.0 * self.rows / self.item_count)

    @property
    def estimated_read_units(self) -> float | None:
        """Read units of a consistent scan of the table; None if its size is unknown."""
        return None if self.table_bytes is None else self.table_bytes / UNIT_BYTES

    @property
    def estimated_price(self) -> float | None:
        """Price of a consistent scan of an on-demand table in us-east-1, in US dollars."""
        units = self.estimated_read_units
        return None if units is None else units * PRICE_MILLION_UNITS / 1e6

    @property
    def eta_seconds(self) -> float | None:
        """Time until the scan ends at its present rate, or its limit; None if it is unknown."""
        rate = self.rate_units_per_second or self.limit_units_per_second
        total = self.estimated_read_units
        if self.phase in (Phase.SCANNED, Phase.DONE, Phase.CANCELLED):
            return 0.0
        return None if total is None or not rate else max(0.0, total - self.read_units) / rate


def report_of(source: str, state: SnapshotState) -> SnapshotReport:
    """Return the report of a state, from the change log alone."""
    return SnapshotReport(
        source=source,
        phase=state.phase,
        reason=state.reason,
        epoch=state.epoch,
        rows=state.rows,
        bytes=state.bytes,
        read_units=state.read_units,
        segments=state.segments,
        segments_done=state.segments_done,
        sweep=state.sweep,
        last_batch=state.last_scan_batch,
        announced_at=state.raised_at,
        scanned_at=state.scanned_at,
        done_at=state.done_at,
        asked_at=state.asked_at,
        id=state.id,
        reads=state.reads,
        export_after=state.export_after,
        exports=state.exports,
        lost_from=state.lost_from,
        shows_table=state.reads != "windows" or state.was_consistent,
        given_up=state.given_up,
    )
