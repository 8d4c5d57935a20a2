"""Check that a drain reads the table that its change log belongs to, before it reads anything."""

from __future__ import annotations

from dataclasses import replace

from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.drain.stream_choice import Listing
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.shard import is_kinesis
from datazone_dagster.model.source_identity import (
    Relation,
    SourceIdentity,
    contradicts,
    mismatch,
    relation,
    table_of_stream,
    to_record,
)


def owner_to_record(
    source_name: str, log: ChangeLogSnapshot, listing: Listing, checkpoint: Checkpoint
) -> SourceIdentity | None:
    """Return the table to store with the change log; None if the stored one is up to date.

    A table that was re-created under its name goes on in the same change log: its stream is a new
    one, which is a gap and a new epoch.

    Raises:
        SourceMismatchError: The change log belongs to another table. Without this error, a shard
            of that table would count as lost, since this service does not know it.
    """
    found, owner = listing.identity, log.owner
    if found is None:
        return None
    if owner is None:
        _check_stream_arns(source_name, log, listing, checkpoint)
    elif relation(owner, found) is Relation.ANOTHER:
        raise mismatch(source_name, log.uri, owner, found)
    return to_record(owner, found)


def check_unlisted(
    source_name: str,
    log: ChangeLogSnapshot,
    found: SourceIdentity | None,
    checkpoint: Checkpoint,
) -> None:
    """Compare what is known of the table while the service refuses to list its streams.

    A table that no answer has described is known by the name and region of the definition only:
    its endpoint may be a new one of the same table.

    Args:
        source_name: Name of the source.
        log: Change log of the source.
        found: Table as far as the client knows it; None if it can't tell.
        checkpoint: Checkpoint of everything landed so far.

    Raises:
        SourceMismatchError: The change log belongs to another table.
    """
    if found is None:
        return
    if found.exists:
        owner_to_record(source_name, log, Listing((), None, found), checkpoint)
    elif log.owner and contradicts(log.owner, found.table_name, found.region):
        raise mismatch(source_name, log.uri, log.owner, replace(found, exists=True))


def _check_stream_arns(
    source_name: str, log: ChangeLogSnapshot, listing: Listing, checkpoint: Checkpoint
) -> None:
    """Compare the tables in ARNs, for a change log of an earlier version, which has no owner yet.

    The ARN of a Kinesis stream does not name the table; that of the table, which is asked, does. A
    stream that was read before is the same one, whatever its ARN names.
    """
    known, found = checkpoint.stream_arn, listing.stream_arns[-1:]
    if not known or not found or known == found[0]:
        return
    table = table_of_stream(found[0])
    if is_kinesis(found[0]) and listing.identity is not None:
        table = listing.identity.table_arn
    if table_of_stream(known) != table:
        raise mismatch(source_name, log.uri, table_of_stream(known) or known, table or found[0])
