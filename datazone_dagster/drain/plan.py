"""Drain plan: shard lineage and checkpoint in, shard reads out. Pure.

The rules are invariants 4 and 5 of the design. A child is read only after its parent's end is
committed, whatever the listing says meanwhile: listings may lag, miss a parent, or show an open
parent next to its children.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.latest_start import from_now
from datazone_dagster.drain.pruning import parents_of
from datazone_dagster.drain.restarts import replaced_reason
from datazone_dagster.drain.switches import ended_by_switch, landed_before_switch, skipping
from datazone_dagster.drain.unread_times import opened_after, unread_since
from datazone_dagster.drain.unsent import with_unsent
from datazone_dagster.errors import LineageError
from datazone_dagster.model.checkpoint import (
    Checkpoint,
    ShardCheckpoint,
    ShardState,
    with_gap,
)
from datazone_dagster.model.report import Gap
from datazone_dagster.model.service_limits import RETENTION
from datazone_dagster.model.shard import (
    TRIM_HORIZON,
    IteratorStart,
    Shard,
    StreamDescription,
    after,
    is_switch,
    parents_in,
)

LATE_PARENT_GRACE = timedelta(minutes=10)
"""Time that a child waits for a parent that the listing does not show yet."""


PAST_MARGIN = timedelta(hours=1)
"""Time before the end of its retention from which on a position in Kinesis is not used."""


@dataclass(frozen=True, slots=True)
class ShardRead:
    """One shard to read, and the position to start from.

    A shard listed as closed is read to its end. A shard missing from the listing is neither
    `closed` nor `listed_open`. `unread_since` is of a shard without a position: no change of it is
    older.
    """

    shard: ShardCheckpoint
    start: IteratorStart
    closed: bool
    listed_open: bool = False
    unread_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """Reads of one drain in one stream.

    Args:
        checkpoint: The given checkpoint with newly listed shards and new gaps added.
        reads: Shards whose parents are finished.
        waiting: Number of known shards that wait until their parent's end is committed.
        shards_open: Number of shards that can still grow.
    """

    checkpoint: Checkpoint
    reads: tuple[ShardRead, ...]
    waiting: int
    shards_open: int

    @property
    def is_stuck(self) -> bool:
        """Whether shards can still grow, but our checkpoint has every listed shard as read."""
        return bool(self.shards_open) and not self.reads and not self.waiting


def plan_drain(
    stream: StreamDescription, checkpoint: Checkpoint, *, start: str, now: datetime
) -> DrainPlan:
    """Plan a drain of one stream.

    Args:
        stream: Stream as listed. The first listing of a stream has all pages.
        checkpoint: Checkpoint of everything landed so far.
        start: "snapshot", "trim_horizon" or "latest". Only "latest" skips anything, and only in
            the first listing of the very first stream. A stream that replaces an earlier one is
            always read completely.
        now: Start of the drain by the clock of the service: see `service_now`.

    Raises:
        SourceError: `start` is "latest", and the service does not say what time it is.
        LineageError: A child starts before its parent's end.
    """
    listed, unread = stream.by_id, _unread(stream, checkpoint)
    _check_sequence(unread, listed, stream.stream_arn, checkpoint)
    known = checkpoint.of_stream(stream.stream_arn)
    first_listing = not known
    replaces = first_listing and bool(checkpoint.shards)
    if first_listing:
        rows = _first_rows(stream, start="trim_horizon" if replaces else start, now=now)
        rows = skipping(rows, landed_before_switch(checkpoint, stream.stream_arn))
    else:
        rows = _later_rows(unread, stream, checkpoint, now)
    checkpoint = checkpoint.with_shards(*rows)
    if replaces:
        checkpoint = _replaced(checkpoint, stream.stream_arn, now)
    checkpoint = checkpoint.at(stream_arn=stream.stream_arn)
    checkpoint = _with_lost_parents(stream, listed, checkpoint, now)
    checkpoint = with_unsent(checkpoint, stream, now)

    unfinished = _unfinished(stream.stream_arn, checkpoint)
    ready = [row for row in unfinished if parent_is_done(row, checkpoint)]
    return DrainPlan(
        checkpoint=checkpoint,
        reads=tuple(
            _read_of(row, stream, listed.get(row.shard_id), checkpoint, now) for row in ready
        ),
        waiting=len(unfinished) - len(ready),
        shards_open=len(stream.open_ids),
    )


def _unfinished(stream_arn: str, checkpoint: Checkpoint) -> Collection[ShardCheckpoint]:
    return checkpoint.rows_of_stream(stream_arn).unfinished.values()


def _unread(stream: StreamDescription, checkpoint: Checkpoint) -> list[Shard]:
    """Return the listed shards that are not known as read to their end: most of many are."""
    known, listed = checkpoint.rows_of_stream(stream.stream_arn), stream.by_id
    loose = [
        shard
        for shard in map(listed.get, known.loose)
        if shard is not None
        and (
            shard.parent_shard_id is not None
            or known.rows[shard.shard_id].state is not ShardState.FINISHED
        )
    ]
    unfinished = [shard for shard in map(listed.get, known.unfinished) if shard is not None]
    new = [listed[name] for name in sorted(listed.keys() - known.rows.keys())]
    return [*loose, *unfinished, *new]


def _read_of(
    row: ShardCheckpoint,
    stream: StreamDescription,
    shard: Shard | None,
    checkpoint: Checkpoint,
    now: datetime,
) -> ShardRead:
    # A shard that is missing from the listing may be open, and then has no end to read to.
    is_open = shard is not None and shard.is_open
    is_closed = shard is not None and not is_open
    since = unread_since(row, checkpoint) if row.sequence_number is None else None
    return ShardRead(row, start_of(row, stream, now), is_closed, is_open, since)


def start_of(row: ShardCheckpoint, stream: StreamDescription, now: datetime) -> IteratorStart:
    """Return the position from which reading a shard continues.

    From a position past its retention Kinesis reads nothing, for hours, and says nothing: what is
    left of the shard is read from its start then, and what is known is left out.
    """
    if row.sequence_number is None:
        return TRIM_HORIZON
    is_past = row.event_time is None or now - row.event_time > stream.retention - PAST_MARGIN
    return TRIM_HORIZON if is_past and not stream.is_ordered else after(row.sequence_number)


def _row(stream_arn: str, shard: Shard, now: datetime) -> ShardCheckpoint:
    return ShardCheckpoint(stream_arn, shard.shard_id, now, shard.parent_shard_id)


def _first_rows(stream: StreamDescription, *, start: str, now: datetime) -> list[ShardCheckpoint]:
    """Return rows for the first listing: parents absent from it are older than our start."""
    listed_ids = {shard.shard_id for shard in stream.shards}
    absent = parents_of(stream.shards) - listed_ids
    trimmed_ancestors = [
        ShardCheckpoint(stream.stream_arn, parent_id, now, state=ShardState.TRIMMED_ANCESTOR)
        for parent_id in sorted(absent)
    ]
    rows = [_row(stream.stream_arn, shard, now) for shard in stream.shards]
    if start == "latest":
        rows = from_now(stream, rows)
    return trimmed_ancestors + rows


def _later_rows(
    unread: Iterable[Shard], stream: StreamDescription, checkpoint: Checkpoint, now: datetime
) -> list[ShardCheckpoint]:
    """Return rows of newly listed shards, and of known shards that the listing changes."""
    rows = []
    opened = dict(checkpoint.rows_of_stream(stream.stream_arn).rows)
    for shard in unread:
        known = checkpoint.get(stream.stream_arn, shard.shard_id)
        if known is None:
            rows.append(_row(stream.stream_arn, shard, opened_after(shard, opened, now)))
            opened[shard.shard_id] = rows[-1]
        elif known.state is ShardState.TRIMMED_ANCESTOR:
            # The first listing omitted the shard by mistake. Its changes come late, which their
            # versions correct; ignoring the shard would lose them.
            rows.append(replace(known, state=ShardState.READING, unread_from=now))
        elif known.parent_shard_id is None and shard.parent_shard_id is not None:
            rows.append(replace(known, parent_shard_id=shard.parent_shard_id))
    changed = {row.shard_id for row in rows}
    unchanged = _unfinished(stream.stream_arn, checkpoint)
    rows += [
        replace(with_gap(row, gap, now), tip_at=gap.until)
        for row in (*rows, *(one for one in unchanged if one.shard_id not in changed))
        if (row.sequence_number is None or not stream.is_ordered)
        and now - row.read_through > stream.retention
        and parent_is_done(row, checkpoint)  # the end of its parent tells how old its changes are
        and (gap := overdue_gap(row, unread_since(row, checkpoint), now, stream.retention))
    ]
    return rows


def overdue_gap(
    row: ShardCheckpoint, since: datetime, now: datetime, retention: timedelta = RETENTION
) -> Gap | None:
    """Return the gap when records may have been trimmed without an error; None if they are not.

    Only a shard without a position starts silently at the trim horizon; with a position, the
    service raises when records after it are gone. Kinesis never does.

    Args:
        row: Shard.
        since: Lower bound for the time of its first unread change.
        now: Time by the clock of the service.
        retention: Time for which the service keeps records.
    """
    if row.is_done or now - since <= retention:
        return None
    return Gap(
        row.stream_arn,
        row.shard_id,
        f"the shard was not read for {retention.total_seconds() / 3600:.0f} hours",
        after_sequence_number=row.sequence_number,
        since=since,
        until=now - retention,
    )


def trim_gap(row: ShardCheckpoint, now: datetime) -> Gap | None:
    """Return the gap when the service reports that the records after a position are trimmed.

    None for an idle shard: its last record is past the retention, but the shard was read to its
    latest position within the retention, so there are no later records that could be lost.
    """
    idle = (
        row.event_time is not None
        and now - row.event_time > RETENTION
        and row.tip_at is not None
        and now - row.tip_at < RETENTION
    )
    if idle:
        return None
    return Gap(
        row.stream_arn,
        row.shard_id,
        "records were trimmed before they were read",
        after_sequence_number=row.sequence_number,
        since=row.read_through,
        until=now,
    )


def vanished_gap(row: ShardCheckpoint, now: datetime) -> Gap | None:
    """Return the gap when the service no longer knows an unfinished shard."""
    if row.sequence_number is None and row.unread_from == now:
        return None
    return Gap(
        row.stream_arn,
        row.shard_id,
        "the shard vanished before its end was read",
        after_sequence_number=row.sequence_number,
        since=row.read_through,
        until=now,
    )


def _replaced(checkpoint: Checkpoint, stream_arn: str, now: datetime) -> Checkpoint:
    """Record a stream that replaced a drained one: changes between the two are unknown."""
    checkpoint = ended_by_switch(checkpoint, stream_arn, now)
    old = max(
        (row for row in checkpoint.shards.values() if row.stream_arn != stream_arn),
        key=lambda row: (row.unread_from, row.shard_id),
    )
    made_at = None if is_switch(old.stream_arn, stream_arn) else created_at(stream_arn)
    gap = Gap(
        old.stream_arn,
        old.shard_id,
        replaced_reason(old.stream_arn, stream_arn),
        after_sequence_number=old.sequence_number,
        since=old.event_time,
        until=min(made_at or now, now),
    )
    if all(
        row.gap is None or gap.reason not in row.gap.gap.reason
        for row in checkpoint.shards.values()
    ):
        checkpoint = checkpoint.with_shards(with_gap(old, gap, now))
    return replace(
        checkpoint,
        # Sequence numbers are not guaranteed to grow from one stream to the next.
        epoch=checkpoint.epoch + 1,
    )


def created_at(stream_arn: str) -> datetime | None:
    """Return a stream's creation time, from the label of its ARN; None if the label is no time."""
    try:
        return datetime.fromisoformat(stream_arn.rpartition("/")[2]).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def oldest_unread(
    checkpoint: Checkpoint, at_latest: Collection[tuple[str, str]]
) -> datetime | None:
    """Return a lower bound for the time of unread changes; None if no shard may have any.

    Args:
        checkpoint: Checkpoint of everything landed so far.
        at_latest: Stream ARN and shard id of the shards just read to their latest position.
    """
    waiting = [
        row for row in checkpoint.unfinished if (row.stream_arn, row.shard_id) not in at_latest
    ]
    return min((unread_since(row, checkpoint) for row in waiting), default=None)


