"""The position of each shard of a source: a fold over the change log.

The position of a shard is the highest sequence number landed from it, so it can always be
rebuilt from the change log. Facts that are not in the log (that a shard is finished, when it was
first listed, what was lost) are only in the checkpoint. The fold is monotone: positions only
grow and finished shards stay finished, so an older snapshot is never wrong, only behind.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from datazone_dagster.model.report import Gap
from datazone_dagster.model.shard import parents_in, restart_of, service_arn


class ShardState(enum.Enum):
    """Progress on a shard.

    `TRIMMED_ANCESTOR` is a parent that was already gone when the stream was first listed. Such a
    shard counts as finished, unless a later listing shows it after all.
    """

    READING = "reading"
    FINISHED = "finished"
    TRIMMED_ANCESTOR = "prehistory"


LATEST_RECORDED_EVERY = timedelta(minutes=10)
"""Interval at which the checkpoint is written only to record idle shards as read to the latest."""

REPAIRED_BY = "resync "
"""Start of the name under which a resync records the gaps that it repaired; its id follows."""


@dataclass(frozen=True, slots=True)
class GapNote:
    """A gap on a shard, and who accepted the gap, if anyone did."""

    gap: Gap
    detected_at: datetime
    accepted_by: str | None = None
    accepted_at: datetime | None = None
    accepted_why: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the gap still makes datasets incomplete."""
        return self.accepted_at is None

    @property
    def is_repaired(self) -> bool:
        """Whether a resync has repaired the gap: the datasets show the items as they are."""
        return (self.accepted_by or "").startswith(REPAIRED_BY)


@dataclass(frozen=True, slots=True)
class ShardCheckpoint:
    """The current row of one shard.

    `unread_from`: no change before this time counts as unread. It is the time of the first listing
    of the stream, or for a child listed later that up to which its parents had been read.
    `tip_at`: every change up to this time is landed or recorded as lost; written now and then. The
    shard was open then, or it has vanished.
    `skip_before`: changes older than this time are skipped, not landed (start="latest").
    """

    stream_arn: str
    shard_id: str
    unread_from: datetime
    parent_shard_id: str | None = None
    state: ShardState = ShardState.READING
    sequence_number: int | None = None
    event_time: datetime | None = None
    tip_at: datetime | None = None
    skip_before: datetime | None = None
    gap: GapNote | None = None

    @property
    def is_done(self) -> bool:
        """Whether the shard's children may be read."""
        return self.state is not ShardState.READING

    @property
    def read_through(self) -> datetime:
        """Time before which every change is landed, recorded as lost, or older than our start."""
        return max(
            time for time in (self.tip_at, self.event_time, self.unread_from) if time is not None
        )


@dataclass(frozen=True, slots=True)
class Landed:
    """A shard as the change log records it: its highest sequence number and event time.

    `sequence_number` is None for a shard of Kinesis whose rows alone are known: they have no
    position. Its records are read again then, and those that landed are recognised.
    """

    stream_arn: str
    shard_id: str
    parent_shard_id: str | None
    epoch: int
    sequence_number: int | None
    event_time: datetime | None


@dataclass(frozen=True, slots=True)
class StreamRows:
    """The known shards of one stream, by id, and the few of many that most decisions look at.

    Args:
        rows: All of them.
        unfinished: Those that are not read to their end.
        loose: Others that a listing may still change: trimmed ancestors and those without a
            parent.
        noted: Those with a gap, accepted or not.
    """

    rows: Mapping[str, ShardCheckpoint] = field(default_factory=dict)
    unfinished: Mapping[str, ShardCheckpoint] = field(default_factory=dict)
    loose: Set[str] = frozenset()
    noted: Mapping[str, ShardCheckpoint] = field(default_factory=dict)

    def with_rows(self, changed: Iterable[ShardCheckpoint]) -> StreamRows:
        """Return a copy with these rows added or replaced."""
        rows, unfinished = dict(self.rows), dict(self.unfinished)
        loose, noted = set(self.loose), dict(self.noted)
        for row in changed:
            name, state = row.shard_id, row.state
            rows[name] = row
            if state is ShardState.READING:
                unfinished[name] = row
                loose.discard(name)
            else:
                unfinished.pop(name, None)
                if row.parent_shard_id is None or state is ShardState.TRIMMED_ANCESTOR:
                    loose.add(name)
                else:
                    loose.discard(name)
            if row.gap is not None:
                noted[name] = row
            elif noted:
                noted.pop(name, None)
        return StreamRows(rows, unfinished, loose, noted)


