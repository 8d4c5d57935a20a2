"""Choice of the stream to read: a table's streams are read one after another, oldest first."""

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
    """Return the oldest stream that is not drained to its end yet, else the current one."""
    missing: TableNotFoundError | StreamDisabledError | None = None
    rows = sorted(checkpoint.shards.values(), key=lambda row: row.first_listed_at)
    try:
        new = _new_streams(client.stream_arns(), {row.stream_arn for row in rows})
    except (TableNotFoundError, StreamDisabledError) as error:
        new, missing = (), error
    unfinished = dict.fromkeys(row.stream_arn for row in rows if not row.is_done)
    for stream_arn in dict.fromkeys((*unfinished, *new)):
        try:
            return client.describe(stream_arn)
        except ShardNotFoundError:
            if stream_arn not in unfinished:
                raise
            # The entire stream is gone: its shards are read by id, found missing, and recorded
            # as gaps; then the current stream is read.
            return StreamDescription(stream_arn, view_type="", enabled=False, shards=())
    assert missing is not None
    raise missing


def _new_streams(stream_arns: tuple[str, ...], known: set[str]) -> tuple[str, ...]:
    """Return the streams after the known ones, and always the current one.

    A stream may have been replaced twice between two drains. In the very first drain only the
    current stream counts.
    """
    last_known = max((at for at, arn in enumerate(stream_arns) if arn in known), default=-1)
    return (stream_arns[last_known + 1 :] if known else ()) or stream_arns[-1:]
