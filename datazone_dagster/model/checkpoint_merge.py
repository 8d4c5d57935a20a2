"""Merge of two checkpoints of one source, where several drains save into one table.

Each of two processes knows positions of some shards better. What both know is committed, so the
further position counts, and a shard that one has finished is finished. The result is the same in
whatever order processes save, and never behind either of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, ShardState
from datazone_dagster.model.report import Gap

V = TypeVar("V", int, datetime, str)

_ORDER = {ShardState.TRIMMED_ANCESTOR: 0, ShardState.READING: 1, ShardState.FINISHED: 2}
"""States in the order in which a shard can have them: an ancestor may be listed after all."""

_BETWEEN = "; "


def merged(one: Checkpoint, other: Checkpoint) -> Checkpoint:
    """Return the checkpoint of everything that one of the two has."""
    rows = dict(one.shards)
    for key, row in other.shards.items():
        rows[key] = merged_row(rows[key], row) if key in rows else row
    return Checkpoint(
        batch=max(one.batch, other.batch),
        epoch=max(one.epoch, other.epoch),
        stream_arn=_later_stream(one.stream_arn, other.stream_arn, rows),
        shards=rows,
    )


def with_changes(newest: Checkpoint, base: Checkpoint, mine: Checkpoint) -> Checkpoint:
    """Return a checkpoint that another process saved, with what this one has changed.

    Args:
        newest: Checkpoint saved last, by others, since `base`.
        base: Checkpoint that `mine` was made from.
        mine: Checkpoint of this process: rows that it left out are left out, unless they changed.
    """
    changed = {
        key: row
        for key, row in mine.shards.items()
        if (known := base.shards.get(key)) is not row and known != row
    }
    found = merged(newest, replace(mine, shards=changed))
    dropped = {
        key
        for key, row in base.shards.items()
        if key not in mine.shards and newest.shards.get(key) == row
    }
    return replace(
        found, shards={key: row for key, row in found.shards.items() if key not in dropped}
    )


def merged_row(one: ShardCheckpoint, other: ShardCheckpoint) -> ShardCheckpoint:
    """Return the row of a shard with everything that one of the two has."""
    further = max((one, other), key=_reached)
    state = max((one, other), key=_stage)
    return ShardCheckpoint(
        one.stream_arn,
        one.shard_id,
        state.unread_from,
        _known(max, one.parent_shard_id, other.parent_shard_id),
        state.state,
        further.sequence_number,
        further.event_time,
        _known(max, one.tip_at, other.tip_at),
        _known(min, one.skip_before, other.skip_before),
        _merged_note(one.gap, other.gap),
    )


def _reached(row: ShardCheckpoint) -> tuple[int, float]:
    number = -1 if row.sequence_number is None else row.sequence_number
    return number, float("-inf") if row.event_time is None else row.event_time.timestamp()


def _stage(row: ShardCheckpoint) -> tuple[int, float]:
    return _ORDER[row.state], -row.unread_from.timestamp()


def _known(choose: Callable[..., V], one: V | None, other: V | None) -> V | None:
    if one is None or other is None:
        return one if other is None else other
    return choose(one, other)


def _later_stream(one: str, other: str, rows: Mapping[tuple[str, str], ShardCheckpoint]) -> str:
    """Return the stream whose shards were listed later: streams are read one after another."""
    if one == other:
        return one

    def listed_at(arn: str) -> tuple[float, str]:
        times = [row.unread_from.timestamp() for row in rows.values() if row.stream_arn == arn]
        return max(times, default=float("-inf")), arn

    return max(one, other, key=listed_at)


def _merged_note(one: GapNote | None, other: GapNote | None) -> GapNote | None:
    """Return the note of both: an open gap stays open, unless an acceptance covers all of it."""
    if one is None or other is None:
        return one or other
    if one.is_open and other.is_open:
        return GapNote(_both(one.gap, other.gap), min(one.detected_at, other.detected_at))
    if not one.is_open and not other.is_open:
        return max(one, other, key=_when_accepted)
    accepted, still_open = (other, one) if one.is_open else (one, other)
    return accepted if _covers(accepted, still_open) else still_open


def _when_accepted(note: GapNote) -> tuple[datetime, datetime, str]:
    assert note.accepted_at is not None, "it is accepted"
    return note.accepted_at, note.detected_at, repr(note)


def _covers(accepted: GapNote, still_open: GapNote) -> bool:
    """Return whether an acceptance is of this gap, as far as it has grown."""
    mine, theirs = accepted.gap, still_open.gap
    return (
        accepted.detected_at == still_open.detected_at
        and set(theirs.reason.split(_BETWEEN)) <= set(mine.reason.split(_BETWEEN))
        and (mine.until is None or (theirs.until is not None and theirs.until <= mine.until))
    )


def _both(one: Gap, other: Gap) -> Gap:
    """Return the gap that covers both; an end that is not known counts as the latest."""
    if one.reason == other.reason:
        reason = one.reason
    else:
        reasons = {part for gap in (one, other) for part in gap.reason.split(_BETWEEN)}
        reason = _BETWEEN.join(sorted(reasons))
    open_end = one.until is None or other.until is None
    return Gap(
        one.stream_arn,
        one.shard_id,
        reason,
        _known(min, one.after_sequence_number, other.after_sequence_number),
        _known(min, one.since, other.since),
        None if open_end else _known(max, one.until, other.until),
    )
