"""Detection of a stream that was made again under its ARN: by its table, shards or records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.known_records import any_landed
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.restarts import has_other_shards, was_never_read
from datazone_dagster.drain.stream_choice import Listing
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.source_identity import SourceIdentity


def stream_of_new_table(
    client: StreamClient, listing: Listing, owner: SourceIdentity | None, checkpoint: Checkpoint
) -> StreamDescription | None:
    """Return the stream that a re-created table has under an ARN that was read before.

    Args:
        client: Client of the stream.
        listing: Streams of the table.
        owner: Identity to store with the change log, if it changed.
        checkpoint: Checkpoint of everything landed so far.
    """
    if owner is None or not owner.former_table_ids or listing.identity is None:
        return None
    arn = listing.identity.stream_arn
    name = checkpoint.name_of_stream(arn)
    if not checkpoint.of_stream(name) or was_never_read(checkpoint, name):
        return None
    return replace(client.describe(arn), stream_arn=name)


def was_made_again(
    source: DynamoDBSource,
    log: ChangeLogSnapshot,
    stream: StreamDescription,
    before: Checkpoint,
    outcomes: Sequence[ShardOutcome],
) -> bool:
    """Return whether what was read can't be the stream that was read before.

    Args:
        source: Source of the stream.
        log: Change log before this drain.
        stream: Stream as listed.
        before: Checkpoint before the listing was added to it.
        outcomes: Outcomes of the reads.

    Raises:
        StorageError: The change log can't be read.
    """
    if has_other_shards(stream, before, outcomes):
        return True
    return any(
        one.older and not any_landed(log, one.row, one.older, compare_keys=not source.masked)
        for one in outcomes
    )
