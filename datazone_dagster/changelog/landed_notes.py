"""Positions that a batch reaches, as its commit notes them. Pure.

A commit that lands a batch carries the position of every shard that moved. So the positions are
known from the log's entries, and no data file is read to find them. Where a note is missing,
because its entry is gone or an earlier version of the library wrote it, the rows tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from datazone_dagster.model.checkpoint import Landed

_BATCH = "batch"
_LANDED = "landed"


def note_of(batch: int, landed: Iterable[Landed]) -> dict[str, Any]:
    """Return the note of a batch, as JSON values."""
    return {
        _BATCH: batch,
        _LANDED: [
            [
                one.stream_arn,
                one.shard_id,
                one.parent_shard_id,
                one.epoch,
                str(one.sequence_number),  # beyond the integers of other readers of JSON
                None if one.event_time is None else one.event_time.isoformat(),
            ]
            for one in landed
        ],
    }


def is_of_drain(note: Mapping[str, Any]) -> bool:
    """Return whether a drain has landed the batch of a note: batches of a scan move no position."""
    return bool(note.get(_LANDED))


def shards_in(note: Mapping[str, Any] | None) -> set[tuple[str, str]] | None:
    """Return stream ARN and id of the shards that the batch of a note moved; None: it has none."""
    try:
        return None if note is None else {(str(row[0]), str(row[1])) for row in note[_LANDED]}
    except (KeyError, TypeError, IndexError):
        return None


def landed_in(
    notes: Iterable[Mapping[str, Any]], after_batch: int, through_batch: int
) -> list[Landed] | None:
    """Return the positions that the batches in (after_batch, through_batch] reach.

    Args:
        notes: Notes of commits; those of other batches are ignored.
        after_batch: Start of the range, exclusive.
        through_batch: End of the range, inclusive.

    Returns:
        None if a batch of the range has no note.
    """
    by_batch: dict[int, Sequence[Any]] = {
        note[_BATCH]: note[_LANDED] for note in notes if _BATCH in note and _LANDED in note
    }
    wanted = range(after_batch + 1, through_batch + 1)
    if any(batch not in by_batch for batch in wanted):
        return None
    return [_landed(row) for batch in wanted for row in by_batch[batch]]


def _landed(row: Sequence[Any]) -> Landed:
    stream_arn, shard_id, parent_shard_id, epoch, sequence_number, event_time = row
    return Landed(
        stream_arn,
        shard_id,
        parent_shard_id,
        epoch,
        int(sequence_number),
        None if event_time is None else datetime.fromisoformat(event_time),
    )
