"""Reads of a shard: GetShardIterator, GetRecords.

Records are stored as the JSON of the answer, so a page is a join of bytes.
"""

from __future__ import annotations

import re
import sqlite3

import msgspec

from datazone_dagster.local.iterators import ShardPosition, new_reader, read, written
from datazone_dagster.local.service import (
    Body,
    Call,
    choice,
    optional_integer,
    optional_text,
    text,
)
from datazone_dagster.local.service_errors import ServiceError, not_found, validation
from datazone_dagster.local.stream_listing import find_stream
from datazone_dagster.local.stream_log import padded
from datazone_dagster.local.trimming import trim_aged
from datazone_dagster.model.service_limits import PAGE_BYTES, PAGE_RECORDS

_TYPES = ("TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")
_SEQUENCE = re.compile(r"\d{21,40}", re.ASCII)


class RecordsPage(msgspec.Struct, frozen=True):
    """GetRecords answer before it is encoded."""

    records: list[bytes]
    next_iterator: str | None

    def encoded(self) -> bytes:
        """Return the JSON body."""
        body = b'{"Records":[' + b",".join(self.records) + b"]"
        if self.next_iterator is not None:
            body += b',"NextShardIterator":' + msgspec.json.encode(self.next_iterator)
        return body + b"}"


def get_shard_iterator(call: Call, body: Body) -> Body:
    """`GetShardIterator`.

    A sequence number that was itself trimmed raises `TrimmedDataAccessException`, as the API
    reference words it, even when no record after it was lost.
    """
    arn = text(body, "StreamArn")
    stream = find_stream(call, arn)
    trim_aged(call)
    shard = _find_shard(call, stream["number"], text(body, "ShardId"))
    kind = choice(body, "ShardIteratorType", _TYPES)
    after = _start(call, shard, kind, optional_text(body, "SequenceNumber"))
    position = ShardPosition(shard["number"], after, call.clock.now(), new_reader())
    return {"ShardIterator": written(arn, position)}


def _find_shard(call: Call, stream: int, shard_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = call.db.execute(
        "SELECT * FROM shards WHERE stream = ? AND shard_id = ? AND dropped = 0",
        (stream, shard_id),
    ).fetchone()
    if row is None:
        raise not_found(f"Requested resource not found: Shard does not exist: {shard_id}")
    return row


def _start(call: Call, shard: sqlite3.Row, kind: str, sequence: str | None) -> str:
    if kind.endswith("SEQUENCE_NUMBER") != (sequence is not None):
        raise validation(
            "SequenceNumber must be given with AT_SEQUENCE_NUMBER and AFTER_SEQUENCE_NUMBER, "
            f"and only then; ShardIteratorType is {kind}"
        )
    trimmed: str = shard["trimmed_through"]
    if kind == "TRIM_HORIZON":
        return trimmed or padded(0)
    if sequence is None:  # LATEST
        row = call.db.execute(
            "SELECT max(sequence) AS last FROM records WHERE shard = ?", (shard["number"],)
        ).fetchone()
        return str(row["last"] or trimmed or padded(0))
    if not _SEQUENCE.fullmatch(sequence):
        raise validation(f"Invalid SequenceNumber {sequence!r}: 21 to 40 digits are expected")
    wanted = padded(int(sequence))
    if trimmed and wanted <= trimmed:
        raise trimmed_error()
    if wanted < shard["starting"] or (shard["ending"] is not None and wanted > shard["ending"]):
        raise validation(
            f"Invalid SequenceNumber: {sequence} is not within the range of {shard['shard_id']}"
        )
    return padded(int(sequence) - 1) if kind == "AT_SEQUENCE_NUMBER" else wanted


def trimmed_error() -> ServiceError:
    """Return the error for a position before the trim horizon."""
    return ServiceError(
        "TrimmedDataAccessException",
        "The operation attempted to read past the oldest stream record in a shard",
    )


def get_records(call: Call, body: Body) -> RecordsPage:
    """`GetRecords`: at most 1,000 records or 1 MB (as encoded), at least one if any is left."""
    iterator = text(body, "ShardIterator")
    limit = optional_integer(body, "Limit", 1, PAGE_RECORDS) or PAGE_RECORDS
    now = call.clock.now()
    position = read(iterator, now)
    trim_aged(call)
    shard = call.db.execute(
        "SELECT shards.*, streams.arn FROM shards JOIN streams ON streams.number = stream"
        " WHERE shards.number = ?",
        (position.shard,),
    ).fetchone()
    if shard is None or shard["dropped"]:
        raise not_found("Requested resource not found: Shard does not exist")
    find_stream(call, shard["arn"])
    if position.after < shard["trimmed_through"]:
        raise trimmed_error()
    records, last, more = _read_page(call, position, limit)
    ended = shard["ending"] is not None and not more
    following = None if ended else written(shard["arn"], position.moved(last, now))
    return RecordsPage(records, following)


def _read_page(call: Call, position: ShardPosition, limit: int) -> tuple[list[bytes], str, bool]:
    records: list[bytes] = []
    last, size_bytes = position.after, 0
    rows = call.db.execute(
        "SELECT sequence, body FROM records WHERE shard = ? AND sequence > ?"
        " ORDER BY sequence LIMIT ?",
        (position.shard, position.after, limit + 1),
    )
    for row in rows:
        body: bytes = row["body"]
        size_bytes += len(body)
        if len(records) == limit or (records and size_bytes > PAGE_BYTES):
            return records, last, True
        records.append(body)
        last = row["sequence"]
    return records, last, False
