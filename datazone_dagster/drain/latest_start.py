"""Shards with changes since the first listing of a stream began that is read from now on. Pure.

Open shards may have some. A listing of many pages takes a while, and a shard may close before its
page is shown: what it got meanwhile is on no other shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from datazone_dagster.errors import SourceError
from datazone_dagster.model.checkpoint import ShardCheckpoint, ShardState
from datazone_dagster.model.shard import Shard, StreamDescription, parents_in

MARGIN = timedelta(minutes=1)
"""Time before the listing up to which a shard may have opened, by its id, and its parent still
counts: ids are no promise of the service."""

_ID = re.compile(r"shardId-(\d{20})-[0-9a-f]+")
_FIRST = datetime(2012, 1, 1, tzinfo=timezone.utc)
_LAST_MS = 10**13
"""Before there were streams, and the year 2286: another number is no time in milliseconds."""


def from_now(stream: StreamDescription, rows: Sequence[ShardCheckpoint]) -> list[ShardCheckpoint]:
    """Return the rows of the listed shards for start="latest".

    Args:
        stream: The stream as first listed.
        rows: A row for each of its shards, in their order.

    Raises:
        SourceError: The service does not say what time it is.
    """
    began_at = stream.served_at
    if began_at is None:
        raise SourceError(
            f"The stream {stream.stream_arn} can't be read from start='latest': the response of "
            "DescribeStream has no Date header, and the clock of this machine may differ from the "
            "one that stamps the changes.",
            safe="Nothing was read or written.",
            hint="Use start='trim_horizon', or an endpoint that sends the header.",
        )
    closed = closed_since(stream, began_at)
    return [
        replace(row, skip_before=began_at)
        if shard.is_open or shard.shard_id in closed
        else replace(row, state=ShardState.FINISHED)
        for row, shard in zip(rows, stream.shards, strict=True)
    ]


def closed_since(stream: StreamDescription, began_at: datetime) -> set[str]:
    """Return the ids of closed shards that may have got changes since a listing began.

    A shard closes when its children open. One whose child is older, by its id, closed before; one
    without a known child, or with ids that tell no time, may have been open.

    Args:
        stream: The stream as first listed.
        began_at: Start of the listing, by the clock of the service.
    """
    if not stream.closed_late:
        return set()
    before = began_at - MARGIN
    closed_before = _parents(
        shard
        for shard in stream.shards
        if (at := opened_at(shard.shard_id)) is not None and at < before
    )
    return set(stream.closed_late) - closed_before


def opened_at(shard_id: str) -> datetime | None:
    """Return when a shard was opened, by its id; None if the id tells no time."""
    match = _ID.fullmatch(shard_id)
    if match is None or int(match[1]) > _LAST_MS:
        return None
    at = datetime.fromtimestamp(int(match[1]) / 1000, timezone.utc)
    return at if at >= _FIRST else None


def _parents(shards: Iterable[Shard]) -> set[str]:
    return {parent for shard in shards for parent in parents_in(shard.parent_shard_id)}