def _with_lost_parents(
    stream: StreamDescription, listed: Mapping[str, Shard], checkpoint: Checkpoint, now: datetime
) -> Checkpoint:
    """Record gaps for parents that were never listed nor recorded, after a grace period.

    A whole listing that began after that time has to lack them as well.
    """
    stream_arn, listed_at = stream.stream_arn, stream.listed_at or now
    waiting = [
        (row, parent_id)
        for row in _unfinished(stream_arn, checkpoint)
        if listed_at - row.unread_from >= LATE_PARENT_GRACE
        for parent_id in parents_in(row.parent_shard_id)
    ]
    for row, parent_id in waiting:
        if parent_id in listed or checkpoint.get(stream_arn, parent_id) is not None:
            continue
        gap = Gap(
            stream_arn,
            parent_id,
            f"the shard is gone and was never listed; only its child {row.shard_id} is",
            until=now,
        )
        lost = ShardCheckpoint(stream_arn, parent_id, now, state=ShardState.FINISHED)
        checkpoint = checkpoint.with_shards(with_gap(lost, gap, now))
    return checkpoint


def parent_is_done(row: ShardCheckpoint, checkpoint: Checkpoint) -> bool:
    """Return whether every parent of a shard is finished in the checkpoint."""
    parents = [checkpoint.get(row.stream_arn, one) for one in parents_in(row.parent_shard_id)]
    return all(parent is not None and parent.is_done for parent in parents)


def _check_sequence(
    unread: Iterable[Shard], listed: Mapping[str, Shard], stream_arn: str, checkpoint: Checkpoint
) -> None:
    """Compare the first numbers of shards that are still to be read with their parents' ends."""
    for child in unread:
        if child.parent_shard_id is None or child.starting_sequence_number is None:
            continue
        parent = listed.get(child.parent_shard_id)
        parent_row = checkpoint.get(stream_arn, child.parent_shard_id)
        ends = [
            number
            for number in (
                parent.ending_sequence_number if parent else None,
                parent_row.sequence_number if parent_row else None,
            )
            if number is not None
        ]
        if ends and child.starting_sequence_number <= max(ends):
            raise LineageError(
                f"Shard {child.shard_id} of {stream_arn} starts at "
                f"{child.starting_sequence_number}, not after the end {max(ends)} of its parent "
                f"{child.parent_shard_id}.",
                safe="This drain landed nothing; changes landed before are safe.",
                hint="Reading further could reorder changes of one key. Check that the endpoint "
                "is DynamoDB Streams; if it is, report this with the output of DescribeStream.",
            )
