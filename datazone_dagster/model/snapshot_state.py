"""State of a snapshot: stored with the change log that the scanned rows land in.

A snapshot copies the table as it is into the change log. It goes through the phases in order:
`wanted`, `announced` (the epoch is raised: from here on drained changes win over scanned rows),
`scanning`, `scanned`, `done`. The only other way out is `cancelled`.
"""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from datazone_dagster.model.scan_segments import nth_segment
from datazone_dagster.model.snapshot_base import SnapshotBase

PROPERTY = "datazone.snapshot"
"""Table property of a change log that stores the state."""

SCAN_SHARD_ID = "snapshot"
"""Shard id of scanned rows in the change log. No shard has it: theirs begin with `shardId-`."""

SNAPSHOT_EVENT = "SNAPSHOT"
"""Event name of scanned rows."""

ABSENT = "resync_absent"
ABSENT_BY = "Snapshot"
"""Principal, and its type, of a delete by the sweep; the principal is also the cause."""

SETTLE = timedelta(seconds=60)
"""Time after the announcement that the drain must have passed before the scan begins."""

_TIMES = (
    "announced_at",
    "announced_served_at",
    "scan_started_at",
    "scanned_at",
    "done_at",
    "asked_at",
    "lost_from",
    "exported_from",
)

_CUT = timedelta(seconds=1)
"""The service cuts the time of a page to the second."""

EXPORT_SETTLE = timedelta(minutes=5)
"""Age of the newest write that an export may miss: point-in-time recovery is that far behind
(DescribeContinuousBackups, `LatestRestorableDateTime`)."""

Reason = Literal["start", "resync"]

Reads = Literal["table", "export", "windows"]
"""What shows the items: a scan of the table, a full export, or incremental exports of a gap."""


class Phase(enum.Enum):
    """Progress of a snapshot."""

    WANTED = "wanted"
    ANNOUNCED = "announced"
    SCANNING = "scanning"
    SCANNED = "scanned"
    DONE = "done"
    CANCELLED = "cancelled"


ACTIVE = (Phase.ANNOUNCED, Phase.SCANNING, Phase.SCANNED)
"""Phases in which the epoch is raised, and the snapshot not handed over yet."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Counts of the sweep: keys that no scan and no later change has shown.

    Args:
        checked: Keys that the table was asked for.
        deleted: Keys that it does not have: they are deleted from the datasets.
        present: Keys that it has: they land as scanned rows.
    """

    checked: int = 0
    deleted: int = 0
    present: int = 0


