"""Gaps of a source: which are open, and their acceptance by someone who knows.

What was lost can't be landed any more. Until someone says that the datasets were repaired, or may
stay as they are, the checks of the source and of its datasets fail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.errors import ConcurrentWriterError, DefinitionError
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, fold
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.process import crash_points

ATTEMPTS = 10
"""Tries of one acceptance while drains commit to the same checkpoint."""


def up_to_date(saved: Checkpoint, log: ChangeLogSnapshot, now: datetime) -> Checkpoint:
    """A saved checkpoint with everything that the change log knows beyond it.

    One that was lost is rebuilt: positions from the rows, gaps from the notes. One that is an
    old copy has its positions, but not the gaps that were found since; those are open still.
    """
    checkpoint = fold(saved, log.landed_since(saved.batch), log.head, now)
    return _with_open(checkpoint, log.gaps) if saved.shards else checkpoint.with_notes(log.gaps)


def gap_notes(source_name: str, layout: Layout) -> tuple[GapNote, ...]:
    """Every gap of a source, accepted or not, oldest first.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    log = ChangeLog(layout, source_name).open()
    saved = CheckpointTable(layout, source_name).open()
    kept = () if log is None else log.gaps
    if saved is None or not saved.checkpoint.shards:
        return kept
    current = _with_open(saved.checkpoint, kept).gap_notes()
    known = {(note.gap.shard_id, note.detected_at) for note in current}
    earlier = [n for n in kept if not n.is_open and (n.gap.shard_id, n.detected_at) not in known]
    return tuple(sorted((*earlier, *current), key=lambda note: note.detected_at))


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

    Safe beside a running drain. It is recorded with the checkpoint first, then with the change
    log; a drain brings the second up to date should this process die in between.

    Args:
        source_name: Name of the source.
        layout: Where the tables are.
        by: Who accepts them.
        why: The reason.
        shard_ids: Only the gaps on these shards; all open ones if none is given.
        clock: Tells the time.

    Returns:
        The notes of the gaps that were accepted.

    Raises:
        DefinitionError: No such gap is open, or `by` or `why` is empty.
        ConcurrentWriterError: Drains were faster every time.
        StorageError: The lakehouse can't be read or written.
    """
    if not by.strip() or not why.strip():
        raise DefinitionError(
            "A gap is accepted by someone, for a reason.", hint="Say who, and why."
        )
    for attempt in range(ATTEMPTS):
        try:
            return _accepted(source_name, layout, by.strip(), why.strip(), shard_ids, clock())
        except ConcurrentWriterError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


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
    with suppress(ConcurrentWriterError):  # the next drain does it then
        log.record_gaps(reached.gap_notes())
    return tuple(row.gap for row in rows if row.gap is not None)


def _with_open(checkpoint: Checkpoint, kept: Iterable[GapNote]) -> Checkpoint:
    return checkpoint.with_notes(note for note in kept if note.is_open)


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
