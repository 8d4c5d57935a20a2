"""Gaps of a source: the recorded ones, and the acceptance of open ones.

Lost changes can't be landed any more. The checks of the source and of its datasets fail until
someone confirms that the datasets were repaired, or may stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date, with_open
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.errors import ConcurrentWriterError, DefinitionError
from datazone_dagster.model.checkpoint import REPAIRED_BY, GapNote, ShardCheckpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.snapshot_state import Phase, SnapshotState
from datazone_dagster.process import crash_points

ATTEMPTS = 10
"""Number of attempts at one acceptance while drains commit to the same checkpoint."""


@converts_errors("Looking for gaps")
def gap_notes(source_name: str, layout: Layout) -> tuple[GapNote, ...]:
    """Return every gap of a source, accepted or not, oldest first.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    log = ChangeLog(layout, source_name).open()
    saved = CheckpointTable(layout, source_name).open()
    stored = () if log is None else log.gaps
    if saved is None or not saved.checkpoint.shards:
        return stored
    current = with_open(saved.checkpoint, stored).gap_notes()
    known = {(note.gap.shard_id, note.detected_at) for note in current}
    earlier = [n for n in stored if not n.is_open and (n.gap.shard_id, n.detected_at) not in known]
    return tuple(sorted((*earlier, *current), key=lambda note: note.detected_at))


@converts_errors("Accepting gaps")
def accept_gaps(
    source_name: str,
    layout: Layout,
    *,
    by: str,
    why: str,
    shard_ids: Collection[str] = (),
    clock: Clock = utc_now,
) -> tuple[GapNote, ...]:
    """Accept open gaps: from then on the datasets of the source count as complete.

    Safe while a drain is running. The acceptance is recorded in the checkpoint first, then in the
    change log. If this process dies in between, the next drain updates the change log.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        by: Person who accepts the gaps.
        why: Reason for the acceptance.
        shard_ids: Shards whose gaps are accepted; all open gaps if empty.
        clock: Source of the current time.

    Returns:
        Notes of the accepted gaps.

    Raises:
        DefinitionError: No such gap is open, or `by` or `why` is empty.
        ConcurrentWriterError: Drains committed first in every attempt.
        StorageError: The lakehouse can't be read or written.
    """
    if not by.strip() or not why.strip():
        raise DefinitionError(
            "A gap is accepted by someone, for a reason.", hint="State who accepts it, and why."
        )
    for attempt in range(ATTEMPTS):
        try:
            return _accepted(source_name, layout, by.strip(), why.strip(), shard_ids, clock())
        except ConcurrentWriterError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def repair_gaps(
    source_name: str, layout: Layout, snapshot: SnapshotState, *, clock: Clock = utc_now
) -> tuple[GapNote, ...]:
    """Record the open gaps that a complete snapshot has repaired: those from before it began.

    The notes carry the id of the snapshot. Safe at any time, and often; a drain that commits first
    in every attempt leaves it to the next call.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        snapshot: The snapshot; one that is not complete repairs nothing. The command that reads
            exports records what they repair, with their ids.
        clock: Source of the current time.

    Returns:
        Notes of the repaired gaps.

    Raises:
        StorageError: The lakehouse can't be read or written.
    """
    if snapshot.phase is not Phase.DONE or snapshot.reads != "table":
        return ()
    for _ in range(ATTEMPTS):
        repaired = [
            note.gap.shard_id
            for note in gap_notes(source_name, layout)
            if note.is_open and not snapshot.is_broken_by(note.gap.until)
        ]
        if not repaired:
            return ()
        with suppress(ConcurrentWriterError):
            return _accepted(
                source_name,
                layout,
                f"{REPAIRED_BY}{snapshot.id}",
                "Repaired: the resync compared every item of the table. States between are "
                "unknown to datasets in history mode.",
                repaired,
                clock(),
            )
    return ()


def _accepted(
    source_name: str,
    layout: Layout,
    by: str,
    why: str,
    shard_ids: Collection[str],
    now: datetime,
) -> tuple[GapNote, ...]:
    log = ChangeLog(layout, source_name).open()
    if log is None:
        raise _nothing_open(source_name, shard_ids, ())
    saved = CheckpointTable(layout, source_name).open_or_create()
    checkpoint = up_to_date(saved.checkpoint, log, now)
    is_open = [row for row in checkpoint.shards.values() if row.gap and row.gap.is_open]
    chosen = [row for row in is_open if not shard_ids or row.shard_id in shard_ids]
    unknown = set(shard_ids) - {row.shard_id for row in chosen}
    if not chosen or unknown:
        raise _nothing_open(source_name, unknown, [row.shard_id for row in is_open])
    rows = [_with_acceptance(row, by, why, now) for row in chosen]
    reached = checkpoint.with_shards(*rows)
    saved.save(reached)
    crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
    with suppress(ConcurrentWriterError):  # the next drain records them
        log.record_gaps(reached.gap_notes())
    return tuple(row.gap for row in rows if row.gap is not None)


def _with_acceptance(row: ShardCheckpoint, by: str, why: str, now: datetime) -> ShardCheckpoint:
    assert row.gap is not None
    note = replace(row.gap, accepted_by=by, accepted_at=now, accepted_why=why)
    return replace(row, gap=note)


def _nothing_open(
    source_name: str, unknown: Collection[str], is_open: Collection[str]
) -> DefinitionError:
    where = f" on shard {', '.join(sorted(unknown))}" if unknown else ""
    return DefinitionError(
        f"Source {source_name!r} has no open gap{where}.",
        safe="Nothing was changed.",
        hint=f"Open gaps are on {', '.join(sorted(is_open))}." if is_open else "",
    )