_NO_ROWS = StreamRows()


@dataclass(frozen=True)
class Checkpoint:
    """All shards of one source, as of one batch of its change log.

    Args:
        batch: The last batch whose rows are folded in.
        epoch: The epoch of changes that are landed next.
        stream_arn: The stream read last; a different ARN means that the stream was replaced.
        shards: The shards by stream ARN and shard id.
    """

    batch: int = 0
    epoch: int = 1
    stream_arn: str = ""
    shards: Mapping[tuple[str, str], ShardCheckpoint] = field(default_factory=dict)

    @cached_property
    def _by_stream(self) -> Mapping[str, StreamRows]:
        """The known shards by stream: a stream of many has a hundred thousand, asked for often.

        Copies of a checkpoint keep them as they are, or with the rows that have changed.
        """
        return _with_rows({}, self.shards.values())

    @cached_property
    def unfinished(self) -> Sequence[ShardCheckpoint]:
        """The shards that are not read to their end, of all streams."""
        return [row for one in self._by_stream.values() for row in one.unfinished.values()]

    @property
    def stream_arns(self) -> Collection[str]:
        """The streams of the known shards."""
        return self._by_stream.keys()

    def of_stream(self, stream_arn: str) -> Collection[ShardCheckpoint]:
        """Return the known shards of one stream."""
        return self.rows_of_stream(stream_arn).rows.values()

    def rows_of_stream(self, stream_arn: str) -> StreamRows:
        """Return the known shards of one stream, by id and by kind."""
        return self._by_stream.get(stream_arn, _NO_ROWS)

    def name_of_stream(self, arn: str) -> str:
        """Return the stream that has an ARN of the service now: the last one made under it."""
        known = {self.stream_arn, *self.stream_arns}
        return max((one for one in known if service_arn(one) == arn), key=restart_of, default=arn)

    def without_ended_streams(self) -> Checkpoint:
        """Return a copy in which streams whose ARN another stream has now are not read.

        The service would answer with the shards of the other stream.
        """
        ended = [
            replace(row, state=ShardState.FINISHED)
            for arn in self.stream_arns
            if self.name_of_stream(service_arn(arn)) != arn
            for row in self.of_stream(arn)
            if not row.is_done
        ]
        return self.with_shards(*ended) if ended else self

    def get(self, stream_arn: str, shard_id: str) -> ShardCheckpoint | None:
        """Return one shard, or None if it is unknown."""
        return self.shards.get((stream_arn, shard_id))

    def with_shards(self, *changed: ShardCheckpoint) -> Checkpoint:
        """Return a copy with these rows added or replaced."""
        if not changed:
            return self
        rows = dict(self.shards)
        rows.update(((row.stream_arn, row.shard_id), row) for row in changed)
        found = replace(self, shards=rows)
        found.__dict__[_BY_STREAM] = _with_rows(self._by_stream, changed)
        return found

    def at(
        self, *, batch: int | None = None, epoch: int | None = None, stream_arn: str | None = None
    ) -> Checkpoint:
        """Return a copy with the same shards and another batch, epoch or current stream."""
        found = Checkpoint(
            self.batch if batch is None else batch,
            self.epoch if epoch is None else epoch,
            self.stream_arn if stream_arn is None else stream_arn,
            self.shards,
        )
        found.__dict__[_BY_STREAM] = self._by_stream
        return found

    def has_passed(self, time: datetime) -> bool:
        """Return whether every change up to `time` is landed or recorded as lost.

        Only what was read counts: an open shard by its last read, a finished one until its
        children are listed.
        """
        rows = self.of_stream(self.stream_arn)
        parents = {parent for row in rows for parent in parents_in(row.parent_shard_id)}
        childless = [
            row
            for row in rows
            if row.state is ShardState.FINISHED and row.shard_id not in parents and not row.gap
        ]
        latest = [row for row in self.shards.values() if not row.is_done] + childless
        read = [max(filter(None, (row.tip_at, row.event_time)), default=None) for row in latest]
        return bool(read) and all(one is not None and one > time for one in read)

    def gap_notes(self) -> tuple[GapNote, ...]:
        """Return every gap recorded on a shard, accepted or not."""
        noted = (row for one in self._by_stream.values() for row in one.noted.values())
        return tuple(row.gap for row in noted if row.gap is not None)

    def with_notes(self, notes: Iterable[GapNote]) -> Checkpoint:
        """Return a copy with these notes on shards without a newer one, after a rebuild.

        A shard that the checkpoint does not know counts as gone, unless a listing shows it.
        """
        found = self
        for note in notes:
            shard = found.get(note.gap.stream_arn, note.gap.shard_id) or ShardCheckpoint(
                note.gap.stream_arn,
                note.gap.shard_id,
                note.detected_at,
                state=ShardState.TRIMMED_ANCESTOR,
            )
            if shard.gap is None or shard.gap.detected_at < note.detected_at:
                found = found.with_shards(replace(shard, gap=note))
        return found

    def open_gaps(self) -> tuple[Gap, ...]:
        """Return the gaps that nobody accepted or repaired."""
        return tuple(note.gap for note in self.gap_notes() if note.is_open)


