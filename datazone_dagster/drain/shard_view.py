"""What is known of the shards of a stream from parts of its listing. Pure.

A listing of many shards takes many calls: closed shards stay listed for a day, about six for each
open one, and a page has a hundred. So pages are asked for in rounds, a few at each drain, and the
children of a shard that was read to its end are asked for by themselves.

A view is never wrong, only behind: what it says of a shard is confirmed by reading the shard, and
shards that it lacks are found later. Until a round has come to its end, a view takes only those new
shards whose parents are known. Others may be of a stream that was made again under the same ARN,
which is recognised by shards that are gone from a listing that has all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property

from datazone_dagster.model.checkpoint import Checkpoint, ShardState
from datazone_dagster.model.shard import (
    Shard,
    ShardPage,
    StreamDescription,
    parents_in,
    parents_in_all,
)

NEVER = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Round:
    """One pass through all pages of a listing.

    Args:
        began_at: Time of its first page.
        served_at: The same moment by the clock of the service; None if it does not say.
        shards: Shards of its pages so far.
        lasts: Ids of the shards after which its pages began, the next one's last.
        pages: Number of its pages so far that had shards.
        closed_late: Ids of the shards that are closed on a page after the first one.
    """

    began_at: datetime
    shards: Mapping[str, Shard] = field(default_factory=dict)
    lasts: tuple[str, ...] = ()
    pages: int = 0
    served_at: datetime | None = None
    closed_late: frozenset[str] = frozenset()

    @property
    def last(self) -> str | None:
        """Id of the shard after which the next page begins; None: it is the first one."""
        return self.lasts[-1] if self.lasts else None


@dataclass(frozen=True)
class ShardView:
    """Shards of a stream as far as they are known.

    Args:
        stream: The stream as the last answer described it; its shards are those of one page.
        shards: All shards by id.
        listed_at: Start of the last round that came to its end; None before that.
        pages: Number of pages of that round, empty ones left out.
        round: The round that goes on; None between two rounds.
        contradicted: Ids of shards that were listed as open after they were read to their end.
    """

    stream: StreamDescription
    shards: Mapping[str, Shard] = field(default_factory=dict)
    listed_at: datetime | None = None
    pages: int = 0
    round: Round | None = None
    contradicted: frozenset[str] = frozenset()

    @property
    def newest(self) -> str | None:
        """Id of the newest shard: ids begin with the time at which their shard was opened."""
        return max(self.shards, default=None)

    @cached_property
    def parents(self) -> frozenset[str]:
        """Ids of the parents of the known shards."""
        return frozenset(parents_in_all([one.parent_shard_id for one in self.shards.values()]))

    def described(self) -> StreamDescription:
        """Return the stream with all shards that are known."""
        return self._described

    @cached_property
    def _described(self) -> StreamDescription:
        return replace(
            self.stream, shards=tuple(self.shards.values()), listed_at=self.listed_at or NEVER
        )


def first_view(stream_arn: str, checkpoint: Checkpoint) -> ShardView:
    """Return the view of a process that has listed nothing yet: the shards of the checkpoint.

    A shard that is not read to its end counts as listed open until a listing shows that it is not:
    if the service does not know it, that is no reason yet to give it up.
    """
    stream = StreamDescription(stream_arn, view_type="", enabled=True, shards=())
    return ShardView(
        stream,
        {
            row.shard_id: Shard(row.shard_id, row.parent_shard_id)
            if row.state is ShardState.READING
            else Shard(row.shard_id, row.parent_shard_id, None, row.sequence_number or 0)
            for row in checkpoint.of_stream(stream_arn)
            if row.state is not ShardState.TRIMMED_ANCESTOR
        },
    )


def with_ends(view: ShardView, checkpoint: Checkpoint) -> ShardView:
    """Return the view in which shards that were read to their end since are closed."""
    known = checkpoint.rows_of_stream(view.stream.stream_arn)
    closed: dict[str, Shard] = {}
    for name in view.described().open_ids.difference(known.unfinished, view.contradicted):
        row, shard = known.rows.get(name), view.shards[name]
        if row is not None and row.state is ShardState.FINISHED:
            ending = row.sequence_number or shard.starting_sequence_number or 0
            closed[name] = replace(shard, ending_sequence_number=ending)
    return replace(view, shards={**view.shards, **closed}) if closed else view


def with_children(view: ShardView, children: Iterable[Shard]) -> ShardView:
    """Return the view with children of a known shard."""
    found = {shard.shard_id: shard for shard in children}
    if not found:
        return view
    going_on = view.round
    if going_on is not None:  # its pages may have passed them already
        going_on = replace(going_on, shards={**found, **going_on.shards})
    return replace(view, shards={**view.shards, **found}, round=going_on)


def with_newer(view: ShardView, page: ShardPage, checkpoint: Checkpoint) -> ShardView:
    """Return the view with the shards of one page, as far as they or their parents are known."""
    arn = view.stream.stream_arn
    known = dict(view.shards)
    for shard in page.stream.shards:
        parents = parents_in(shard.parent_shard_id)
        if shard.shard_id in known or any(
            parent in known or checkpoint.get(arn, parent) is not None for parent in parents
        ):
            known[shard.shard_id] = shard
    listed_open = {shard.shard_id for shard in page.stream.shards if shard.is_open}
    closed = {shard.shard_id for shard in page.stream.shards} - listed_open
    finished = {
        name
        for name in listed_open
        if (row := checkpoint.get(arn, name)) is not None and row.state is ShardState.FINISHED
    }
    return replace(
        view,
        stream=page.stream,
        shards=known,
        contradicted=(view.contradicted - closed) | finished,
    )


def with_page(view: ShardView, page: ShardPage, checkpoint: Checkpoint, now: datetime) -> ShardView:
    """Return the view with the next page of its round; the last one replaces all that is known.

    A first listing counts as of its first page: changes since then are landed (start="latest"),
    also those of shards that have closed since.
    """
    before = view.round or Round(now, served_at=page.stream.served_at)
    shards = {**before.shards, **{shard.shard_id: shard for shard in page.stream.shards}}
    pages = before.pages + bool(page.stream.shards)
    closed_late = before.closed_late
    if before.last is not None and view.listed_at is None:
        closed_late |= {shard.shard_id for shard in page.stream.shards if not shard.is_open}
    view = with_newer(view, page, checkpoint)
    if page.last is not None:
        lasts = (*before.lasts, page.last)
        going_on = replace(before, shards=shards, lasts=lasts, pages=pages, closed_late=closed_late)
        return replace(view, round=going_on)
    stream = view.stream
    if view.listed_at is None:
        stream = replace(stream, served_at=before.served_at, closed_late=closed_late)
    return replace(
        view,
        stream=stream,
        shards=shards,
        listed_at=before.began_at,
        pages=pages,
        round=None,
        contradicted=view.contradicted & shards.keys(),
    )


def without_round(view: ShardView) -> ShardView:
    """Return the view before a round that begins anew: what goes on may miss what matters."""
    return replace(view, round=None)
