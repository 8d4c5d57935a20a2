"""Which of a table's streams is read: one after the other, the oldest that has an end first."""

from __future__ import annotations

from datazone_dagster.errors import (
    ShardNotFoundError,
    StreamDisabledError,
    TableNotFoundError,
)
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.shard import StreamDescription


def stream_to_read(client: StreamClient, checkpoint: Checkpoint) -> StreamDescription:
    """The oldest stream that is not drained to its end yet, else the current one."""
    missing: TableNotFoundError | StreamDisabledError | None = None
    rows = sorted(checkpoint.shards.values(), key=lambda row: row.first_listed_at)
    try:
        unseen = _unseen_streams(client.stream_arns(), {row.stream_arn for row in rows})
    except (TableNotFoundError, StreamDisabledError) as error:
        unseen, missing = (), error
    unfinished = dict.fromkeys(row.stream_arn for row in rows if not row.is_done)
    for stream_arn in dict.fromkeys((*unfinished, *unseen)):
        try:
            return client.describe(stream_arn)
        except ShardNotFoundError:
            if stream_arn not in unfinished:
                raise
            # The whole stream is gone: its shards are read by id, found missing, and noted
            # as gaps, after which the current stream's turn comes.
            return StreamDescription(stream_arn, view_type="", enabled=False, shards=())
    assert missing is not None
    raise missing


def _unseen_streams(stream_arns: tuple[str, ...], known: set[str]) -> tuple[str, ...]:
    """The streams after those we know, and always the current one.

    A stream may have been replaced twice between two drains. At the very first drain only
    the current one counts.
    """
    last_known = max((at for at, arn in enumerate(stream_arns) if arn in known), default=-1)
    return (stream_arns[last_known + 1 :] if known else ()) or stream_arns[-1:]