NO_SWEEP = Sweep()


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one commit of the scan lands.

    Args:
        resume: Segment and the key after which it continues; None: the segment is complete.
        rows: Number of rows.
        bytes: Size of the items, in bytes.
        read_units: Read capacity consumed, in units.
        at: Time of the last page, by the clock of the service.
    """

    resume: Mapping[int, str | None]
    rows: int
    bytes: int
    read_units: float
    at: datetime


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """A snapshot of the table of one source. Times are UTC.

    Args:
        id: Id of the snapshot, new with each attempt.
        reason: Why it is taken: the source is new, or a gap is repaired.
        phase: Progress.
        epoch: Epoch of the scanned rows and of everything drained after the announcement.
        announced_at: Time of the announcement.
        consistent_reads: Whether the scan reads consistently.
        segments: Number of segments of the scan.
        next_segment: Number of segments that were begun.
        open: Segments that were begun and are not complete, each with the key (DynamoDB JSON)
            after which it continues; None: it begins at its start.
        rows: Rows landed by the scan.
        bytes: Size of these items, in bytes.
        read_units: Read capacity consumed, in units.
        scan_started_at: Time at which the scan began.
        scanned_at: Time of the last page read, by the clock of the service.
        last_scan_batch: Number of the last batch that the snapshot landed.
        caught_up_batch: Head of the change log when the drain had passed `scanned_at`.
        sweep: Counts of the sweep.
        swept_through: Canonical key up to which the sweep is landed; it goes in order of the keys.
        done_at: Time of the handover.
        table_id: Id of the scanned table; empty if the service returns none.
        asked_at: Time at which someone last asked for it, or asked to go on; None: nobody did.
        reads: What shows the items.
        exports: ARNs of the exports that are read, in order; a requested one before it is read.
        lost_from: Start of the lost window that incremental exports repair.
        exported_from: Start of the first window of the incremental exports that are read.
        was_consistent: Whether the source's datasets were handed over before, so that they are
            consistent again once incremental exports have repaired them.
        given_up: Whether the last snapshot of the whole table was cancelled: incremental exports
            do not show the items that it did not read.
        announced_batch: Head of the change log at the announcement; None: not announced, or by an
            earlier version of the library.
        base: Latest snapshot of the whole table that was handed over; None: there is none.
        announced_served_at: Time of the announcement by the clock of the service, which the times
            of changes are by as well; None: the service did not say, or as `announced_batch`.
    """

    id: str
    reason: Reason = "start"
    phase: Phase = Phase.WANTED
    epoch: int = 0
    announced_at: datetime | None = None
    consistent_reads: bool = True
    segments: int = 0
    next_segment: int = 0
    open: Mapping[int, str | None] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    read_units: float = 0.0
    scan_started_at: datetime | None = None
    scanned_at: datetime | None = None
    last_scan_batch: int = 0
    caught_up_batch: int | None = None
    sweep: Sweep = NO_SWEEP
    swept_through: str = ""
    done_at: datetime | None = None
    table_id: str = ""
    asked_at: datetime | None = None
    reads: Reads = "table"
    exports: tuple[str, ...] = ()
    lost_from: datetime | None = None
    exported_from: datetime | None = None
    was_consistent: bool = False
    given_up: bool = False
    announced_batch: int | None = None
    base: SnapshotBase | None = None
    announced_served_at: datetime | None = None

    @property
    def as_base(self) -> SnapshotBase | None:
        """What a dataset can start from once, or before, this snapshot is handed over."""
        if self.announced_batch is None or self.announced_at is None or self.reads == "windows":
            return None
        repairs = self.reason == "resync"
        served_at = self.announced_served_at
        return SnapshotBase(self.announced_batch, self.epoch, self.announced_at, repairs, served_at)

    @property
    def raised_at(self) -> datetime | None:
        """Time of the announcement to compare with times of the service; None: not announced."""
        return self.announced_served_at or self.announced_at

    @property
    def is_active(self) -> bool:
        """Whether scanned rows may land, or landed before the handover."""
        return self.phase in ACTIVE

    @property
    def drain_must_pass(self) -> datetime | None:
        """Time up to which every change must be drained before the next phase; None: no such."""
        if self.phase is Phase.ANNOUNCED and self.raised_at is not None:
            return self.raised_at + SETTLE
        if self.phase is Phase.SCANNED and self.scanned_at is not None:
            return self.scanned_at + _CUT
        return None

    def is_broken_by(self, lost_until: datetime | None) -> bool:
        """Return whether changes were lost too late for the snapshot to show what they led to."""
        if lost_until is None or self.raised_at is None:
            return True
        return lost_until > self.raised_at

    @property
    def export_after(self) -> datetime | None:
        """Earliest time of which an export may show the state, in whole seconds.

        None before the announcement. Every change that was drained before the announcement is in
        such an export: no older row wins.
        """
        if self.raised_at is None:
            return None
        at = self.raised_at + EXPORT_SETTLE
        return at.replace(microsecond=0) + (_CUT if at.microsecond else timedelta(0))

    @property
    def segments_done(self) -> int:
        """Number of complete segments."""
        return self.next_segment - len(self.open)

    def to_json(self) -> str:
        """Return the text of the table property."""
        stored = {one.name: _stored(getattr(self, one.name)) for one in fields(self)}
        stored["base"] = None if self.base is None else self.base.to_json()
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SnapshotState:
        """Return the state in the table property; fields of later versions are ignored."""
        stored: dict[str, Any] = json.loads(text)
        known = {one.name: stored[one.name] for one in fields(cls) if one.name in stored}
        for name in _TIMES:
            known[name] = datetime.fromisoformat(known[name]) if known.get(name) else None
        known["exports"] = tuple(known.get("exports") or ())
        known["phase"] = Phase(known.get("phase", Phase.WANTED))
        known["open"] = {int(number): key for number, key in (known.get("open") or {}).items()}
        sweep = known.get("sweep") or {}
        known["sweep"] = Sweep(*(int(sweep.get(one.name, 0)) for one in fields(Sweep)))
        known["base"] = SnapshotBase.from_json(known["base"]) if known.get("base") else None
        return cls(**known)


def wanted(
    reason: Reason, after: SnapshotState | None = None, at: datetime | None = None
) -> SnapshotState:
    """Return the state of a snapshot that nothing was done for yet.

    Args:
        reason: Why it is taken.
        after: The snapshot before it, whose epoch stays raised, and which stays a base.
        at: Time at which someone asked for it.
    """
    epoch, base = (0, None) if after is None else (after.epoch, after.base)
    return SnapshotState(uuid.uuid4().hex, reason, epoch=epoch, asked_at=at, base=base)


def announced(
    state: SnapshotState,
    *,
    epoch: int,
    at: datetime,
    consistent_reads: bool,
    table_id: str,
    served_at: datetime | None = None,
) -> SnapshotState:
    """Return the state after the announcement, as a new attempt: nothing is scanned yet.

    Args:
        state: State before.
        epoch: Epoch above every earlier one of the source.
        at: Current time.
        consistent_reads: Whether the scan reads consistently.
        table_id: Id of the table.
        served_at: Current time by the clock of the service; None if it does not say.
    """
    return SnapshotState(
        wanted(state.reason).id,
        state.reason,
        Phase.ANNOUNCED,
        epoch,
        at,
        consistent_reads,
        table_id=table_id,
        asked_at=state.asked_at,
        reads=state.reads,
        lost_from=state.lost_from,
        was_consistent=state.was_consistent,
        given_up=state.given_up,
        base=state.base,
        announced_served_at=served_at,
    )


def scan_started(
    state: SnapshotState, *, segments: int, at: datetime, exports: Sequence[str] = ()
) -> SnapshotState:
    """Return the state at the start of the scan, or of the reading of exports."""
    return replace(
        state,
        phase=Phase.SCANNING,
        segments=segments,
        scan_started_at=at,
        exports=tuple(exports),
    )


def opened(state: SnapshotState, most: int) -> SnapshotState:
    """Return the state with the next segments begun, until `most` are open."""
    end = min(state.segments, state.next_segment + most - len(state.open))
    begun = [nth_segment(state.segments, number) for number in range(state.next_segment, end)]
    return replace(
        state,
        open={**state.open, **dict.fromkeys(begun)},
        next_segment=state.next_segment + len(begun),
    )


def landed(state: SnapshotState, scanned: Scanned) -> SnapshotState:
    """Return the state after a commit of the scan; the last one ends it."""
    complete = {number for number, key in scanned.resume.items() if key is None}
    still_open = {
        number: scanned.resume.get(number, key)
        for number, key in state.open.items()
        if number not in complete
    }
    reached = replace(
        state,
        open=still_open,
        rows=state.rows + scanned.rows,
        bytes=state.bytes + scanned.bytes,
        read_units=state.read_units + scanned.read_units,
        scanned_at=max(filter(None, (state.scanned_at, scanned.at))),
    )
    ended = not still_open and reached.next_segment == reached.segments
    return replace(reached, phase=Phase.SCANNED) if ended else reached


def caught_up(state: SnapshotState, head: int) -> SnapshotState:
    """Return the state after the drain has passed the end of the scan, at this head."""
    return replace(state, caught_up_batch=head)


def swept(state: SnapshotState, *, deleted: int, present: int, through: str) -> SnapshotState:
    """Return the state after a commit of the sweep, which has landed up to a canonical key."""
    sweep = Sweep(
        state.sweep.checked + deleted + present,
        state.sweep.deleted + deleted,
        state.sweep.present + present,
    )
    return replace(state, sweep=sweep, swept_through=through)


def done(state: SnapshotState, at: datetime) -> SnapshotState:
    """Return the state after the handover."""
    return replace(state, phase=Phase.DONE, done_at=at, base=state.as_base or state.base)


def cancelled(state: SnapshotState) -> SnapshotState:
    """Return the state of a snapshot that was given up; its epoch stays raised."""
    return replace(state, phase=Phase.CANCELLED, open={})


def _stored(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Phase):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Sweep):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(number): key for number, key in value.items()}
    return value
