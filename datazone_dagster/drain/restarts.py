"""Streams that were made again under the same ARN, with sequence numbers that begin again. Pure.

DynamoDB gives a new stream a new ARN; many emulators do not. Records of the new stream would be
taken for old ones: below the positions of the shards, and below the versions of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.model.checkpoint import (
    Checkpoint,
    ShardCheckpoint,
    ShardState,
    with_gap,
)
from datazone_dagster.model.report import Gap
from datazone_dagster.model.shard import (
    Shard,
    StreamDescription,
    is_switch,
    parents_in,
    service_arn,
)


def replaced_reason(old_arn: str, new_arn: str) -> str:
    """Return the reason of the gap between a stream and the one that replaced it."""
    if service_arn(old_arn) == service_arn(new_arn):
        return (
            "the stream was made again under the same ARN; changes that were not read from it "
            f"before are lost, and changes between it and {new_arn} were recorded nowhere"
        )
    if is_switch(old_arn, new_arn):
        return (
            f"the source was switched to {new_arn}; changes of the stream read before that were "
            "not read are missing unless the new one has them: a resync makes sure, an acceptance "
            "alone repairs nothing"
        )
    return (
        "the stream was disabled and enabled again, or the table was made anew; "
        f"changes between it and {new_arn} were recorded nowhere"
    )


def ended_by_restart(checkpoint: Checkpoint, new_arn: str, now: datetime) -> Checkpoint:
    """Return the checkpoint with the earlier stream of this ARN ended, unread shards as gaps."""
    old_arn = checkpoint.name_of_stream(service_arn(new_arn))
    ended = []
    for row in checkpoint.of_stream(old_arn):
        if row.is_done:
            continue
        gap = Gap(
            old_arn,
            row.shard_id,
            replaced_reason(old_arn, new_arn),
            after_sequence_number=row.sequence_number,
            since=row.event_time,
            until=now,
        )
        ended.append(replace(with_gap(row, gap, now), state=ShardState.FINISHED))
    return checkpoint.with_shards(*ended)


def was_never_read(checkpoint: Checkpoint, stream_arn: str) -> bool:
    """Return whether nothing of a stream was read yet, so that it can't be an earlier one."""
    return all(
        row.sequence_number is None and row.tip_at is None
        for row in checkpoint.of_stream(stream_arn)
    )


def has_other_shards(
    stream: StreamDescription, before: Checkpoint, outcomes: Sequence[ShardOutcome]
) -> bool:
    """Return whether the listed shards don't continue the known ones.

    That is so if known shards are gone unread, none of them answered, and each open shard is
    either read to its end already, or neither follows a known one nor has later numbers. In one
    stream a shard that is read to its end stays closed, and what is opened later follows a known
    shard; after an outage of a day, shards between the two may be gone as well.

    Args:
        stream: Stream as listed before the shards were read.
        before: Checkpoint before the listing was added to it.
        outcomes: Outcomes of the reads.
    """
    known = {row.shard_id: row for row in before.of_stream(stream.stream_arn)}
    asked = [
        one
        for one in outcomes
        if one.row.shard_id in known and (one.vanished or one.calls or one.error)
    ]
    if not any(one.vanished for one in asked) or not all(one.vanished for one in asked):
        return False
    opened = [shard for shard in stream.shards if shard.is_open]
    new = [shard for shard in opened if shard.shard_id not in known]
    if len(new) < len(opened):
        is_other = all(
            known[one.shard_id].state is ShardState.FINISHED for one in opened if one not in new
        )
    else:
        is_other = bool(new) and not _has_later_numbers(new, known.values())
    return is_other and not any(_follows(one, known, stream.by_id) for one in new)


def _has_later_numbers(new: Iterable[Shard], known: Iterable[ShardCheckpoint]) -> bool:
    """Return whether shards begin after all that was read: those of a new stream begin again."""
    read = max((row.sequence_number or 0 for row in known), default=0)
    return bool(read) and all((one.starting_sequence_number or 0) > read for one in new)


def _follows(
    shard: Shard, known: Mapping[str, ShardCheckpoint], listed: Mapping[str, Shard]
) -> bool:
    """Return whether a shard descends from a known one, as far as its ancestors are listed."""
    ancestors, seen = list(parents_in(shard.parent_shard_id)), set[str]()
    while ancestors:
        name = ancestors.pop()
        if name in known:
            return True
        if name in listed and name not in seen:
            seen.add(name)
            ancestors += parents_in(listed[name].parent_shard_id)
    return False
