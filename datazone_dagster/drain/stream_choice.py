"""Choice of the stream to read: a table's streams are read one after another, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from datazone_dagster.drain.switches import name_after_switch
from datazone_dagster.errors import (
    ShardNotFoundError,
    StreamDisabledError,
    TableNotFoundError,
)
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import KnowsTable, StreamClient
from datazone_dagster.model.shard import StreamDescription, is_switch
from datazone_dagster.model.source_identity import SourceIdentity


@dataclass(frozen=True, slots=True)
class Listing:
    """The streams of a table, as listed now.

    Args:
        stream_arns: ARNs of the readable streams, oldest first.
        missing: Error that tells why there are none; None if there are any.
        identity: Table that the client reads; None if the client can't tell.
    """

    stream_arns: tuple[str, ...]
    missing: TableNotFoundError | StreamDisabledError | None
    identity: SourceIdentity | None


def list_streams(client: StreamClient) -> Listing:
    """List the streams of the table, and find out which table it is."""
    missing: TableNotFoundError | StreamDisabledError | None = None
    stream_arns: tuple[str, ...] = ()
    try:
        stream_arns = client.stream_arns()
    except (TableNotFoundError, StreamDisabledError) as error:
        missing = error
    return Listing(stream_arns, missing, known_table(client))


def known_table(client: StreamClient) -> SourceIdentity | None:
    """Return the table that the client reads, without a call; None if it can't tell."""
    return client.identity() if isinstance(client, KnowsTable) else None


def stream_to_read(
    describe: Callable[[str], StreamDescription], listing: Listing, checkpoint: Checkpoint
) -> StreamDescription:
    """Return the oldest stream that is not drained to its end yet, else the current one.

    A stream that the source was switched away from is not read to its end: this client can't.

    Args:
        describe: Lists the shards of a stream, given our name of it.
        listing: The streams of the table.
        checkpoint: Checkpoint of everything landed so far.
    """
    unread = sorted(checkpoint.unfinished, key=lambda row: row.unread_from)
    stream_arns = tuple(map(checkpoint.name_of_stream, listing.stream_arns))
    new = _new_streams(stream_arns, checkpoint.stream_arns)
    if new:
        new = (*new[:-1], name_after_switch(checkpoint, new[-1]))
    unfinished = dict.fromkeys(
        row.stream_arn for row in unread if not (new and is_switch(row.stream_arn, new[-1]))
    )
    for stream_arn in dict.fromkeys((*unfinished, *new)):
        try:
            return describe(stream_arn)
        except ShardNotFoundError:
            if stream_arn not in unfinished:
                raise
            # The entire stream is gone: its shards are read by id, found missing, and recorded
            # as gaps; then the current stream is read.
            return StreamDescription(stream_arn, view_type="", enabled=False, shards=())
    assert listing.missing is not None
    raise listing.missing


def _new_streams(stream_arns: tuple[str, ...], known: Collection[str]) -> tuple[str, ...]:
    """Return the streams after the known ones, and always the current one.

    A stream may have been replaced twice between two drains. In the very first drain only the
    current stream counts.
    """
    last_known = max((at for at, arn in enumerate(stream_arns) if arn in known), default=-1)
    return (stream_arns[last_known + 1 :] if known else ()) or stream_arns[-1:]