_BY_STREAM = "_by_stream"
"""Where a checkpoint keeps its shards by stream. The one that was saved keeps them, too: the next
drain begins with it."""


def _with_rows(
    known: Mapping[str, StreamRows], changed: Iterable[ShardCheckpoint]
) -> Mapping[str, StreamRows]:
    of_streams: dict[str, list[ShardCheckpoint]] = {}
    for row in changed:
        of_streams.setdefault(row.stream_arn, []).append(row)
    found = dict(known)
    for arn, rows in of_streams.items():
        found[arn] = known.get(arn, _NO_ROWS).with_rows(rows)
    return found


def fold(checkpoint: Checkpoint, landed: Sequence[Landed], batch: int, now: datetime) -> Checkpoint:
    """Return the checkpoint with the rows of the batches up to `batch` folded in.

    A shard that is missing from the checkpoint (because its table was lost) gets a new row. If
    rows of its child were landed, it is finished: children are read only after their parents.
    """
    batch = max(batch, checkpoint.batch)
    changed: dict[tuple[str, str], ShardCheckpoint] = {}
    epoch, stream_arn = checkpoint.epoch, checkpoint.stream_arn
    for row in landed:
        key = (row.stream_arn, row.shard_id)
        known = changed.get(key) or checkpoint.shards.get(key)
        known = known or ShardCheckpoint(*key, now, row.parent_shard_id)
        if row.sequence_number is None:
            known = replace(known, event_time=known.event_time or row.event_time)
        elif known.sequence_number is None or row.sequence_number > known.sequence_number:
            known = replace(
                known,
                sequence_number=row.sequence_number,
                event_time=row.event_time or known.event_time,
            )
        changed[key] = known
        epoch, stream_arn = max(epoch, row.epoch), stream_arn or row.stream_arn
    parents = {
        (row.stream_arn, parent) for row in landed for parent in parents_in(row.parent_shard_id)
    }
    for key in (parents - checkpoint.shards.keys()) & changed.keys():
        changed[key] = replace(changed[key], state=ShardState.FINISHED)
    found = checkpoint.with_shards(*changed.values())
    return found.at(batch=batch, epoch=epoch, stream_arn=stream_arn)


def with_gap(shard: ShardCheckpoint, gap: Gap, now: datetime) -> ShardCheckpoint:
    """Return the shard with a gap on it; a gap that is already open grows to cover both."""
    open_note = shard.gap if shard.gap is not None and shard.gap.is_open else None
    if open_note is not None:
        first = open_note.gap
        reasons = first.reason if gap.reason in first.reason else f"{first.reason}; {gap.reason}"
        gap = replace(
            gap,
            reason=reasons,
            after_sequence_number=first.after_sequence_number,
            since=first.since or gap.since,
            until=_later_end(first.until, gap.until),
        )
    return replace(shard, gap=GapNote(gap, open_note.detected_at if open_note else now))


def _later_end(first: datetime | None, second: datetime | None) -> datetime | None:
    """Return the later end of two gaps; an end that is not known counts as the latest."""
    return None if first is None or second is None else max(first, second)
