"""Whether a dataset has every change, and after a snapshot every item, of its DynamoDB table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.model.checkpoint import GapNote
from datazone_dagster.model.report import Gap
from datazone_dagster.model.scan_facts import ScanFacts
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.observe.health import describe_gaps, missing_seconds, ways_out
from datazone_dagster.observe.level import Level


@dataclass(frozen=True, slots=True)
class Completeness:
    """Result of the `complete` check of a dataset.

    Args:
        level: Severity.
        reason: Reason in words.
        gaps: Number of open gaps of the source.
        missing_seconds: Length of the gaps, in seconds.
        consistent: Whether the dataset shows every item of the table; None without a snapshot.
        consistent_since: Time since which it does.
        states_unknown: Time spans of a history in which states are unknown, because a resync
            repaired a loss of changes; empty without any.
    """

    level: Level
    reason: str
    gaps: int = 0
    missing_seconds: float = 0.0
    consistent: bool | None = None
    consistent_since: datetime | None = None
    states_unknown: str = ""


def completeness(
    source: str, gaps: Sequence[Gap], snapshot: SnapshotReport | None = None, position: int = 0
) -> Completeness:
    """Return an error while the source has open gaps, a warning before a snapshot's handover.

    Args:
        source: Name of the source.
        gaps: Gaps that nobody accepted or repaired.
        snapshot: The last snapshot of the source; None if there never was one.
        position: Last batch that the dataset has applied.
    """
    consistent: bool | None = None
    since: datetime | None = None
    only_windows = snapshot is not None and not snapshot.shows_table and snapshot.is_over
    if snapshot is not None and only_windows and not snapshot.given_up:
        # Incremental exports repair a gap; they don't say that the dataset has every item.
        snapshot = None if position >= snapshot.last_batch else snapshot
    if snapshot is not None:
        is_applied = snapshot.phase is Phase.DONE and position >= snapshot.last_batch
        consistent = is_applied and not only_windows
        since = snapshot.consistent_since if consistent else None
    if gaps:
        return Completeness(
            Level.ERROR,
            f"{describe_gaps(gaps)} {ways_out(source)}",
            len(gaps),
            missing_seconds(gaps),
            consistent,
            since,
        )
    if snapshot is None:
        return Completeness(Level.OK, "Its source has no open gap.")
    if since is not None:
        reason = f"Consistent with the table since {since:%Y-%m-%d %H:%M:%S} UTC."
        return Completeness(Level.OK, reason, consistent=True, consistent_since=since)
    return Completeness(Level.WARN, _not_yet(source, snapshot), consistent=False)


def states_unknown(notes: Iterable[GapNote]) -> str:
    """Return the time spans whose changes were lost for good, although a resync came after them."""
    spans = [
        f"{_time(note.gap.since)} to {_time(note.gap.until)} ({note.accepted_by})"
        for note in notes
        if note.is_repaired
    ]
    return "; ".join(dict.fromkeys(spans))


def _time(time: datetime | None) -> str:
    return "an unknown time" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


PHASES = {
    Phase.WANTED: "has not begun",
    Phase.ANNOUNCED: "is announced and reads the items once the drain is far enough",
    Phase.SCANNING: "reads the items",
    Phase.SCANNED: "has read the items and compares the keys",
    Phase.DONE: "is complete, but this dataset has not applied all of it",
    Phase.CANCELLED: "was cancelled",
}


def completeness_of_scan(table_name: str, scan: ScanFacts | None) -> Completeness:
    """Return the status of a dataset without a stream: consistent since its scan began.

    Args:
        table_name: Name of the table.
        scan: Scan that the rows are from; None before the first one.
    """
    if scan is None:
        reason = f"Table {table_name!r} was not scanned to its end yet: the dataset has no rows."
        return Completeness(Level.WARN, reason, consistent=False)
    return Completeness(
        Level.OK,
        f"Every item as it was at some time from {scan.started_at:%Y-%m-%d %H:%M:%S} to "
        f"{scan.ended_at:%Y-%m-%d %H:%M:%S} UTC, by a scan with consistent reads.",
        consistent=True,
        consistent_since=scan.started_at,
    )


def _not_yet(source: str, snapshot: SnapshotReport) -> str:
    if snapshot.given_up:
        return (
            f"The snapshot of source {source!r} was cancelled, and the incremental exports that "
            "were read since show only what changed in their windows. Items that have not changed "
            "since may be missing, and deleted ones may still be there: `datazone-dagster resync "
            f"{source}` takes a new snapshot."
        )
    rows = f" ({snapshot.rows:,} rows so far)" if snapshot.rows else ""
    return (
        f"The snapshot of source {source!r} {PHASES[snapshot.phase]}{rows}. Items that have not "
        "changed meanwhile may be missing, and deleted ones may still be there; every change that "
        "the stream has shown is applied as usual."
    )
